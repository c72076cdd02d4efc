package api

import (
	"context"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"
)

// Fill appends an answer once there is one.
func (c *pollConn) Fill(dst []byte) (out []byte, more bool) {
	phase := c.phase.Load()
	if phase != pollAsked && phase != pollAmid {
		return dst, false
	}
	defer func() {
		if v := recover(); v != nil {
			c.api.log.Error("poll panicked", "panic", v, "stack", string(debug.Stack()))
			c.breakOff()
		}
	}()
	if phase == pollAmid {
		return c.goOn(dst)
	}
	return c.answer(dst)
}

// Last appends nothing: an answer says by itself where it ends.
func (c *pollConn) Last(dst []byte) []byte { return dst }

// answer appends the answer to the poll, or its beginning, if there is one.
func (c *pollConn) answer(dst []byte) (out []byte, more bool) {
	p := &c.poll
	if p.body.viewer == nil {
		dst = append(dst, p.text...)
		c.answered(0)
		return dst, false
	}
	at := len(dst)
	p.turn.woken.Store(false)
	switch dst, piece := p.body.next(dst, &c.api.twins); piece {
	case noPiece:
		return c.answerNothing(dst)
	case somePiece:
		dst = c.insertHead(dst, at, http.StatusOK, "", chunked)
		c.phase.Store(pollAmid)
		return dst, true
	case lastPiece:
		dst = c.insertHead(dst, at, http.StatusOK, p.body.tag(), len(dst)-at)
		c.answered(http.StatusOK)
		return dst, false
	}
	return c.breakOff(), false
}

// answerNothing answers a poll for which nothing has come, if its time is over.
func (c *pollConn) answerNothing(dst []byte) (out []byte, more bool) {
	p, at := &c.poll, len(dst)
	bye := p.turn.bye.Load()
	switch {
	case bye != nil:
		f := c.api.outward(context.Background(), bye.fault())
		dst = c.appendProblem(dst, f)
		c.answered(f.status)
	case !c.over.Load() && !c.isDue() || p.turn.woken.Load(): // the viewer may not have looked at everything yet
	case p.known:
		dst = c.insertHead(dst, at, http.StatusNotModified, p.after, 0)
		c.answered(http.StatusNotModified)
	default:
		dst = append(append(append(dst, `{"frames":[],"token":"`...), p.after...), `"}`...)
		tag := ""
		if p.body.tagged {
			tag = p.after
		}
		dst = c.insertHead(dst, at, http.StatusOK, tag, len(dst)-at)
		c.answered(http.StatusOK)
	}
	return dst, false
}

// goOn appends the next piece of a long answer.
func (c *pollConn) goOn(dst []byte) (out []byte, more bool) {
	at := len(dst)
	dst, piece := c.poll.body.next(dst, &c.api.twins)
	switch piece {
	case somePiece:
		return insertSize(dst, at), true
	case lastPiece:
		dst = append(insertSize(dst, at), "0\r\n\r\n"...)
		c.answered(http.StatusOK)
		return dst, false
	}
	return c.breakOff(), false
}

// breakOff cuts the connection, so that nobody takes a part for the whole. What is not sent yet is dropped.
func (c *pollConn) breakOff() []byte {
	c.phase.Store(pollGiven)
	c.Kill()
	return nil
}

// answered ends the poll. A status says that it has yet to be counted.
func (c *pollConn) answered(status int) {
	p := &c.poll
	if p.body.viewer != nil {
		p.body.viewer.End()
		p.unwatch()
		c.api.figures.get(p.route, status)
		if p.logged.IsValid() { // as in API.finish
			c.api.log.Debug("request", "method", http.MethodGet, "route", p.route.pattern, "status", status,
				"ms", (c.Now() - p.began).Milliseconds(), "remote", p.logged)
		}
	}
	c.poll = pollTask{head: p.head[:0], text: p.text[:0]}
	c.expire(c.api.pollIdle)
	c.phase.Store(pollNone)
	switch {
	case c.draining.Load():
		c.End()
		c.Hurry()
	case c.pending.Load():
		c.rouse()
	}
}

// chunked is in place of a length.
const chunked = -1

// insertHead puts the head of an answer before its body, which begins at the place. That of an answer in chunks is the first
// chunk. No tag means that the answer has no entity tag.
func (c *pollConn) insertHead(dst []byte, at, status int, tag string, length int) []byte {
	if length == chunked {
		dst = insertSize(dst, at)
	}
	head := c.appendHead(c.poll.text[:0], status, length)
	if tag != "" {
		head = append(append(append(head, "Etag: \""...), tag...), "\"\r\n"...)
	}
	if status != http.StatusNotModified {
		head = append(head, "Content-Type: application/json\r\n"...)
	}
	if coding := c.poll.body.named(); coding != "" {
		head = append(append(append(head, "Content-Encoding: "...), coding...), "\r\n"...)
	}
	c.poll.text = append(head, "\r\n"...)
	return slices.Insert(dst, at, c.poll.text...)
}

// appendHead appends the status line and the fields that every answer has.
func (c *pollConn) appendHead(dst []byte, status, length int) []byte {
	dst = append(strconv.AppendInt(append(dst, "HTTP/1.1 "...), int64(status), 10), ' ')
	dst = append(append(dst, http.StatusText(status)...), "\r\n"...)
	dst = append(dst, c.poll.head...)
	dst = append(time.Now().UTC().AppendFormat(append(dst, "Date: "...), http.TimeFormat), "\r\n"...)
	if c.draining.Load() {
		dst = append(dst, "Connection: close\r\n"...)
	}
	switch {
	case length == chunked:
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	case status != http.StatusNotModified:
		dst = append(strconv.AppendInt(append(dst, "Content-Length: "...), int64(length), 10), "\r\n"...)
	}
	return dst
}

// appendProblem appends an answer that is a problem document.
func (c *pollConn) appendProblem(dst []byte, f *fault) []byte {
	w := pollWriter{conn: c, header: http.Header{}}
	writeProblem(&w, f)
	return w.appendTo(dst)
}

// appendHeader appends header fields.
func appendHeader(dst []byte, h http.Header) []byte {
	names := make([]string, 0, 16)
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, value := range h[name] {
			dst = append(append(append(append(dst, name...), ": "...), value...), "\r\n"...)
		}
	}
	return dst
}

// pollWriter is the http.ResponseWriter of what is answered at once.
type pollWriter struct {
	conn   *pollConn
	header http.Header
	status int
	body   []byte
}

func (w *pollWriter) Header() http.Header { return w.header }

func (w *pollWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *pollWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, p...)
	return len(p), nil
}

// SetReadDeadline and SetWriteDeadline let a.deadlines know that the crew sees to them.
func (w *pollWriter) SetReadDeadline(time.Time) error  { return nil }
func (w *pollWriter) SetWriteDeadline(time.Time) error { return nil }

// appendTo appends the answer.
func (w *pollWriter) appendTo(dst []byte) []byte {
	w.WriteHeader(http.StatusOK)
	delete(w.header, "Content-Length") // appendHead has it
	dst = w.conn.appendHead(dst, w.status, len(w.body))
	dst = append(appendHeader(dst, w.header), "\r\n"...)
	return append(dst, w.body...)
}
