package socket

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Types of packets.
const (
	typeConnect      = '0'
	typeDisconnect   = '1'
	typeEvent        = '2'
	typeAck          = '3'
	typeConnectError = '4'
	typeBinaryEvent  = '5'
	typeBinaryAck    = '6'
)

const (
	// maxAttachments is the most binary attachments of a packet.
	maxAttachments = 16
	// maxName is the longest name of an event or of a namespace.
	maxName = 128
	// maxDepth is how deep values may be nested, so that no recipient runs out of stack.
	maxDepth = 128
	// maxDigits is the most digits of a number that JavaScript can count exactly.
	maxDigits = 15
)

var errPacket = errors.New("not a Socket.IO packet")

// packet is a packet from a client, without its attachments.
type packet struct {
	kind        byte
	attachments int
	namespace   string
	id          uint64
	wantsAck    bool // of an event: it has an id
	payload     []byte
}

// readPacket reads the text of a packet. The payload is valid JSON of the kind that the type asks for, and part of text.
func readPacket(text []byte) (packet, error) {
	if len(text) == 0 || text[0] < typeConnect || text[0] > typeBinaryAck {
		return packet{}, fmt.Errorf("%w: unknown type", errPacket)
	}
	p := packet{kind: text[0], namespace: "/"}
	rest := text[1:]
	if p.kind == typeBinaryEvent || p.kind == typeBinaryAck {
		n, after, ok := number(rest, 3)
		if !ok || len(after) == 0 || after[0] != '-' {
			return packet{}, fmt.Errorf("%w: no number of attachments", errPacket)
		}
		if n > maxAttachments {
			return packet{}, fmt.Errorf("%w: more than %d attachments", errPacket, maxAttachments)
		}
		p.attachments, rest = int(n), after[1:]
	}
	if len(rest) > 0 && rest[0] == '/' {
		end := 0
		for end < len(rest) && rest[end] != ',' {
			end++
		}
		if end > maxName {
			return packet{}, fmt.Errorf("%w: the name of the namespace is too long", errPacket)
		}
		p.namespace = string(rest[:end])
		rest = rest[min(end+1, len(rest)):]
	}
	if len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
		var ok bool
		if p.id, rest, ok = number(rest, maxDigits); !ok {
			return packet{}, fmt.Errorf("%w: bad id", errPacket)
		}
		p.wantsAck = true
	}
	p.payload = rest
	return p, p.check()
}

// number reads up to so many digits.
func number(text []byte, digits int) (n uint64, rest []byte, ok bool) {
	end := 0
	for end < len(text) && text[end] >= '0' && text[end] <= '9' {
		end++
	}
	if end == 0 || end > digits {
		return 0, text, false
	}
	n, err := strconv.ParseUint(string(text[:end]), 10, 64)
	return n, text[end:], err == nil
}

// check reports whether the payload is of the kind that the type asks for.
func (p *packet) check() error {
	ack := p.kind == typeAck || p.kind == typeBinaryAck
	switch {
	case len(p.payload) > 0 && (!shallow(p.payload) || !json.Valid(p.payload)):
		return fmt.Errorf("%w: the payload is no JSON, or nested too deep", errPacket)
	case p.kind == typeConnect && len(p.payload) > 0 && first(p.payload) != '{',
		p.kind == typeDisconnect && len(p.payload) > 0,
		p.kind == typeConnectError, // only servers send it
		p.kind >= typeEvent && p.kind != typeConnectError && first(p.payload) != '[',
		ack && !p.wantsAck:
		return fmt.Errorf("%w: not the payload of its type", errPacket)
	}
	return nil
}

// first returns the first byte of JSON that is no space, zero if there is none.
func first(text []byte) byte {
	for _, c := range text {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return c
		}
	}
	return 0
}

// shallow reports whether brackets are nested no deeper than allowed. It need not be JSON.
func shallow(text []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return false
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return true
}

