package wire

import (
	"math"
	"strconv"
)

// Ack says that every batch and gap up to Seq is durable. It is cumulative.
type Ack struct {
	Seq uint64
	// Win and Bytes change the limits of the welcome. Zero means that they stay as they are.
	Win, Bytes uint32
	// Bad lists what was refused in batches up to Seq. That is final: the rows must not be sent again. At most MaxBad
	// entries are sent; the last one then counts the rest.
	Bad []Bad
}

// AppendAck appends a. It allocates nothing if dst has room.
func AppendAck(dst []byte, f Format, a *Ack) []byte {
	bad := a.Bad[:min(len(a.Bad), MaxBad)]
	if f == CBOR {
		dst = append(dst, majorArray<<5|5)
		dst = appendCBORHead(dst, majorUint, uint64(TypeAck))
		dst = appendCBORHead(dst, majorUint, a.Seq)
		dst = appendCBORHead(dst, majorUint, uint64(a.Win))
		dst = appendCBORHead(dst, majorUint, uint64(a.Bytes))
		dst = appendCBORHead(dst, majorArray, uint64(len(bad)))
		for i := range bad {
			b := a.bad(i)
			dst = append(dst, majorArray<<5|5)
			dst = appendCBORHead(dst, majorUint, b.Seq)
			dst = appendCBORInt(dst, int64(b.Row))
			dst = appendCBORInt(dst, int64(b.Value))
			dst = appendCBORInt(dst, int64(b.Count))
			dst = appendCBORHead(dst, majorUint, uint64(b.Code))
		}
		return dst
	}
	dst = append(dst, `{"m":"ack","s":`...)
	dst = strconv.AppendUint(dst, a.Seq, 10)
	dst = appendField(dst, `,"win":`, int64(a.Win), 0)
	dst = appendField(dst, `,"bytes":`, int64(a.Bytes), 0)
	for i := range bad {
		b := a.bad(i)
		if i == 0 {
			dst = append(dst, `,"bad":[`...)
		} else {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"s":`...)
		dst = strconv.AppendUint(dst, b.Seq, 10)
		dst = append(dst, `,"i":`...)
		dst = strconv.AppendInt(dst, int64(b.Row), 10)
		dst = appendField(dst, `,"v":`, int64(b.Value), 0)
		dst = appendField(dst, `,"n":`, int64(b.Count), 1)
		dst = append(dst, `,"code":"`...)
		dst = append(dst, b.Code.String()...)
		dst = append(dst, `"}`...)
	}
	if len(bad) > 0 {
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// bad returns the i-th entry to send. If there are too many, the last one counts all that are left off.
func (a *Ack) bad(i int) Bad {
	b := a.Bad[i]
	if i == MaxBad-1 && len(a.Bad) > MaxBad {
		b.Value, b.Count, b.Code = 0, 0, BadMore
		for _, rest := range a.Bad[i:] {
			b.Count += rest.Count
		}
	}
	return b
}

func appendField(dst []byte, key string, v, leaveOut int64) []byte {
	if v == leaveOut {
		return dst
	}
	return strconv.AppendInt(append(dst, key...), v, 10)
}

// ackBody is an ack in JSON.
type ackBody struct {
	Seq   uint64    `json:"s"`
	Win   uint32    `json:"win"`
	Bytes uint32    `json:"bytes"`
	Bad   []badBody `json:"bad"`
}

type badBody struct {
	Seq   uint64 `json:"s"`
	Row   uint16 `json:"i"`
	Value uint16 `json:"v"`
	Count uint32 `json:"n"`
	Code  string `json:"code"`
}

// DecodeAck decodes and checks an ack.
func DecodeAck(f Format, frame []byte) (Ack, error) {
	a, err := decodeAck(f, frame)
	if err == nil && (a.Seq > MaxSeq || len(a.Bad) > MaxBad) {
		err = protocolError("ack: s is over 2^53-1 or the list is longer than %d", MaxBad)
	}
	if err != nil {
		return Ack{}, err
	}
	return a, nil
}

func decodeAck(f Format, frame []byte) (Ack, error) {
	if f == CBOR {
		return decodeAckCBOR(frame)
	}
	var body ackBody
	if err := decodeControl(f, frame, TypeAck, &body); err != nil {
		return Ack{}, err
	}
	a := Ack{Seq: body.Seq, Win: body.Win, Bytes: body.Bytes}
	for _, b := range body.Bad {
		if b.Code == "" {
			return Ack{}, protocolError("ack: an entry of bad has no code")
		}
		a.Bad = append(a.Bad, Bad{
			Seq: b.Seq, Row: int(b.Row), Value: int(b.Value), Count: max(int(b.Count), 1), Code: badNamed(b.Code),
		})
	}
	return a, nil
}

// decodeAckCBOR reads [7, seq, win, bytes, [[seq, row, value, count, code]…]].
func decodeAckCBOR(b []byte) (Ack, error) {
	if err := checkSize(b); err != nil {
		return Ack{}, err
	}
	items, p := cborArray(b, 0)
	if p < 0 || items < 5 {
		return Ack{}, protocolError("ack is an array of at least 5 items")
	}
	var head [4]uint64
	if p = cborUints(b, p, head[:]); p < 0 || Type(head[0]) != TypeAck || head[0] > math.MaxUint8 ||
		head[2] > math.MaxUint32 || head[3] > math.MaxUint32 {
		return Ack{}, protocolError("not a message of type ack, or a number in it is out of range")
	}
	a := Ack{Seq: head[1], Win: uint32(head[2]), Bytes: uint32(head[3])}
	n, p := cborArray(b, p)
	if p < 0 || n > MaxBad {
		return Ack{}, protocolError("ack: the bad rows are not an array of at most %d", MaxBad)
	}
	for range n {
		var v [5]uint64
		width, next := cborArray(b, p)
		if next < 0 || width < len(v) {
			return Ack{}, protocolError("ack: a bad row is an array of at least 5 numbers")
		}
		if p = cborUints(b, next, v[:]); p < 0 || v[1] > math.MaxUint16 || v[2] > math.MaxUint16 || v[3] > math.MaxUint32 {
			return Ack{}, protocolError("ack: a number of a bad row is out of range")
		}
		code := BadCode(v[4])
		if v[4] == 0 || v[4] >= uint64(len(badNames)) {
			code = BadOther
		}
		a.Bad = append(a.Bad, Bad{Seq: v[0], Row: int(v[1]), Value: int(v[2]), Count: max(int(v[3]), 1), Code: code})
		for range width - len(v) { // of a newer version
			p = cborSkip(b, p, MaxNesting-3)
		}
	}
	for range items - 5 {
		p = cborSkip(b, p, MaxNesting-1)
	}
	if p != len(b) {
		return Ack{}, malformed(CBOR)
	}
	return a, nil
}

func cborUints(b []byte, p int, out []uint64) int {
	for i := range out {
		if out[i], p = cborUint(b, p, math.MaxUint64); p < 0 {
			return -1
		}
	}
	return p
}
