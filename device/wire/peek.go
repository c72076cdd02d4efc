package wire

// Peek tells what a frame is without decoding it:
//
//   - In JSON an object whose m is a string is a message. In CBOR an array that begins with a number is one.
//   - Else an object whose v is an object is an [Envelope].
//   - Else every key of an object is the name of a metric: [ByHand]. {"v":230} is a metric v.
//   - An array that begins with an object is a [SenML] pack.
//
// A message that this version does not know is [TypeUnknown] without an error. Anything else is an error that wraps
// [ErrProtocol] or [ErrTooBig]. That Peek accepts a frame does not mean that a decoder will.
func Peek(f Format, frame []byte) (Type, error) {
	if err := checkSize(frame); err != nil {
		return TypeUnknown, err
	}
	if f == CBOR {
		return peekCBOR(frame)
	}
	p := jsonSpace(frame, 0)
	switch jsonByte(frame, p) {
	case '{':
		return peekObject(frame, p+1)
	case '[':
		if jsonByte(frame, jsonSpace(frame, p+1)) == '{' {
			return SenML, nil
		}
		return TypeUnknown, protocolError("an array is a SenML pack: its items must be objects")
	}
	return TypeUnknown, protocolError("a frame is a JSON object or a SenML array")
}

func peekObject(b []byte, p int) (Type, error) {
	t := ByHand
	for first := true; ; first = false {
		raw, next, more := jsonMember(b, p, first)
		if next < 0 {
			return TypeUnknown, malformed(JSON)
		}
		if !more {
			return t, nil
		}
		var buf [8]byte
		key, _ := jsonUnescape(buf[:0], raw)
		switch {
		case string(key) == "m" && jsonByte(b, next) == '"':
			name, end := jsonString(b, next)
			if end < 0 {
				return TypeUnknown, malformed(JSON)
			}
			return typeOf(name), nil
		case string(key) == "v" && jsonByte(b, next) == '{':
			t = Envelope
		}
		if p = jsonSkip(b, next, MaxNesting-1); p < 0 {
			return TypeUnknown, malformed(JSON)
		}
	}
}

func peekCBOR(b []byte) (Type, error) {
	ib, n, p := cborHead(b, 0)
	switch {
	case p < 0:
		return TypeUnknown, malformed(CBOR)
	case ib>>5 == majorMap:
		return peekMap(b, p, n)
	case ib>>5 != majorArray || n == 0:
		return TypeUnknown, protocolError("a frame is a CBOR array or map of definite length")
	}
	ib, typ, p := cborHead(b, p)
	switch {
	case p < 0:
		return TypeUnknown, malformed(CBOR)
	case ib>>5 == majorMap:
		return SenML, nil
	case ib>>5 != majorUint:
		return TypeUnknown, protocolError("a message begins with its number, a SenML pack with a map")
	case typ >= uint64(len(typeNames)):
		return TypeUnknown, nil
	}
	return Type(typ), nil
}

func peekMap(b []byte, p int, n uint64) (Type, error) {
	t := ByHand
	if n > uint64(len(b)) {
		return TypeUnknown, malformed(CBOR)
	}
	for range n {
		key, next := cborText(b, p)
		if next < 0 {
			return TypeUnknown, protocolError("the keys of a map are metric names")
		}
		ib, _, end := cborHead(b, next)
		switch {
		case end < 0:
			return TypeUnknown, malformed(CBOR)
		case string(key) == "m" && ib>>5 == majorText:
			return TypeUnknown, protocolError("in CBOR a message is an array that begins with its number")
		case string(key) == "v" && ib>>5 == majorMap:
			t = Envelope
		}
		if p = cborSkip(b, next, MaxNesting-1); p < 0 {
			return TypeUnknown, malformed(CBOR)
		}
	}
	return t, nil
}
