package eio

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/frames"
)

const (
	// pollBytes is about the most that one polling answer holds.
	pollBytes = 256 << 10
	// noopAfter is how long a poll waits while a WebSocket is being tried, before it is sent home so that the client can
	// finish the upgrade. If the upgrade is done before, the poll came too late.
	noopAfter = 100 * time.Millisecond
)

// serveOpen opens a session over polling.
func (s *Server) serveOpen(w http.ResponseWriter, r *http.Request, id access.Identity) {
	one, refused := s.begin(r, id)
	if refused != nil {
		s.refuse(w, r, refused)
		return
	}
	defer one.release()
	if !s.reply(w, one.appendOpen(nil, []string{transportWebSocket})) {
		one.shut(causeTransport, frames.CloseNormal, "the client left")
	}
}

// reply answers a polling request. It reports false if that failed.
func (s *Server) reply(w http.ResponseWriter, body []byte) bool {
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=UTF-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	// A server that cannot set deadlines has its own.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.WriteTimeout))
	n, err := w.Write(body)
	s.Metrics.BytesOut.Add(uint64(n))
	return err == nil
}

// startPoll makes a GET the one that waits. A client that has its answer polls again at once, which may be before the poll that
// was answered is over here: then the new one waits for that.
func (s *Session) startPoll() (*poll, *answer) {
	for {
		s.mu.Lock()
		before := s.poll
		switch {
		case s.ws.Load() != nil:
			s.mu.Unlock()
			return nil, refuse(refusedRequest, "This session goes on over WebSocket.")
		case before == nil:
			p := &poll{wake: make(chan struct{}, 1)}
			s.poll = p
			s.mu.Unlock()
			return p, nil
		case !before.answering || before.next != nil:
			s.mu.Unlock()
			return nil, refuse(refusedRequest, "Two requests of one session waited at once. Open a new session.")
		}
		over := make(chan struct{})
		before.next = over
		s.mu.Unlock()
		<-over // the time for writing bounds it
	}
}

func (s *Session) endPoll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.poll.next != nil {
		close(s.poll.next)
	}
	s.poll = nil
}

// answerPoll answers the poll that waits. It reports false if that failed.
func (s *Session) answerPoll(w http.ResponseWriter, body []byte) bool {
	s.mu.Lock()
	s.poll.answering = true
	s.mu.Unlock()
	return s.srv.reply(w, body)
}

// serveGet waits for something to send, and sends it.
func (s *Session) serveGet(w http.ResponseWriter, r *http.Request) {
	p, refused := s.startPoll()
	if refused != nil {
		if s.ws.Load() == nil {
			s.shut(causeOverlap, frames.ClosePolicy, "two GET at a time")
		}
		s.srv.refuse(w, r, refused)
		return
	}
	defer s.endPoll()
	var noop <-chan time.Time
	for first := true; ; first = false {
		closing := s.closing.Load()
		body := s.fillPayload(nil)
		switch {
		case closing:
			s.lastPoll(w, body)
			return
		case s.ws.Load() != nil:
			s.srv.refuse(w, r, refuse(refusedRequest, "This session goes on over WebSocket."))
			return
		case len(body) > 0:
			s.sent(w, body)
			return
		}
		if noop == nil && s.probing() {
			if !first {
				s.sent(w, []byte{typeNoop}) // it waited before the WebSocket came
				return
			}
			noop = time.After(noopAfter)
		}
		select {
		case <-p.wake:
		case <-s.gone:
		case <-noop:
			s.sent(w, []byte{typeNoop})
			return
		case <-r.Context().Done():
			s.shut(causeTransport, frames.CloseNormal, "a poll was broken off")
			return
		}
	}
}

// sent answers a poll; what could not be sent is lost, and with it the session.
func (s *Session) sent(w http.ResponseWriter, body []byte) {
	if !s.answerPoll(w, body) {
		s.shut(causeTransport, frames.CloseNormal, "a poll was broken off")
	}
}

// lastPoll answers a poll of a session that is closing. Messages come without the close packet, which waits for the next poll:
// stock clients handle what came before a close packet after it, and would count it as missed.
func (s *Session) lastPoll(w http.ResponseWriter, body []byte) {
	switch {
	case s.closedByClient():
		body = []byte{typeNoop}
	case len(body) == 0:
		body = []byte{typeClose}
	case s.stay():
		_ = s.answerPoll(w, body) // the session is over in any case
		return
	}
	_ = s.answerPoll(w, body)
	s.hang()
}

