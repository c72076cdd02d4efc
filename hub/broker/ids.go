package broker

import "sync/atomic"

// idMap gives the packets that a client numbers other ids while mochi has them. In MQTT client and server number their
// packets each for itself (MQTT 5 section 2.2.1), but mochi keeps both in one table: a SUBSCRIBE whose id is that of a
// message which waits for its PUBACK is refused, and a PUBLISH removes that message. The ids it sees here are half the
// range away from those that it gives out.
//
// All methods are for the goroutine that reads from the client, except sent.
type idMap struct {
	last   atomic.Uint32 // id that mochi gave out last
	inside map[uint16]uint16
	client map[uint16]uint16
}

// sent says that mochi numbered a message to the client.
func (m *idMap) sent(id uint16) { m.last.Store(uint32(id)) }

// enter returns the id that mochi sees for an id of the client, the same until the id is left. used says which ids
// mochi has in use.
func (m *idMap) enter(id uint16, used func(uint16) bool) uint16 {
	if in, ok := m.inside[id]; ok {
		return in
	}
	if m.inside == nil {
		m.inside, m.client = make(map[uint16]uint16), make(map[uint16]uint16)
	}
	in := uint16(m.last.Load()) + 1<<15
	for {
		if _, taken := m.client[in]; in != 0 && !taken && !used(in) {
			break
		}
		in++
	}
	m.inside[id], m.client[in] = in, id
	return in
}

// leave returns the id that the client gave to what mochi answers, and forgets it if the exchange is over.
func (m *idMap) leave(in uint16, over bool) uint16 {
	id, ok := m.client[in]
	if !ok {
		return in
	}
	if over {
		delete(m.client, in)
		delete(m.inside, id)
	}
	return id
}

// prune forgets the ids of exchanges that mochi does not know any more.
func (m *idMap) prune(used func(uint16) bool) {
	for in, id := range m.client {
		if !used(in) {
			delete(m.client, in)
			delete(m.inside, id)
		}
	}
}
