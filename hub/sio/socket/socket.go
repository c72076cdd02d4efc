package socket

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/sio/eio"
)

// maxAcks is the most acks that may be due from a socket.
const maxAcks = 64

var (
	// ErrGone means that the socket has ended, or that its client is too slow.
	ErrGone = errors.New("the client is gone")
	// ErrNoAck means that the client did not answer in time.
	ErrNoAck = errors.New("the client did not answer in time")
	// ErrTooManyAcks means that too many answers are due already.
	ErrTooManyAcks = errors.New("too many answers are due")
)

// Socket is a client in a namespace. Its methods are safe for concurrent use, also after it has ended.
type Socket struct {
	// State is the handler's own. It is set in Connect at the latest.
	State any

	space   *Namespace
	client  *client
	session *eio.Session  // of the client
	sent    atomic.Uint64 // number of the last emit that was sent

	// Set while Connect runs, then never changed.
	id        string
	pid       string
	owner     string
	presented presented

	memory // guarded by Namespace.mu

	acks    map[uint64]*waiting // guarded by client.mu
	lastAck uint64              // guarded by client.mu
}

// presented is what a client says when it comes back.
type presented struct {
	pid  string
	mark string
	n    uint64
	good bool // there is an offset, and it could be read
}

// waiting is an ack that is due.
type waiting struct {
	done  func(Message, error)
	timer *time.Timer
}

// ID returns the public id of the socket, by which others may know it.
func (s *Socket) ID() string { return s.id }

// Opener returns who opened the session below, nobody if its request did not say.
func (s *Socket) Opener() access.Identity { return s.client.session.Opener() }

// Remote returns the address that the client came from, for logs.
func (s *Socket) Remote() string { return s.client.session.Remote() }

// Transport returns "polling" or "websocket".
func (s *Socket) Transport() string { return s.client.session.Transport() }

// Deflates reports whether the packets of the source may be sent compressed. Once they may, that does not change.
func (s *Socket) Deflates() bool { return s.session.Deflates() }

// Wake has the source of the socket asked.
func (s *Socket) Wake() { s.session.Wake() }

// Close breaks the connection, so that the client comes back by itself.
func (s *Socket) Close(code uint16, reason string) { s.client.session.Close(code, reason) }

// End tells the client that it is no longer connected, and closes the connection. The client does not come back by itself, and
// nothing is remembered of it.
func (s *Socket) End(code uint16, reason string) {
	s.space.unremember(s)
	s.client.enqueue(outgoing{body: appendHead(nil, typeDisconnect, 0, s.space.name)})
	s.client.session.Close(code, reason)
}

// Emit sends an event that is not remembered: one that is missed is missed. Its last argument must not be a string where the
// namespace recovers. It reports false if the client is too slow.
func (s *Socket) Emit(event string, m Message) bool {
	s.client.srv.options.Metrics.EventsOut.Add(1)
	body := append(appendEvent(nil, s.space.name, 0, event, m), ']')
	return s.client.enqueue(outgoing{body: body, attachments: m.Attachments})
}

// Ask sends an event like Emit and calls done with the client's answer, or with ErrNoAck after the time, or ErrGone.
// done must not block. It is not called if Ask returns an error.
func (s *Socket) Ask(event string, m Message, within time.Duration, done func(Message, error)) error {
	c := s.client
	w := &waiting{done: done}
	c.mu.Lock()
	if c.sockets[s.space.name] != s {
		c.mu.Unlock()
		return ErrGone
	}
	if len(s.acks) >= maxAcks {
		c.mu.Unlock()
		return ErrTooManyAcks
	}
	s.lastAck++
	id := s.lastAck
	if s.acks == nil {
		s.acks = map[uint64]*waiting{}
	}
	s.acks[id] = w
	w.timer = time.AfterFunc(within, func() { s.answer(id, Message{}, ErrNoAck) })
	c.mu.Unlock()
	c.srv.options.Metrics.EventsOut.Add(1)
	body := append(appendEvent(nil, s.space.name, id, event, m), ']')
	c.enqueue(outgoing{body: body, attachments: m.Attachments})
	return nil
}

func (s *Socket) acked(id uint64, m Message) { s.answer(id, m, nil) }

// answer ends the wait for an ack. One that nobody waits for is ignored.
func (s *Socket) answer(id uint64, m Message, err error) {
	s.client.mu.Lock()
	w := s.acks[id]
	delete(s.acks, id)
	s.client.mu.Unlock()
	if w != nil {
		w.timer.Stop()
		w.done(m, err)
	}
}

// failAcks ends all waits, as the socket has ended.
func (s *Socket) failAcks() {
	s.client.mu.Lock()
	due := s.acks
	s.acks = nil
	s.client.mu.Unlock()
	for _, w := range due {
		w.timer.Stop()
		w.done(Message{}, ErrGone)
	}
}

// Presented returns the mark that the client had when its connection broke, "" if it names none.
func (s *Socket) Presented() string { return s.presented.mark }

// AppendOffset appends the offset of a packet of the source, behind which clients have got as much of it as mark says, as one
// more argument. Only Handler.Next calls it.
func (s *Socket) AppendOffset(dst, mark []byte) []byte {
	dst = append(append(dst, ',', '"'), mark...)
	return s.EndOffset(dst)
}

// EndOffset appends what AppendOffset does behind the mark.
func (s *Socket) EndOffset(dst []byte) []byte {
	dst = append(dst, '~')
	dst = strconv.AppendUint(dst, s.sent.Load(), 36)
	return append(dst, '"')
}

// ReadOffset returns the mark in an offset. What has no "~" is all mark.
func ReadOffset(offset string) (mark string) {
	mark, _, _ = strings.Cut(offset, "~")
	return mark
}

// readPresented reads what a client that comes back has put into its payload.
func readPresented(auth json.RawMessage) (p presented) {
	var back struct {
		PID    string `json:"pid"`
		Offset string `json:"offset"`
	}
	if json.Unmarshal(auth, &back) != nil { // members of another kind are the application's
		return p
	}
	mark, number, found := strings.Cut(back.Offset, "~")
	n, err := strconv.ParseUint(number, 36, 63)
	if found && err == nil {
		p = presented{back.PID, mark, n, true}
	} else {
		p = presented{pid: back.PID, mark: back.Offset}
	}
	return p
}

// Event is an event from a client.
type Event struct {
	Name string
	Message

	socket   *Socket
	id       uint64
	answered atomic.Bool
}

// Wanted reports whether the client waits for an ack that it was not sent yet.
func (e *Event) Wanted() bool { return !e.answered.Load() }

// Ack answers the client if it waits for an answer. Only the first call counts.
func (e *Event) Ack(m Message) {
	if e.answered.Swap(true) {
		return
	}
	s := e.socket
	s.client.enqueue(outgoing{body: appendAck(nil, s.space.name, e.id, m), attachments: m.Attachments})
}
