package broker

import "encoding/binary"

// flow holds back messages of QoS 1 and 2 for a client that takes only so many unacknowledged ones (MQTT 5 section 4.9),
// and what is published after them. mochi is told of no such limit: what it does for one can hold a lock for ever, and
// changes the order. It is guarded by conn.mu.
type flow struct {
	max   int // 0 means no limit
	sent  map[uint16]struct{}
	held  []heldPacket
	bytes int // of held
}

type heldPacket struct {
	id     uint16 // 0 for QoS 0
	packet []byte
}

// pass appends to dst those of the whole packets in p that may be sent now.
func (f *flow) pass(dst, p []byte) []byte {
	if f.max == 0 {
		return append(dst, p...)
	}
	for len(p) > 0 {
		head, size := sizes(p)
		packet, id := p[:head+size], publishID(p[:head+size], head)
		p = p[len(packet):]
		full := id != 0 && len(f.sent) >= f.max
		if packet[0]>>4 == typePublish && (full || len(f.held) > 0) {
			f.held = append(f.held, heldPacket{id, append([]byte(nil), packet...)})
			f.bytes += len(packet)
			continue
		}
		dst = f.send(dst, id, packet)
	}
	return dst
}

func (f *flow) send(dst []byte, id uint16, packet []byte) []byte {
	if id != 0 {
		f.sent[id] = struct{}{}
	}
	return append(dst, packet...)
}

// acked takes note of a packet of the client, and appends to dst what may be sent because of it.
func (f *flow) acked(dst, packet []byte, head int) []byte {
	if f.max == 0 {
		return dst
	}
	switch packet[0] >> 4 {
	case typePuback, typePubcomp:
	case typePubrec: // with a failure nothing follows
		if len(packet) < head+3 || packet[head+2] < 0x80 {
			return dst
		}
	default:
		return dst
	}
	delete(f.sent, binary.BigEndian.Uint16(packet[head:]))
	n := 0
	for n < len(f.held) && (f.held[n].id == 0 || len(f.sent) < f.max) {
		dst = f.send(dst, f.held[n].id, f.held[n].packet)
		f.bytes -= len(f.held[n].packet)
		f.held[n].packet = nil
		n++
	}
	if f.held = f.held[n:]; len(f.held) == 0 {
		f.held = nil
	}
	return dst
}

// sizes returns the lengths of the fixed header and of the rest of the packet that p begins with, which mochi wrote.
func sizes(p []byte) (head, size int) {
	for shift := 0; ; shift += 7 {
		head++
		size |= int(p[head]&0x7f) << shift
		if p[head]&0x80 == 0 {
			return head + 1, size
		}
	}
}

// publishID returns the id of a PUBLISH of QoS 1 or 2, and 0 for everything else.
func publishID(packet []byte, head int) uint16 {
	if packet[0]>>4 != typePublish || packet[0]&6 == 0 {
		return 0
	}
	topic := int(binary.BigEndian.Uint16(packet[head:]))
	return binary.BigEndian.Uint16(packet[head+2+topic:])
}
