package api

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
)

const (
	// pollIdle is how long a client may leave a connection between two polls.
	pollIdle = 2 * time.Minute
	// maxPollHead is the longest head of a request that is waited for. A longer one is left to net/http.
	maxPollHead = 4 << 10
	// maxPollHeld is how much is read of what a client sends without waiting for an answer.
	maxPollHeld = 16 << 10
)

// Who has the poll of a pollConn. Only the one who has it changes it.
const (
	pollNone  = iota // there is none: the reader makes the next one
	pollAsked        // the writer answers as soon as there is something
	pollAmid         // the writer is amid an answer in chunks
	pollGiven        // the connection is back at net/http, or has ended
)

// pollConn is a connection over which one poll follows another, taken from net/http with the first: a poll that waits is a
// goroutine that reads and a timer, and not a handler with its buffers, and its answer is written by the crew. What comes over it
// passes through [API.serve] all the same. Anything that is no plain poll goes back to net/http, with the connection, which reads
// it as if nothing had been before.
type pollConn struct {
	crew.Outlet
	api      *API
	giveBack func(early []byte)
	remote   string

	phase    atomic.Uint32
	over     atomic.Bool  // the poll does not wait, or no longer; only the reader says so, and else it is over when it is due
	pending  atomic.Bool  // something has come that is to be looked at when the poll is answered
	draining atomic.Bool  // no further poll
	due      atomic.Int64 // when the wait is over, or when the client has been silent for too long, by Outlet.Now
	timer    *time.Timer  // fires when it is due

	mu   sync.Mutex // held to set a deadline for the reader from elsewhere, and while the connection is given back
	gone bool       // it is given back or has ended

	poll pollTask // of the one who has the poll

	// The reader's own.
	held     []byte // what has come and is not yet asked
	amidHead bool   // it is the beginning of a request
	halved   bool   // the client has ended its side: a poll does not wait any longer
	asked    bool   // the request at hand has become a poll
	w        pollWriter
}

var _ crew.Source = (*pollConn)(nil)

// pollTask is one poll.
type pollTask struct {
	turn    *pollTurn
	body    pollBody // without a viewer text is the answer
	unwatch func()
	route   *route
	began   time.Duration // by Outlet.Now
	logged  netip.Addr    // whom the log names, if it does
	after   string
	known   bool   // the client has what comes after it if nothing does
	head    []byte // the header fields that do not depend on the answer
	text    []byte // an answer that is there, or the head of one
}

// pollTurn is a poll as the hub and the registry see it. They may tell it of something still when it is over.
type pollTurn struct {
	conn  *pollConn
	woken atomic.Bool // since the viewer was asked
	bye   atomic.Pointer[farewell]
}

// Wake has the writer look for frames.
func (t *pollTurn) Wake() {
	t.woken.Store(true)
	t.conn.Wake()
}

// Close has the writer answer why there are none.
func (t *pollTurn) Close(code wire.CloseCode, reason string) {
	t.bye.CompareAndSwap(nil, &farewell{code, reason})
	t.conn.Wake()
}

// pollConn returns where the answer to a poll is written: the connection that it came over, a new one if the connection can be
// taken from net/http, or nil.
func (a *API) pollConn(out *answer, r *http.Request, after, known string) *pollConn {
	if w, ok := out.ResponseWriter.(*pollWriter); ok {
		return w.conn
	}
	if after == "" && known != "" || r.Method != http.MethodGet || r.Close || !r.ProtoAtLeast(1, 1) || r.ContentLength != 0 || out.caller.local {
		return nil
	}
	giveBack := a.Return(r)
	if giveBack == nil {
		return nil
	}
	c := &pollConn{api: a, giveBack: giveBack, remote: r.RemoteAddr}
	c.w.conn = c
	c.Init(&a.rules, c)
	return c
}

