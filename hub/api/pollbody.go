package api

import (
	"bytes"
	"net/http"
	"sync"

	"telemetryhub/hub"
	"telemetryhub/hub/deflate"
)

const (
	// maxEvents is how much of an answer to a poll is gathered before it is sent.
	maxEvents = 64 << 10
	// codingCost is what a coding must save: the header field that names it.
	codingCost = len("Content-Encoding: deflate\r\n")
)

// pollBody makes the answer to a poll of the frames of a viewer, in pieces if there is much.
type pollBody struct {
	viewer *hub.Viewer
	reset  bool // its token was not known any more
	// tagged says that the answer has an entity tag, which is its token, if it is made in one piece. Such an answer has no coding:
	// the tag would not tell one from the other (RFC 9110 section 8.8.1).
	tagged bool
	// coding is what the client accepts, and what the answer has once there is a piece of it.
	coding deflate.Coding

	token  string // what resumes after the answer, once it is whole
	begun  bool   // there is a piece
	packed deflate.Body
}

// newPollBody returns the body for a request with this token, and the entity tag that it names.
func newPollBody(r *http.Request, after, known string) pollBody {
	return pollBody{tagged: tagged(after, known), coding: deflate.Accepted(r.Header["Accept-Encoding"], deflate.Zlib, deflate.Gzip)}
}

// tagged reports whether the answer to a poll has an entity tag: for who begins, and for who names one.
func tagged(after, known string) bool { return after == "" || known != "" }

// tag returns the entity tag of an answer in one piece, if it has one.
func (b *pollBody) tag() string {
	if !b.tagged {
		return ""
	}
	return b.token
}

// named returns the coding that the answer has, "" if it has none.
func (b *pollBody) named() string {
	if !b.begun || b.coding == deflate.Identity {
		return ""
	}
	return b.coding.String()
}

// piece is what pollBody.next has made.
type piece uint8

const (
	// noPiece means that there are no frames: nothing was appended.
	noPiece piece = iota
	// somePiece is followed by another one, which is there already.
	somePiece
	// lastPiece ends the answer.
	lastPiece
	// brokenPiece means that the hub has ended the viewer amid a snapshot. The connection must break, so that nobody takes a part
	// for the whole.
	brokenPiece
)

// next appends a piece of the answer: what is there, a snapshot whole.
func (b *pollBody) next(dst []byte, twins *twins) (out []byte, p piece) {
	at := len(dst)
	switch {
	case b.begun:
		dst = append(dst, ',')
	case b.reset:
		dst = append(dst, `{"reset":true,"frames":[`...)
	default:
		dst = append(dst, `{"frames":[`...)
	}
	dst, p = b.gather(dst)
	switch p {
	case noPiece, brokenPiece:
		return dst[:at], p
	case lastPiece:
		dst = append(append(append(dst, `],"token":"`...), b.token...), `"}`...)
	}
	return b.encode(dst, at, p, twins), p
}

// gather appends frames, with commas between them.
func (b *pollBody) gather(dst []byte) (out []byte, p piece) {
	for begun := len(dst); len(dst)-begun <= maxEvents; {
		size := len(dst)
		if size > begun {
			dst = append(dst, ',')
		}
		next, token, ok := b.viewer.Next(dst)
		switch {
		case ok && !b.begun && size == begun:
			b.viewer.Leave() // more than what is there now is for the next poll
		case !ok && !b.begun && size == begun:
			return dst, noPiece
		case !ok && b.token == "":
			return dst, brokenPiece
		case !ok:
			return dst[:size], lastPiece
		}
		dst, b.token = next, token
	}
	if b.token == "" { // a snapshot goes on
		return dst, somePiece
	}
	return dst, lastPiece
}

// encode gives the piece from the place on the coding.
func (b *pollBody) encode(dst []byte, at int, p piece, twins *twins) []byte {
	whole := !b.begun && p == lastPiece
	if whole && b.tagged {
		b.coding = deflate.Identity
	}
	if !b.begun {
		b.begun, b.packed = true, deflate.NewBody(b.coding)
	}
	if b.coding == deflate.Identity {
		return dst
	}
	text := texts.Get().(*[]byte)
	defer recycle(text)
	*text = append((*text)[:0], dst[at:]...)
	if whole {
		packed, ok := twins.appendWhole(dst[:at], *text, b.coding)
		if !ok {
			b.coding = deflate.Identity
			return append(packed, *text...)
		}
		return packed
	}
	if dst = b.packed.Append(dst[:at], *text); p == lastPiece {
		dst = b.packed.End(dst)
	}
	return dst
}

// texts keeps the memory of texts that are given a coding.
var texts = sync.Pool{New: func() any { return new([]byte) }}

// recycle keeps the memory of a text, unless that is exceptionally large.
func recycle(text *[]byte) {
	if cap(*text) <= 2*maxEvents {
		texts.Put(text)
	}
}

// twins remembers the last answers that were given a coding, or for which that was not worth it: all who follow the same get the
// same at the same time.
type twins struct {
	mu   sync.Mutex
	last [3]struct { // by coding; guarded by mu
		text, packed []byte
		ok           bool
	}
}

// appendWhole is deflate.Coding.AppendWhole.
func (t *twins) appendWhole(dst, text []byte, c deflate.Coding) (out []byte, ok bool) {
	t.mu.Lock()
	if last := &t.last[c]; bytes.Equal(last.text, text) {
		dst, ok = append(dst, last.packed...), last.ok
		t.mu.Unlock()
		return dst, ok
	}
	t.mu.Unlock()
	out, ok = c.AppendWhole(dst, text, codingCost)
	if !ok && len(text) > 2*maxEvents {
		return out, false // it was too long to try, which takes no time, and a frame may have any length
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	last := &t.last[c]
	last.text = append(last.text[:0], text...)
	last.packed = append(last.packed[:0], out[len(dst):]...)
	last.ok = ok
	return out, ok
}