// placed reports whether every place that a value leaves for an attachment is one of n. Recipients break the connection over
// one that is not.
func placed(value any, n int) bool {
	switch v := value.(type) {
	case []any:
		for _, e := range v {
			if !placed(e, n) {
				return false
			}
		}
	case map[string]any:
		if v["_placeholder"] == true {
			num, ok := v["num"].(float64)
			return ok && num >= 0 && num < float64(n) && num == float64(int(num))
		}
		for _, e := range v {
			if !placed(e, n) {
				return false
			}
		}
	}
	return true
}

// readArgs reads the payload of an event or an ack. The values are copies.
func (p *packet) readArgs() ([]json.RawMessage, error) {
	var args []json.RawMessage
	if err := json.Unmarshal(p.payload, &args); err != nil {
		return nil, fmt.Errorf("%w: %w", errPacket, err)
	}
	if p.kind == typeBinaryEvent || p.kind == typeBinaryAck {
		var values any
		if err := json.Unmarshal(p.payload, &values); err != nil || !placed(values, p.attachments) {
			return nil, fmt.Errorf("%w: a place for an attachment that is not there", errPacket)
		}
	}
	return args, nil
}

// readName reads the name of an event.
func readName(arg json.RawMessage) (string, error) {
	var name string
	if c := first(arg); c >= '0' && c <= '9' || c == '-' {
		name = string(arg) // clients may use numbers
	} else if err := json.Unmarshal(arg, &name); err != nil {
		return "", fmt.Errorf("%w: the name of an event is no string", errPacket)
	}
	if utf8.RuneCountInString(name) > maxName || Reserved(name) {
		return "", fmt.Errorf("%w: the name of an event is too long, or means something else to clients", errPacket)
	}
	return name, nil
}

// Reserved reports whether clients use the name for what happens to the connection, so that no event may have it.
func Reserved(name string) bool {
	switch name {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return true
	}
	return false
}

// Message is the arguments of an event or of an ack: JSON values, and the binary data that has its place in them.
type Message struct {
	Args        []json.RawMessage
	Attachments [][]byte
}

// Values returns the message of some values. A []byte becomes an attachment, but only if it stands by itself; a
// json.RawMessage is taken as it is; everything else is marshalled. Nothing that is given may be changed afterwards.
func Values(values ...any) (Message, error) {
	m := Message{Args: make([]json.RawMessage, 0, len(values))}
	for _, v := range values {
		switch v := v.(type) {
		case json.RawMessage:
			m.Args = append(m.Args, v)
		case []byte:
			place := fmt.Appendf(nil, `{"_placeholder":true,"num":%d}`, len(m.Attachments))
			m.Args, m.Attachments = append(m.Args, place), append(m.Attachments, v)
		default:
			arg, err := json.Marshal(v)
			if err != nil {
				return Message{}, fmt.Errorf("encode an argument: %w", err)
			}
			m.Args = append(m.Args, arg)
		}
	}
	return m, nil
}

// appendHead appends what a packet has before its payload. kind is that of a packet without attachments.
func appendHead(dst []byte, kind byte, attachments int, namespace string) []byte {
	if attachments > 0 {
		kind += typeBinaryEvent - typeEvent
		dst = append(strconv.AppendInt(append(dst, kind), int64(attachments), 10), '-')
	} else {
		dst = append(dst, kind)
	}
	if namespace != "/" {
		dst = append(append(dst, namespace...), ',')
	}
	return dst
}

// appendEvent appends an event but for the bracket at its end.
func appendEvent(dst []byte, namespace string, id uint64, event string, m Message) []byte {
	dst = appendHead(dst, typeEvent, len(m.Attachments), namespace)
	if id > 0 {
		dst = strconv.AppendUint(dst, id, 10)
	}
	name, _ := json.Marshal(event) // a string always marshals
	dst = append(append(dst, '['), name...)
	for _, a := range m.Args {
		dst = append(append(dst, ','), a...)
	}
	return dst
}

// appendAck appends an ack.
func appendAck(dst []byte, namespace string, id uint64, m Message) []byte {
	dst = appendHead(dst, typeAck, len(m.Attachments), namespace)
	dst = append(strconv.AppendUint(dst, id, 10), '[')
	for i, a := range m.Args {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, a...)
	}
	return append(dst, ']')
}
