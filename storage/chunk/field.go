package chunk

import "encoding/binary"

// Fields reads the fields of a binary value one after the other: of a chunk, and of everything else that the history is
// made of. It never panics and never reads beyond the value: the first field that is not there makes it bad, and every
// field after that is zero. The zero value is an empty value. Writing needs nothing but the Append functions of
// encoding/binary.
type Fields struct {
	rest []byte
	bad  bool
}

// NewFields returns the fields of p, which it does not copy.
func NewFields(p []byte) Fields { return Fields{rest: p} }

// OK reports whether every field so far was there.
func (f *Fields) OK() bool { return !f.bad }

// Done reports whether every field was there and nothing is left.
func (f *Fields) Done() bool { return !f.bad && len(f.rest) == 0 }

// Len returns how many bytes are left.
func (f *Fields) Len() int { return len(f.rest) }

// Rest returns what is left.
func (f *Fields) Rest() []byte { return f.rest }

// Fail makes r bad: a field was there, but its value cannot be.
func (f *Fields) Fail() { f.bad, f.rest = true, nil }

// Uvarint reads an unsigned number as binary.AppendUvarint writes it.
func (f *Fields) Uvarint() uint64 {
	if len(f.rest) > 0 && f.rest[0] < 0x80 {
		u := uint64(f.rest[0])
		f.rest = f.rest[1:]
		return u
	}
	u, n := binary.Uvarint(f.rest)
	if n <= 0 {
		f.Fail()
		return 0
	}
	f.rest = f.rest[n:]
	return u
}

// Varint reads a signed number as binary.AppendVarint writes it.
func (f *Fields) Varint() int64 { return unzigzag(f.Uvarint()) }

// Uint32 reads an unsigned number of at most 32 bits.
func (f *Fields) Uint32() uint32 { return uint32(f.Max(1<<32 - 1)) }

// Max reads an unsigned number that must not be greater than limit.
func (f *Fields) Max(limit uint64) uint64 {
	u := f.Uvarint()
	if u > limit {
		f.Fail()
		return 0
	}
	return u
}

// Byte reads one byte.
func (f *Fields) Byte() byte {
	if len(f.rest) == 0 {
		f.Fail()
		return 0
	}
	b := f.rest[0]
	f.rest = f.rest[1:]
	return b
}

// Bytes reads n bytes, which are not copied. It returns nil if there are fewer.
func (f *Fields) Bytes(n uint64) []byte {
	if n > uint64(len(f.rest)) {
		f.Fail()
		return nil
	}
	b := f.rest[:n:n]
	f.rest = f.rest[n:]
	return b
}

// Section reads a length and that many bytes, which are not copied.
func (f *Fields) Section() []byte { return f.Bytes(f.Uvarint()) }

// zigzag maps numbers near zero to small unsigned numbers.
func zigzag(i int64) uint64 { return uint64(i<<1) ^ uint64(i>>63) }

// unzigzag is the inverse of [zigzag].
func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }
