package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// streamBuffer is how much of an answer is gathered before it is sent. While nothing has been sent, an error can still
// become a problem document.
const streamBuffer = 32 << 10

// stream writes an answer of any length with bounded memory. The answer begins with the first full buffer or with end,
// whichever comes first. Every write has a deadline, of three quarters of the timeout at least; the
// first failure ends the stream.
type stream struct {
	ctx         context.Context
	w           http.ResponseWriter
	ctl         *http.ResponseController
	timeout     time.Duration
	contentType string
	filename    string

	buf     []byte
	writeBy time.Time // the write deadline
	begun   bool
	err     error
}

func newStream(ctx context.Context, w http.ResponseWriter, timeout time.Duration) *stream {
	return &stream{ctx: ctx, w: w, ctl: http.NewResponseController(w), timeout: timeout,
		buf: make([]byte, 0, streamBuffer+streamBuffer/4)}
}

// full sends the buffer if it is full, and reports whether the stream goes on.
func (s *stream) full() bool {
	if len(s.buf) >= streamBuffer {
		s.send()
	}
	return s.err == nil
}

func (s *stream) send() {
	if s.err = s.ctx.Err(); s.err != nil {
		return
	}
	if !s.begun {
		s.begin()
	}
	if now := time.Now(); s.writeBy.Sub(now) < s.timeout/4*3 { // to set one costs as much as copying kilobytes
		s.writeBy = now.Add(s.timeout)
		_ = s.ctl.SetWriteDeadline(s.writeBy) // connections without deadlines, as in tests, need none
	}
	_, s.err = s.w.Write(s.buf)
	s.buf = s.buf[:0]
}

// flush sends what there is, now.
func (s *stream) flush() {
	if s.send(); s.err == nil {
		s.err = s.ctl.Flush()
	}
}

func (s *stream) begin() {
	s.begun = true
	h := s.w.Header()
	h.Set("Content-Type", s.contentType)
	if s.filename != "" {
		h.Set("Content-Disposition", `attachment; filename="`+s.filename+`"`)
	}
	s.w.WriteHeader(http.StatusOK)
}

// end sends what is left.
func (s *stream) end() {
	if s.err != nil {
		return
	}
	if !s.begun {
		s.w.Header().Set("Content-Length", strconv.Itoa(len(s.buf)))
	}
	s.send()
}

// fail ends the stream with an error: with a problem document if nothing has been sent, else by breaking the connection, so
// that nobody takes what has arrived for the whole. It does not return in the latter case.
func (s *stream) fail(f *fault) {
	if !s.begun {
		writeProblem(s.w, f)
		return
	}
	if s.err == nil {
		s.flush() // what net/http still holds would be lost with the connection
	}
	panic(http.ErrAbortHandler)
}
