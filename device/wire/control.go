package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// Messages other than data, state and ack are a map: in JSON an object with the name of the message in m, in CBOR the
// array [type, map] with the same keys. There is one strict decoder for both: JSON is turned into CBOR first, so that
// what is refused (keys that stand twice, deep nesting, wrong types) and what is ignored (unknown keys) is the same.

// decMode is immutable.
var decMode = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	IndefLength:       cbor.IndefLengthForbidden,
	TagsMd:            cbor.TagsForbidden,
	MaxNestedLevels:   MaxNesting,
	MaxArrayElements:  1 << 12,
	MaxMapPairs:       1 << 12,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	NaN:               cbor.NaNDecodeForbidden,
	Inf:               cbor.InfDecodeForbidden,
}.DecMode())

// encMode is immutable.
var encMode = must(cbor.EncOptions{ShortestFloat: cbor.ShortestFloat16}.EncMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // the options above are wrong
	}
	return v
}

// decodeControl decodes a message of the given type into the struct that body points to.
func decodeControl(f Format, frame []byte, t Type, body any) error {
	if err := checkSize(frame); err != nil {
		return err
	}
	var doc []byte
	if f == CBOR {
		items, p := cborArray(frame, 0)
		if p < 0 || items < 2 {
			return protocolError("%s is an array of a number and a map", t)
		}
		typ, p := cborUint(frame, p, 255)
		if p < 0 || Type(typ) != t {
			return protocolError("not a message of type %s", t)
		}
		end := cborSkip(frame, p, MaxNesting-1)
		doc = frame[p:max(end, p)]
		for range items - 2 { // of a newer version
			end = cborSkip(frame, end, MaxNesting-1)
		}
		if end != len(frame) {
			return malformed(CBOR)
		}
	} else {
		if !utf8.Valid(frame) {
			return malformed(JSON)
		}
		name, ok := jsonMessage(frame)
		if !ok || typeOf(name) != t {
			return protocolError("not a message of type %s", t)
		}
		var p int
		if doc, p = transcode(make([]byte, 0, len(frame)), frame, jsonSpace(frame, 0), MaxNesting); p < 0 || !jsonEnd(frame, p) {
			return malformed(JSON)
		}
	}
	if len(doc) == 0 || doc[0]>>5 != majorMap {
		return protocolError("%s has no map of its fields", t)
	}
	if err := decMode.Unmarshal(doc, body); err != nil {
		return protocolError("%s: %v", t, err)
	}
	return nil
}

// checked is a message that can check itself once it is decoded.
type checked[T any] interface {
	*T
	check() error
}

func decodeAs[T any, P checked[T]](f Format, frame []byte, t Type) (T, error) {
	var v, none T
	if err := decodeControl(f, frame, t, &v); err != nil {
		return none, err
	}
	if err := P(&v).check(); err != nil {
		return none, err
	}
	return v, nil
}

// jsonMessage returns the text of the member m at the top of an object.
func jsonMessage(b []byte) (name []byte, ok bool) {
	p := jsonOpen(b, 0, '{')
	for first := true; p >= 0; first = false {
		raw, next, more := jsonMember(b, p, first)
		if next < 0 || !more {
			return nil, false
		}
		var buf [8]byte
		if key, _ := jsonUnescape(buf[:0], raw); string(key) == "m" {
			name, next = jsonString(b, next)
			return name, next >= 0
		}
		p = jsonSkip(b, next, MaxNesting-1)
	}
	return nil, false
}

// appendControl appends a message whose fields are those of the struct body.
func appendControl(dst []byte, f Format, t Type, body any) []byte {
	if f == CBOR {
		dst = append(dst, majorArray<<5|2)
		dst = appendCBORHead(dst, majorUint, uint64(t))
		return append(dst, mustEncode(encMode.Marshal(body))...)
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		mustEncode(nil, err)
	}
	fields := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	dst = append(dst, `{"m":"`...)
	dst = append(dst, t.String()...)
	dst = append(dst, '"')
	if len(fields) > len("{}") {
		dst = append(dst, ',')
	}
	return append(dst, fields[1:]...)
}

// mustEncode panics if a struct of this package cannot be encoded, which no value of its fields can cause.
func mustEncode(b []byte, err error) []byte {
	if err != nil {
		panic(fmt.Errorf("encode message: %w", err))
	}
	return b
}

// transcode appends the JSON value at p to dst as CBOR. Whole numbers that are exact become integers.
func transcode(dst, b []byte, p, depth int) (out []byte, next int) {
	switch c := jsonByte(b, p); c {
	case '"':
		raw, p := jsonString(b, p)
		if p < 0 {
			return nil, -1
		}
		text, ok := jsonUnescape(nil, raw)
		if !ok {
			return nil, -1
		}
		return append(appendCBORHead(dst, majorText, uint64(len(text))), text...), p
	case 't':
		return append(dst, cborTrue), jsonLiteral(b, p, "true")
	case 'f':
		return append(dst, cborFalse), jsonLiteral(b, p, "false")
	case 'n':
		return append(dst, cborNull), jsonLiteral(b, p, "null")
	case '[', '{':
		return transcodeNested(dst, b, p, depth)
	}
	v, p := jsonNumber(b, p)
	if p < 0 {
		return nil, -1
	}
	// A number beyond the range of a float64 is passed on as infinite, which whoever needs it refuses.
	if n := int64(v); v >= -MaxExactInt && v <= MaxExactInt && math.Float64bits(float64(n)) == math.Float64bits(v) { // -0 is no integer
		return appendCBORInt(dst, n), p
	}
	return appendCBORFloat(dst, v), p
}

func transcodeNested(dst, b []byte, p, depth int) (out []byte, next int) {
	if depth <= 0 {
		return nil, -1
	}
	object := b[p] == '{'
	// The number of items comes first and is known last. A frame of 64 KiB cannot have more than 16 bits of them.
	major := byte(majorArray)
	if object {
		major = majorMap
	}
	dst = append(dst, major<<5|25, 0, 0)
	head := len(dst) - 2
	p++
	for n := uint16(0); ; n++ {
		var more bool
		var key []byte
		if object {
			key, p, more = jsonMember(b, p, n == 0)
		} else {
			p, more = jsonElement(b, p, n == 0)
		}
		if p < 0 {
			return nil, -1
		}
		if !more {
			binary.BigEndian.PutUint16(dst[head:], n)
			return dst, p
		}
		if object {
			text, ok := jsonUnescape(nil, key)
			if !ok {
				return nil, -1
			}
			dst = append(appendCBORHead(dst, majorText, uint64(len(text))), text...)
		}
		if dst, p = transcode(dst, b, p, depth-1); p < 0 {
			return nil, -1
		}
	}
}
