package crew

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Crew runs the writers of all connections: hands take outlets that have something to write from a queue, one after the other.
// That costs less than a goroutine for each, and the more of them are woken at once the more so. There is one hand less than
// there are processors, if there are several: one is left for what comes in. A hand that must wait for a peer leaves the crew,
// so that nobody else waits for that peer. Without work there are no hands. It is safe for concurrent use.
type Crew struct {
	epoch time.Time // what the times of outlets are counted from

	mu     sync.Mutex // guards the fields below
	urgent queue
	others queue
	row    int // urgent ones since the last other
	hands  int
}

// maxRow is how many urgent outlets are written to before one that is not, if that waits.
const maxRow = 32

// queue is first in, first out.
type queue struct {
	list []*Outlet
	head int
}

func (q *queue) put(o *Outlet) { q.list = append(q.list, o) }

func (q *queue) empty() bool { return q.head == len(q.list) }

// take returns nil if there is none.
func (q *queue) take() *Outlet {
	if q.empty() {
		if q.list, q.head = q.list[:0], 0; cap(q.list) > 1024 {
			q.list = nil
		}
		return nil
	}
	o := q.list[q.head]
	q.list[q.head] = nil
	if q.head++; q.head > 1024 && q.head > len(q.list)/2 { // those that come back at once must not make it grow
		q.list = append(q.list[:0], q.list[q.head:]...)
		q.head = 0
	}
	return o
}

// New returns a crew. It starts nothing.
func New() *Crew { return &Crew{epoch: time.Now()} }

// now is the time since epoch, on the monotonic clock.
func (w *Crew) now() time.Duration { return time.Since(w.epoch) }

// add has the outlet written to soon.
func (w *Crew) add(o *Outlet) {
	w.mu.Lock()
	if o.rules.Urgent {
		w.urgent.put(o)
	} else {
		w.others.put(o)
	}
	hire := w.hands < max(1, runtime.GOMAXPROCS(0)-1)
	if hire {
		w.hands++
	}
	w.mu.Unlock()
	if hire {
		go w.work()
	}
}

// take returns the next outlet. If there is none the hand is no longer one.
func (w *Crew) take() *Outlet {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.row < maxRow || w.others.empty() {
		if o := w.urgent.take(); o != nil {
			w.row++
			return o
		}
	}
	w.row = 0
	o := w.others.take()
	if o == nil {
		w.hands--
	}
	return o
}

func (w *Crew) work() {
	h := hands.Get().(*hand)
	defer h.rest()
	for h.crew = w; h.crew != nil; {
		o := w.take()
		if o == nil {
			return
		}
		o.write(h)
	}
}

// join makes a hand of a goroutine for one outlet.
func (h *hand) join(w *Crew) {
	w.mu.Lock()
	w.hands++
	w.mu.Unlock()
	h.crew = w
}

// leave makes a goroutine that is about to wait one of its own.
func (h *hand) leave() {
	w := h.crew
	if w == nil {
		return
	}
	h.crew = nil
	w.mu.Lock()
	replace := !w.urgent.empty() || !w.others.empty()
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
	crew *Crew  // nil once it has left
	out  []byte // what is about to be written

	// An attempt to write without waiting.
	try  func(fd uintptr) bool
	left []byte
	n    int
	err  error
}

// hands keeps the memory of those who rest.
var hands = sync.Pool{New: func() any {
	h := &hand{out: make([]byte, 0, 1024)}
	h.try = h.attempt
	return h
}}

func (h *hand) rest() {
	if h.crew, h.left = nil, nil; cap(h.out) <= 2*piece {
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

// write writes as much of p as the system takes without waiting. all reports whether that is everything.
func (h *hand) write(tcp *net.TCPConn, p []byte) (n int, all bool, err error) {
	quick, err := tcp.SyscallConn()
	if err != nil {
		return 0, false, err
	}
	h.left = p
	err = quick.Write(h.try)
	h.left = nil
	switch {
	case err != nil:
		return 0, false, err
	case h.err != nil && !errors.Is(h.err, syscall.EAGAIN):
		return 0, false, h.err
	}
	n = max(h.n, 0)
	return n, n == len(p), nil
}
