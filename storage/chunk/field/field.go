// Package field reads the fields of binary values: what chunks, blocks and catalog values of the history are made of.
// Writing needs nothing but the Append functions of encoding/binary.
package field

import "encoding/binary"

// Reader reads fields one after the other. It never panics and never reads beyond the value: the first field that is
// not there makes it bad, and every field after that is zero. The zero value is an empty value.
type Reader struct {
	rest []byte
	bad  bool
}

// NewReader returns a Reader of p, which it does not copy.
func NewReader(p []byte) Reader { return Reader{rest: p} }

// OK reports whether every field so far was there.
func (r *Reader) OK() bool { return !r.bad }

// Done reports whether every field was there and nothing is left.
func (r *Reader) Done() bool { return !r.bad && len(r.rest) == 0 }

// Len returns how many bytes are left.
func (r *Reader) Len() int { return len(r.rest) }

// Rest returns what is left.
func (r *Reader) Rest() []byte { return r.rest }

// Fail makes r bad: a field was there, but its value cannot be.
func (r *Reader) Fail() { r.bad, r.rest = true, nil }

// Uvarint reads an unsigned number as binary.AppendUvarint writes it.
func (r *Reader) Uvarint() uint64 {
	if len(r.rest) > 0 && r.rest[0] < 0x80 {
		u := uint64(r.rest[0])
		r.rest = r.rest[1:]
		return u
	}
	u, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.Fail()
		return 0
	}
	r.rest = r.rest[n:]
	return u
}

// Varint reads a signed number as binary.AppendVarint writes it.
func (r *Reader) Varint() int64 { return Unzigzag(r.Uvarint()) }

// Uint32 reads an unsigned number of at most 32 bits.
func (r *Reader) Uint32() uint32 { return uint32(r.Max(1<<32 - 1)) }

// Max reads an unsigned number that must not be greater than limit.
func (r *Reader) Max(limit uint64) uint64 {
	u := r.Uvarint()
	if u > limit {
		r.Fail()
		return 0
	}
	return u
}

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.rest) == 0 {
		r.Fail()
		return 0
	}
	b := r.rest[0]
	r.rest = r.rest[1:]
	return b
}

// Bytes reads n bytes, which are not copied. It returns nil if there are fewer.
func (r *Reader) Bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.Fail()
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

// Section reads a length and that many bytes, which are not copied.
func (r *Reader) Section() []byte { return r.Bytes(r.Uvarint()) }

// AppendSection appends p and its length before it.
func AppendSection(dst, p []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(p)))
	return append(dst, p...)
}

// Zigzag maps numbers near zero to small unsigned numbers.
func Zigzag(i int64) uint64 { return uint64(i<<1) ^ uint64(i>>63) }

// Unzigzag is the inverse of [Zigzag].
func Unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
