package hub

import (
	"context"
	"errors"
	"runtime/debug"

	"telemetryhub/device/wire"
)

// workers take frames off the goroutines that read from sockets. Decoding needs a few kilobytes of stack, which a
// goroutine keeps for as long as it waits for the next frame: ten thousand silent devices would keep them ten thousand
// times. A worker does one frame at a time while the reader waits for it, so nothing changes in order or back-pressure.
// There are as many workers as frames being taken at a moment; a few stay for the next ones.
type workers struct {
	tasks chan task
	spare chan struct{} // holds one token for each worker that waits for another task
	done  chan struct{} // closed when nobody need wait any more
}

type task struct {
	session *Session
	ctx     context.Context // of the call that waits; the task does not outlive it
	format  wire.Format
	frame   []byte
}

// maxSpare is how many workers wait for more to do.
const maxSpare = 16

func newWorkers() *workers {
	return &workers{tasks: make(chan task), spare: make(chan struct{}, maxSpare), done: make(chan struct{})}
}

// do has a worker take a frame and returns what it says.
func (w *workers) do(t task) error {
	select {
	case w.tasks <- t:
	default:
		go w.work(t)
	}
	return <-t.session.taken
}

func (w *workers) work(t task) {
	for {
		t.session.taken <- t.session.takeSafely(t.ctx, t.format, t.frame)
		t = task{}
		select {
		case w.spare <- struct{}{}:
		default:
			return
		}
		select {
		case t = <-w.tasks:
			<-w.spare
		case <-w.done:
			<-w.spare
			return
		}
	}
}

// stop ends the workers that wait, and returns when they have let go. Later calls of do still work.
func (w *workers) stop() {
	close(w.done)
	for range maxSpare { // fills the spare places, which is possible only when they are empty
		w.spare <- struct{}{}
	}
}

// errPanic is what a session ends with whose frame made the hub panic: our fault, and only its own session's problem.
var errPanic = errors.New("internal error")

// takeSafely is take with a net: a panic ends the session that caused it, not the hub.
func (s *Session) takeSafely(ctx context.Context, f wire.Format, frame []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.hub.logger.Error("a frame made the hub panic: please report this", "device", s.entity.id, "panic", p, "stack", string(debug.Stack()))
			err = errPanic
		}
	}()
	return s.take(ctx, f, frame)
}
