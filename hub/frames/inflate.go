package frames

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"unicode/utf8"

	"github.com/klauspost/compress/flate"
	"github.com/lxzan/gws"

	"telemetryhub/hub/deflate"
)

// rsv1 marks the first frame of a message that is deflated, RFC 7692 section 6.
const rsv1 = 0x40

// inflating is what a connection remembers with which the extension was agreed on. gws is not told of it: it would make a
// writer of 0.7 MB for every few connections, answer a message that is too large with 1011, and let marks pass where they are
// forbidden. Instead the guard takes the mark away and has gws take the message for binary data, which it does not look at; a
// mark that it leaves is an error to gws. The guard is ahead of gws by what that has in its buffer, so messages are counted.
type inflating struct {
	answer         string // header field
	begun, done    uint32 // messages that the guard has seen the beginning of, and that gws has handed on
	deflated, text uint64 // of messages in between, by number: slices would be made where the stack is deep
}

// maxBuffer is the largest buffer of a connection with the extension. 64 messages, of 6 bytes at least, do not fit in.
const maxBuffer = 256

// begin takes the first byte of a frame, and returns what gws is to see.
func (d *inflating) begin(b byte) byte {
	op := gws.Opcode(b & 0x0f)
	if op != gws.OpcodeText && op != gws.OpcodeBinary {
		return b
	}
	d.begun++
	bit := uint64(1) << (d.begun % 64)
	if d.deflated &^= bit; b&0x70 != rsv1 {
		return b
	}
	d.deflated |= bit
	if d.text &^= bit; op == gws.OpcodeText {
		d.text |= bit
	}
	return b&fin | byte(gws.OpcodeBinary)
}

// next counts a message of gws, and reports whether it is deflated, and then whether it is text.
func (d *inflating) next() (deflated, text bool) {
	if d == nil {
		return false, false
	}
	d.done++
	bit := uint64(1) << (d.done % 64)
	return d.deflated&bit != 0, d.text&bit != 0
}

// receiveDeflated inflates a message and hands it to the owner. That needs a large stack, and the one that we are on stays with
// the connection.
func (c *Conn) receiveDeflated(m *gws.Message, text bool) {
	done := make(chan any)
	go func() {
		defer func() { done <- recover() }()
		c.inflate(m, text)
	}()
	if panicked := <-done; panicked != nil {
		panic(panicked)
	}
}

func (c *Conn) inflate(m *gws.Message, text bool) {
	f := inflaters.Get().(*inflater)
	data, v := f.inflate(m.Data, min(c.owner.Came(0)))
	inflaters.Put(f)
	if text && !utf8.Valid(data) {
		v = violation{CloseUTF8, ""}
	}
	if v.code != 0 {
		c.halted = true
		c.owner.Broke(v.code, v.reason)
		return
	}
	c.owner.Receive(text, data)
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

// inflate does so twice, the first time only to see how much it is: what is over the limit costs no memory.
func (f *inflater) inflate(data *bytes.Buffer, limit uint64) ([]byte, violation) {
	data.WriteString(deflate.Tail + lastBlock)
	defer f.in.Reset(nil)
	limit = min(limit, 1<<62)
	broken := violation{CloseUTF8, "a message that cannot be inflated"} // 1007: what came is not what it claims to be
	f.reset(data)
	n, err := io.CopyN(io.Discard, f.out, int64(limit)+1)
	switch {
	case err == nil:
		return nil, violation{CloseTooBig, "a message over the limit"}
	case !errors.Is(err, io.EOF), f.in.Len() > len("\x00"+deflate.Tail+lastBlock): // a peer may end it by a last block and a byte, section 7.2.3.4
		return nil, broken
	}
	message := make([]byte, n)
	f.reset(data)
	if _, err := io.ReadFull(f.out, message); err != nil {
		return nil, broken
	}
	return message, violation{}
}

// reset begins with the data. It cannot fail.
func (f *inflater) reset(data *bytes.Buffer) {
	f.in.Reset(data.Bytes())
	_ = f.out.(flate.Resetter).Reset(&f.in, nil)
}
