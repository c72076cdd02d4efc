package eio

import (
	"bytes"
	"encoding/base64"
	"errors"
	"unicode/utf8"
)

// Types of packets, as the first byte of a text says them. Binary data has no type: it is always a message.
const (
	typeOpen    = '0'
	typeClose   = '1'
	typePing    = '2'
	typePong    = '3'
	typeUpgrade = '5'
	typeNoop    = '6'
)

// TypeMessage is the type of a message.
const TypeMessage = '4'

const (
	// separator stands between the packets of a polling payload.
	separator = 0x1e
	// binaryMark begins a packet of a payload that is binary data in base64.
	binaryMark = 'b'
)

var errPacket = errors.New("not an Engine.IO packet")

// packet is a packet from a client.
type packet struct {
	kind   byte
	binary bool
	data   []byte
}

// readText reads a packet in a text.
func readText(text []byte) (packet, error) {
	if len(text) == 0 || text[0] < typeOpen || text[0] > typeNoop {
		return packet{}, errPacket
	}
	return packet{kind: text[0], data: text[1:]}, nil
}

// nextPacket reads the first packet of a polling payload and returns the rest, nil after the last. Binary data is decoded
// in place: the payload is overwritten.
func nextPacket(payload []byte) (p packet, rest []byte, err error) {
	one := payload
	if i := bytes.IndexByte(payload, separator); i >= 0 {
		one, rest = payload[:i], payload[i+1:]
		if len(rest) == 0 {
			return packet{}, nil, errPacket // a separator with nothing behind it
		}
	}
	if len(one) == 0 || one[0] != binaryMark {
		if !utf8.Valid(one) {
			return packet{}, nil, errPacket
		}
		p, err = readText(one)
		return p, rest, err
	}
	data := one[1:]
	enc := base64.StdEncoding
	if len(data)%4 != 0 {
		enc = base64.RawStdEncoding // some clients leave the padding away
	}
	n, err := enc.Decode(data, data)
	if err != nil {
		return packet{}, nil, errPacket
	}
	return packet{kind: TypeMessage, binary: true, data: data[:n]}, rest, nil
}
