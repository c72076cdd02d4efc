package mqtt

import (
	"context"
	"errors"
	"sync"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"telemetryhub/storage"
)

// window is what has been published and not acknowledged yet, in order. It is bounded in number and in bytes.
type window struct {
	flights chan flight

	mu    sync.Mutex // guards the fields below
	most  int
	bytes int
	used  int
	held  int
	freed chan struct{} // closed when there is room again; nil if nobody waits
}

// flight is one message under way. It may be without one, if there was nothing to publish up to a position.
type flight struct {
	token paho.Token // nil without a message
	size  int
	sent  time.Time
	pos   storage.Position // everything up to here is done when this and all before are acknowledged; zero says nothing
}

func newWindow(most, bytes int) *window {
	return &window{flights: make(chan flight, 2*most), most: most, bytes: bytes}
}

// enter waits until there is room for a message. One that is larger than the window has room when it is alone.
func (w *window) enter(ctx context.Context, size int) error {
	for {
		w.mu.Lock()
		if w.used == 0 || w.used < w.most && w.held+size <= w.bytes {
			w.used++
			w.held += size
			w.mu.Unlock()
			return nil
		}
		if w.freed == nil {
			w.freed = make(chan struct{})
		}
		freed := w.freed
		w.mu.Unlock()
		select {
		case <-freed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (w *window) leave(size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used--
	w.held -= size
	if w.freed != nil {
		close(w.freed)
		w.freed = nil
	}
}

// add puts a flight behind the others.
func (w *window) add(ctx context.Context, f flight) error {
	select {
	case w.flights <- f:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

var errNoAck = errors.New("the broker has not acknowledged a message in time")

// await waits for the acknowledgements, one after the other, and calls landed after each message and passed for each position.
func (w *window) await(ctx context.Context, timeout time.Duration, landed func(), passed func(storage.Position)) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		var f flight
		select {
		case f = <-w.flights:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if f.token != nil {
			if err := f.wait(ctx, timer, timeout); err != nil {
				return err
			}
			w.leave(f.size)
			landed()
		}
		if f.pos != 0 {
			passed(f.pos)
		}
	}
}

func (f *flight) wait(ctx context.Context, timer *time.Timer, timeout time.Duration) error {
	select {
	case <-f.token.Done():
		return f.token.Error()
	default:
	}
	timer.Reset(timeout - time.Since(f.sent))
	select {
	case <-f.token.Done():
		return f.token.Error()
	case <-timer.C:
		return errNoAck
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
