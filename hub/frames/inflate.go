package frames

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
	"github.com/lxzan/gws"
)

// rsv1 marks the first frame of a message that is deflated, RFC 7692 section 6.
const rsv1 = 0x40

// inflating is what a connection remembers with which the extension was agreed on. gws is not told of it: it would make a
// writer of 0.7 MB for every few connections, answer a message that is too large with 1011, and let marks pass where they are
// forbidden. Instead the guard takes the mark away and has gws take the message for binary data, which it does not look at; a
// mark that it leaves is an error to gws. As the guard is ahead of gws by what that has in its buffer, messages are counted.
type inflating struct {
	answer      string // header field
	begun, done uint32 // messages that the guard has seen the beginning of, and that gws has handed on
	marks       []mark // of messages in between
}

// mark says that the message with this number is deflated.
type mark struct {
	message uint32
	text    bool
}

// begin takes the first byte of a frame, and returns what gws is to see.
func (d *inflating) begin(b byte) byte {
	op := gws.Opcode(b & 0x0f)
	if op != gws.OpcodeText && op != gws.OpcodeBinary {
		return b
	}
	d.begun++
	if b&0x70 != rsv1 {
		return b
	}
	d.marks = append(d.marks, mark{d.begun, op == gws.OpcodeText})
	return b&fin | byte(gws.OpcodeBinary)
}

// next counts a message of gws, and returns its mark if it has one.
func (d *inflating) next() (mark, bool) {
	d.done++
	if len(d.marks) == 0 || d.marks[0].message != d.done {
		return mark{}, false
	}
	m := d.marks[0]
	if d.marks = d.marks[1:]; len(d.marks) == 0 {
		d.marks = nil
	}
	return m, true
}

// inflate returns the message that was deflated to what is in data, if that is not over the limit.
func inflate(data *bytes.Buffer, text bool, limit uint64) (message []byte, v violation, panicked any) {
	// That needs a large stack, and the one that we are on stays with the connection.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f := inflaters.Get().(*inflater)
		message, v = f.inflate(data, limit)
		inflaters.Put(f)
	}()
	<-done
	if text && !utf8.Valid(message) {
		v = violation{CloseUTF8, ""}
	}
	return message, v, panicked
}

// inflater is memory that is used again: a window of 32 KiB, and tables.
type inflater struct {
	in  bytes.Reader
	out io.ReadCloser
}

var inflaters = sync.Pool{New: func() any {
	f := new(inflater)
	f.out = flate.NewReader(&f.in)
	return f
}}

// lastBlock is an empty block that is the last one.
const lastBlock = "\x01\x00\x00\xff\xff"

var errMore = errors.New("something follows the last block")

// inflate does so twice, the first time only to see how much it is: what is over the limit costs no memory.
func (f *inflater) inflate(data *bytes.Buffer, limit uint64) ([]byte, violation) {
	data.WriteString(Tail + lastBlock)
	limit = min(limit, 1<<62)
	broken := violation{CloseUTF8, "a message that cannot be inflated"} // 1007: what came is not what it claims to be
	f.reset(data)
	n, err := io.CopyN(io.Discard, f.out, int64(limit)+1)
	switch {
	case err == nil:
		return nil, violation{CloseTooBig, "a message over the limit"}
	case !errors.Is(err, io.EOF), f.in.Len() > len("\x00"+Tail+lastBlock): // a peer may end it by a last block and a byte, section 7.2.3.4
		return nil, broken
	}
	message := make([]byte, n)
	f.reset(data)
	if _, err := io.ReadFull(f.out, message); err != nil {
		return nil, broken
	}
	f.in.Reset(nil)
	return message, violation{}
}

// reset begins with the data. It cannot fail.
func (f *inflater) reset(data *bytes.Buffer) {
	f.in.Reset(data.Bytes())
	_ = f.out.(flate.Resetter).Reset(&f.in, nil)
}
