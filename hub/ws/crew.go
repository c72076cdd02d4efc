package ws

import (
	"errors"
	"runtime"
	"sync"
	"syscall"
)

// crew runs the writers of all connections: as many hands as there are processors take connections that have something to
// write from a queue, one after the other. That costs less than a goroutine for each, and the more of them are woken at once
// the more so. A hand that must wait for a peer leaves the crew, so that nobody else waits for that peer. Without work there
// are no hands. The zero value works.
type crew struct {
	mu    sync.Mutex // guards the fields below
	queue []*conn
	head  int // of queue
	hands int
}

// add has the writer of c run soon.
func (w *crew) add(c *conn) {
	w.mu.Lock()
	w.queue = append(w.queue, c)
	hire := w.hands < runtime.GOMAXPROCS(0)
	if hire {
		w.hands++
	}
	w.mu.Unlock()
	if hire {
		go w.work()
	}
}

// take returns the next connection. If there is none the hand is no longer one.
func (w *crew) take() *conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.head == len(w.queue) {
		w.hands--
		if w.queue, w.head = w.queue[:0], 0; cap(w.queue) > 1024 {
			w.queue = nil
		}
		return nil
	}
	c := w.queue[w.head]
	w.queue[w.head] = nil
	if w.head++; w.head > 1024 && w.head > len(w.queue)/2 { // those that come back at once must not make it grow
		w.queue = append(w.queue[:0], w.queue[w.head:]...)
		w.head = 0
	}
	return c
}

func (w *crew) work() {
	h := hands.Get().(*hand)
	defer h.rest()
	for h.crew = w; h.crew != nil; {
		c := w.take()
		if c == nil {
			return
		}
		c.write(h)
	}
}

// leave makes a goroutine that is about to wait one of its own.
func (h *hand) leave() {
	w := h.crew
	if w == nil {
		return
	}
	h.crew = nil
	w.mu.Lock()
	replace := w.head < len(w.queue)
	if !replace {
		w.hands--
	}
	w.mu.Unlock()
	if replace {
		go w.work()
	}
}

// hand is a goroutine that writes.
type hand struct {
	crew   *crew  // nil once it has left
	frames []byte // whole frames, ready to be written

	// An attempt to write without waiting.
	try  func(fd uintptr) bool
	left []byte
	n    int
	err  error
}

// hands keeps the memory of those who rest.
var hands = sync.Pool{New: func() any {
	h := &hand{frames: make([]byte, 0, 1024)}
	h.try = h.attempt
	return h
}}

func (h *hand) rest() {
	if h.crew, h.left = nil, nil; cap(h.frames) <= 2*piece {
		hands.Put(h)
	}
}

// attempt is what happens while the file descriptor is held.
func (h *hand) attempt(fd uintptr) bool {
	for {
		h.n, h.err = syscall.Write(int(fd), h.left)
		if !errors.Is(h.err, syscall.EINTR) {
			return true
		}
	}
}

// write writes as much of p as it can. Only outside the crew does it wait for the peer.
func (h *hand) write(c *conn, p []byte) (int, error) {
	if c.quick == nil {
		h.leave()
	}
	if h.crew == nil {
		return c.raw.Write(p)
	}
	h.left = p
	err := c.quick.Write(h.try)
	h.left = nil
	n := max(h.n, 0)
	switch {
	case err != nil:
		return 0, err
	case errors.Is(h.err, syscall.EAGAIN) || h.err == nil && n < len(p):
		h.leave()
		more, err := c.raw.Write(p[n:])
		return n + more, err
	}
	return n, h.err
}