func (s *Session) probing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.probed && s.probe != nil
}

// fillPayload appends what is to be sent, as a polling payload.
func (s *Session) fillPayload(dst []byte) (payload []byte) {
	s.pull.Lock()
	defer s.pull.Unlock()
	payload = dst
	if s.over || s.ws.Load() != nil {
		return payload
	}
	defer s.recovered()
	if s.takePing() {
		payload = append(payload, typePing)
	}
	for len(payload) < pollBytes {
		start := len(payload)
		if start > 0 {
			payload = append(payload, separator)
		}
		msg, form, ok := s.stream.Next(append(payload, TypeMessage))
		if !ok {
			return payload[:start]
		}
		s.srv.Metrics.MessagesOut.Add(1)
		if form == frames.Text {
			payload = msg
			continue
		}
		body := len(payload)
		s.temp = append(s.temp[:0], msg[body+1:]...)
		msg[body] = binaryMark
		payload = base64.StdEncoding.AppendEncode(msg[:body+1], s.temp)
		if cap(s.temp) > 4<<10 {
			s.temp = nil
		}
	}
	return payload
}

// startPost makes a POST the one at work.
func (s *Session) startPost() *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ws.Load() != nil:
		return refuse(refusedRequest, "This session goes on over WebSocket.")
	case s.posting:
		return refuse(refusedRequest, "Two requests of one session sent at once. Open a new session.")
	case s.closing.Load():
		return refuse(refusedSID, "This session is over. Open a new one.")
	}
	s.posting = true
	return nil
}

func (s *Session) endPost() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.posting = false
}

// servePost takes a polling payload.
func (s *Session) servePost(w http.ResponseWriter, r *http.Request) {
	if refused := s.startPost(); refused != nil {
		if s.ws.Load() == nil {
			s.shut(causeOverlap, frames.ClosePolicy, "two POST at a time")
		}
		s.srv.refuse(w, r, refused)
		return
	}
	defer s.endPost()
	body, err := s.readBody(w, r)
	if err != nil {
		refused := refuse(refusedRequest, "The body could not be read.")
		why := causeTransport
		if _, tooBig := errors.AsType[*http.MaxBytesError](err); tooBig {
			refused = refuse(refusedTooBig, "A request holds at most "+strconv.Itoa(s.limit())+" bytes now.")
			why = causeTooBig
		}
		refused.cause = err
		s.shut(why, frames.CloseTooBig, "the body of a request could not be taken")
		s.srv.refuse(w, r, refused)
		return
	}
	s.srv.Metrics.BytesIn.Add(uint64(len(body)))
	if !s.takePayload(body) {
		s.srv.refuse(w, r, refuse(refusedRequest, "The session ended with this request: what it holds breaks the protocol, or closes it."))
		return
	}
	if s.admitted.Load() {
		s.srv.Admit(r)
	}
	s.srv.reply(w, []byte("ok"))
}

// takePayload takes the packets of a payload. It reports false if the client broke the protocol; to close is its right.
func (s *Session) takePayload(body []byte) bool {
	for rest := body; ; {
		p, more, err := nextPacket(rest)
		if err != nil {
			s.broke("not an Engine.IO payload")
			return false
		}
		if !s.take(p) {
			return s.closedByClient()
		}
		if more == nil {
			return true
		}
		rest = more
	}
}

// readBody reads the body of a POST, within bytes and time.
func (s *Session) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	limit := int64(s.limit())
	if r.ContentLength > limit {
		return nil, &http.MaxBytesError{Limit: limit}
	}
	control, patience := http.NewResponseController(w), s.srv.WriteTimeout
	if !s.admitted.Load() {
		patience = min(patience, s.srv.StrangerTimeout)
	}
	// A server that cannot set deadlines has its own.
	_ = control.SetReadDeadline(time.Now().Add(patience))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		_ = control.SetReadDeadline(time.Time{})
	}
	return body, err // after an error net/http looks for the rest of the body, but not for ever
}