// ask hands a poll to the writer. It returns an error as long as nothing is answered.
func (c *pollConn) ask(out *answer, r *http.Request, sub hub.Subscription, wait time.Duration, known string) (err error) {
	a := c.api
	t := &pollTurn{conn: c}
	p := pollTask{
		turn: t, unwatch: func() {}, route: out.route, began: c.Now(), after: sub.After, known: sub.After == known,
		body: newPollBody(r, sub.After, known), head: c.poll.head[:0], text: c.poll.text[:0],
	}
	if a.log.Enabled(r.Context(), slog.LevelDebug) {
		p.logged = a.remote(r)
	}
	if c.over.Store(wait <= 0); wait > 0 {
		p.unwatch = a.Access.Watch(out.caller.id, func(why access.Reason) { t.Close(closeOf(why)) })
	}
	sub.Once = wait <= 0
	if p.body.viewer, p.body.reset, err = a.subscribe(r.Context(), sub, t); err != nil {
		p.unwatch()
		return err
	}
	fresh := c.Raw == nil
	if fresh {
		if err = c.take(out); err != nil {
			p.body.viewer.End()
			p.unwatch()
			return err
		}
	}
	out.elsewhere, c.asked = true, true
	p.head = appendHeader(p.head, out.Header())
	c.poll = p
	if wait > 0 {
		c.expire(wait)
	}
	c.phase.Store(pollAsked)
	if !fresh {
		c.Flush()
		return nil
	}
	a.streams.add(c)
	c.Wake()
	c.Release()
	// The request, its buffers and this stack are free as soon as the handler has returned.
	go c.read()
	return nil
}

// take takes the connection from net/http.
func (c *pollConn) take(out *answer) error {
	if err := c.api.streams.enter(); err != nil {
		return err
	}
	raw, early, err := crew.Hijack(out)
	if err != nil {
		c.api.streams.leave()
		return faultf(http.StatusInternalServerError, "The hub cannot go on with polls over this connection: connect again.")
	}
	c.Raw, c.held = raw, early
	c.due.Store(int64(c.Now() + c.api.pollIdle))
	c.timer = time.AfterFunc(c.api.pollIdle, c.tick)
	return nil
}

// expire sets when tick finds that the time is over.
func (c *pollConn) expire(after time.Duration) {
	c.due.Store(int64(c.Now() + after))
	c.timer.Reset(after)
}

func (c *pollConn) isDue() bool { return int64(c.Now()) >= c.due.Load() }

// busy reports whether there is a poll.
func (c *pollConn) busy() bool { return c.phase.Load() != pollNone }

// tick ends the wait of a poll, or a connection on which none has come.
func (c *pollConn) tick() {
	switch {
	case !c.isDue(): // it was put off while it came
	case c.phase.Load() == pollNone:
		c.rouse()
	default:
		c.Wake()
	}
}

// rouse has the reader look around.
func (c *pollConn) rouse() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.gone {
		_ = c.Raw.SetReadDeadline(time.Unix(1, 0)) // an error says that it is closed, which the reader notices
	}
}

// drain ends the connection when its poll is answered.
func (c *pollConn) drain() {
	c.draining.Store(true)
	c.rouse()
}

// read takes polls until the connection ends or is given back. Its stack stays with a poll that waits.
func (c *pollConn) read() {
	for {
		if c.Ending() {
			c.finish(true)
			return
		}
		quiet := c.phase.Load() == pollNone
		if quiet && len(c.held) > 0 && !c.draining.Load() {
			before := len(c.held)
			if !c.next() {
				return
			}
			if len(c.held) < before {
				continue
			}
		}
		if quiet && (c.draining.Load() || c.isDue() || c.halved) {
			c.finish(true)
			return
		}
		c.pending.Store((len(c.held) > 0 || c.halved) && c.phase.Load() != pollNone)
		if c.pending.Load() && c.phase.Load() == pollNone {
			continue
		}
		if !c.readMore() {
			return
		}
	}
}

