package crew

import (
	"crypto/tls"
	"net"
	"sync/atomic"
	"time"
)

// States of an Outlet. A wake-up is never lost: one that comes while the writer looks for the last time makes it look once
// more.
const (
	runs    = iota // a writer is at work, or is held back until Release
	again          // it is, and must look once more
	idle           // there is none
	stopped        // the connection ends; nothing starts it again
)

const (
	// Gather is about how much a Source collects before it is written, so that many messages cost one system call.
	Gather = 32 << 10
	// piece is the most that is written under one deadline: a peer that reads slowly but reads gets a large message too.
	piece = 64 << 10
	// turn is about how much is written before others are written to, and turnTime how long that may take: what is compressed
	// is work behind few bytes.
	turn     = 256 << 10
	turnTime = time.Millisecond
	// lastWords bounds what may still be sent when the connection is being closed.
	lastWords = 64 << 10
)

// Source is what stands behind an Outlet. Its methods are called by one goroutine at a time and must not panic. Other outlets
// may wait until they return.
type Source interface {
	// Fill appends what is to be written, up to about Gather bytes. more reports whether there may be more; if there is none,
	// Outlet.Wake must be called when there is.
	Fill(dst []byte) (out []byte, more bool)
	// Last appends what is written last, once Outlet.End was called. Nothing is asked for after it.
	Last(dst []byte) []byte
}

// Rules are what the outlets of a server have in common. They are set before the first and never changed.
type Rules struct {
	Crew *Crew
	// Urgent outlets are written to before most others: a device waits for its acks, and sends no more until they come.
	Urgent bool
	// WriteTimeout is how long a write may wait for the peer to read at most, and three quarters of it at least.
	WriteTimeout time.Duration
	// CloseTimeout is how long the peer may take to read what is written last.
	CloseTimeout time.Duration
	// Written counts bytes, above TLS.
	Written *atomic.Uint64
}

// Outlet is the writing side of a connection. Until Release it only remembers to have been woken. Its methods return at once
// unless they say otherwise, and are safe for concurrent use from Release on; before that, all but Wake, End and Ending are
// for the goroutine that prepares it. What is needed to write fits into one line of the processor's cache.
type Outlet struct {
	// Raw is the connection, TCP or TLS. It is set before Release and never changed.
	Raw net.Conn

	rules  *Rules
	source Source
	state  atomic.Uint32
	ending atomic.Bool

	// The writer's own.
	closed  bool          // the last is out, nothing may follow
	writeBy time.Duration // the write deadline by Crew.now, zero if there is none

	endBy time.Duration // when closing must be done, by Crew.now; set before ending is
	gone  chan struct{} // closed by the last writer when the outlet is stopped
}

// Init is called before all else.
func (o *Outlet) Init(r *Rules, s Source) { o.rules, o.source = r, s }

// Wake has the source asked. It may be called at any time.
func (o *Outlet) Wake() {
	for {
		switch o.state.Load() {
		case idle:
			if o.state.CompareAndSwap(idle, runs) {
				o.rules.Crew.add(o)
				return
			}
		case runs:
			if o.state.CompareAndSwap(runs, again) {
				return
			}
		default:
			return
		}
	}
}

// Flush is Wake for somebody who is at no hurry for anything else: what there is is written by the goroutine that calls, and
// waits for the peer as a write may, unless somebody writes already. That spares waking one who does.
func (o *Outlet) Flush() {
	if !o.state.CompareAndSwap(idle, runs) {
		o.Wake()
		return
	}
	h := hands.Get().(*hand)
	h.join(o.rules.Crew)
	o.write(h)
	h.leave()
	h.rest()
}

// Release lets the writer run that was held back until the source was complete.
func (o *Outlet) Release() {
	if !o.state.CompareAndSwap(runs, idle) {
		o.rules.Crew.add(o) // it was woken meanwhile
	}
}

// Answer writes what goes before all that the source has, as the answer to an upgrade. It is called before Release and waits
// for the peer, at most for WriteTimeout.
func (o *Outlet) Answer(p []byte) (int, error) {
	if err := o.Raw.SetWriteDeadline(time.Now().Add(o.rules.WriteTimeout)); err != nil {
		return 0, err
	}
	n, err := o.Raw.Write(p)
	if err == nil {
		err = o.Raw.SetWriteDeadline(time.Time{}) // if the connection ends already, the writer knows
	}
	return n, err
}

// Stop returns when nothing is being written, and nothing will be. After End the last is out then, if the peer took it. It is
// called once, and waits as long as a write may wait.
func (o *Outlet) Stop() {
	o.gone = make(chan struct{})
	if o.state.Swap(stopped) == idle {
		if o.closed || !o.ending.Load() {
			return
		}
		o.rules.Crew.add(o) // whoever called End has not come to Hurry yet: the last is still to be written
	}
	<-o.gone
}

// Now tells a monotonic time, that of its crew.
func (o *Outlet) Now() time.Duration { return o.rules.Crew.now() }

// Ending reports whether End was called.
func (o *Outlet) Ending() bool { return o.ending.Load() }