// readMore reads once, unless there is nothing to read for before the poll is answered. It reports false if the connection has
// ended.
func (c *pollConn) readMore() bool {
	switch full := len(c.held) == cap(c.held); {
	case c.halved: // a client that is gone for good looks the same
		c.over.Store(true)
		c.Wake()
		return c.await()
	case full && cap(c.held) >= maxPollHeld:
		return c.await()
	case full:
		c.held = append(make([]byte, 0, min(max(1<<10, 2*cap(c.held)), maxPollHeld)), c.held...)
	}
	n, err := c.Raw.Read(c.held[len(c.held):cap(c.held)])
	c.held = c.held[:len(c.held)+n]
	if n > 0 {
		return true
	}
	if c.halved = errors.Is(err, io.EOF); c.halved {
		return true
	}
	return c.goesOn(err)
}

// await waits as Read would if nothing had come.
func (c *pollConn) await() bool {
	tcp, ok := c.Raw.(syscall.Conn)
	if !ok {
		c.finish(true)
		return false
	}
	raw, err := tcp.SyscallConn()
	if err == nil {
		looked := false
		err = raw.Read(func(uintptr) bool {
			defer func() { looked = true }()
			return looked
		})
	}
	return c.goesOn(err)
}

// goesOn reports false if a read has found the end of the connection.
func (c *pollConn) goesOn(err error) bool {
	switch {
	case err == nil:
		return true
	case errors.Is(err, os.ErrDeadlineExceeded): // somebody rouses us: what for stands in the fields, which are looked at next
		_ = c.Raw.SetReadDeadline(time.Time{}) // it fails on a connection that is closed
		return true
	}
	c.finish(false)
	return false
}

// next takes the request that has come, if its head is complete. It reports false if the connection is not ours any more.
func (c *pollConn) next() bool {
	end := bytes.Index(c.held, []byte("\r\n\r\n")) + 4
	if end < 4 {
		n := min(len(c.held), len(pollLine))
		if string(c.held[:n]) != pollLine[:n] || len(c.held) >= maxPollHead {
			return c.toNetHTTP()
		}
		if !c.amidHead {
			c.amidHead = true
			c.expire(c.api.BodyTimeout)
		}
		return true
	}
	c.amidHead = false
	r := parsePoll(c.held[:end])
	if r == nil {
		return c.toNetHTTP()
	}
	c.held = c.held[:copy(c.held, c.held[end:])]
	r.RemoteAddr = c.remote
	c.serve(r)
	return true
}

// serve answers a request, or has it asked.
func (c *pollConn) serve(r *http.Request) {
	w := &c.w
	if w.header == nil {
		w.header = make(http.Header, 8)
	}
	clear(w.header)
	w.status, w.body, c.asked = 0, w.body[:0], false
	defer func() {
		if recover() != nil { // API.finish has said what
			c.Kill()
		}
	}()
	c.api.serve(w, r, caller{})
	if c.asked {
		return
	}
	c.poll.text = w.appendTo(c.poll.text[:0])
	c.phase.Store(pollAsked)
	c.Flush()
}

// toNetHTTP gives the connection back, with what has come over it.
func (c *pollConn) toNetHTTP() bool {
	c.leave()
	_ = c.Raw.SetDeadline(time.Time{}) // it fails on a connection that is closed
	c.api.streams.drop(c)
	c.giveBack(c.held)
	return false
}

// finish takes the connection down. orderly says that the client may be there to read what is being written, and the last of it.
func (c *pollConn) finish(orderly bool) {
	defer c.api.streams.drop(c)
	if !orderly {
		c.Kill() // a writer that waits for this client need not wait any longer
	}
	c.leave()
	if p := &c.poll; p.body.viewer != nil {
		p.body.viewer.End()
		p.unwatch()
	}
	if orderly && c.Ending() {
		c.Linger()
	}
	c.Kill()
}

// leave returns when nobody but the reader has to do with the connection.
func (c *pollConn) leave() {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	c.timer.Stop()
	c.Stop()
}