// End notes that the connection ends: the source is asked once more and for its last. It is called once, and followed by Hurry
// once Raw is there.
func (o *Outlet) End() {
	o.endBy = o.rules.Crew.now() + o.rules.CloseTimeout
	o.ending.Store(true)
}

// Hurry has the writer notice that the connection ends, and whoever reads from Raw, by a deadline in the past.
func (o *Outlet) Hurry() {
	// Errors of the next lines mean that the connection is gone already, which its reader notices.
	_ = o.Raw.SetWriteDeadline(o.end()) // also for a write that is stuck now
	o.Wake()
	_ = o.Raw.SetReadDeadline(time.Unix(1, 0))
}

func (o *Outlet) end() time.Time { return o.rules.Crew.epoch.Add(o.endBy) }

// tcp returns the connection below TLS.
func (o *Outlet) tcp() net.Conn {
	if t, ok := o.Raw.(*tls.Conn); ok {
		return t.NetConn()
	}
	return o.Raw
}

// Kill cuts the connection. The Close of TLS would wait for the peer.
func (o *Outlet) Kill() { _ = o.tcp().Close() } // an error only says that it is closed already

// Linger waits until the peer has hung up or the time for closing is over, after End and Stop. To close a socket that holds
// unread bytes resets the connection, and the peer might lose what was sent last.
func (o *Outlet) Linger() {
	if t, ok := o.Raw.(*tls.Conn); ok {
		_ = t.CloseWrite() // only a courtesy: the last is out
	}
	tcp := o.tcp()
	if half, ok := tcp.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	if tcp.SetReadDeadline(o.end()) != nil {
		return
	}
	bin := make([]byte, 512)
	for {
		if _, err := tcp.Read(bin); err != nil {
			return // the peer, or the deadline
		}
	}
}

// write is the writer: it ends when there is nothing more to write.
func (o *Outlet) write(h *hand) {
	for {
		// Once a write has failed there is nothing to do but to wait for the reader, which Kill has woken.
		if !o.pump(h) {
			o.Kill()
		}
		switch {
		case o.state.CompareAndSwap(runs, idle):
			return
		case o.state.CompareAndSwap(again, runs):
			if h.crew != nil {
				h.crew.add(o) // others first
				return
			}
			continue
		}
		o.pump(h) // stopped, perhaps before the last wake-up was heeded
		close(o.gone)
		return
	}
}

// pump writes all that is due. It reports false if the connection failed.
func (o *Outlet) pump(h *hand) bool {
	if o.closed {
		return true
	}
	var over time.Duration // when the turn is, by Crew.now
	for sent := 0; ; {
		ending, more := o.ending.Load(), false
		h.out, more = o.source.Fill(h.out[:0])
		sent += len(h.out)
		if ending && (!more || sent > lastWords) {
			o.closed = true
			h.out = o.source.Last(h.out)
			return o.send(h, h.out)
		}
		if !o.send(h, h.out) {
			return false
		}
		if !more {
			return o.setDeadline(false) // none may be over when TLS writes by itself, as a peer that asks for new keys has it do
		}
		if h.crew == nil || ending { // lastWords bounds what ends
			continue
		}
		now := o.Now()
		if over == 0 {
			over = now + turnTime // not before: most have no more, and need not know the time
		}
		if sent > turn || now > over {
			o.Wake()
			return true
		}
	}
}

// send writes p. It reports false if nothing more can be written. Only outside the crew does it wait for the peer.
func (o *Outlet) send(h *hand, p []byte) bool {
	for len(p) > 0 {
		tcp, quick := o.Raw.(*net.TCPConn)
		if quick = quick && h.crew != nil; !quick {
			h.leave()
		}
		if !o.setDeadline(!quick) {
			return false
		}
		var (
			n   int
			err error
		)
		if next := p[:min(len(p), piece)]; !quick {
			n, err = o.Raw.Write(next)
		} else if n, quick, err = h.write(tcp, next); !quick && err == nil {
			h.leave()
		}
		o.rules.Written.Add(uint64(n))
		if err != nil {
			return false
		}
		p = p[n:]
	}
	return true
}

// setDeadline gives a write its time, or takes back that of the last one, unless the connection ends. To set a deadline costs
// as much as copying kilobytes, so a write that does not wait has none, and one that leaves enough stays for the next.
func (o *Outlet) setDeadline(waits bool) bool {
	for {
		var err error
		ending := o.ending.Load()
		switch {
		case ending:
			err = o.Raw.SetWriteDeadline(o.end())
		case waits:
			if now := o.rules.Crew.now(); o.writeBy-now < o.rules.WriteTimeout/4*3 {
				o.writeBy = now + o.rules.WriteTimeout
				err = o.Raw.SetWriteDeadline(o.rules.Crew.epoch.Add(o.writeBy))
			}
		case o.writeBy != 0:
			o.writeBy = 0
			err = o.Raw.SetWriteDeadline(time.Time{})
		}
		switch {
		case err != nil:
			return false
		case ending || !o.ending.Load():
			return true
		}
		// Hurry may have set its deadline in between.
	}
}
