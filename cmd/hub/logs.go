package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// maxPending bounds the log lines that wait for whoever reads the log.
	maxPending = 1 << 20
	// maxRepeats is how often a message may be logged in repeatWindow; what is more is counted.
	maxRepeats   = 100
	repeatWindow = 10 * time.Second
	// maxMessages bounds how many messages are told apart. Messages are constants in the program, so there are fewer.
	maxMessages = 1000
	// stopLogs bounds the last write of the log.
	stopLogs = time.Second
)

// patientWriter hands lines to a writer that may be slow, blocked or gone, without ever making anybody wait: what does not
// fit is dropped and counted. Its goroutine ends with stop.
type patientWriter struct {
	to   io.Writer
	wake chan struct{} // has room for one
	done chan struct{}

	mu      sync.Mutex // guards the fields below
	pending []byte
	dropped int
	ended   bool
}

// startWriter returns a writer in front of another.
func startWriter(to io.Writer) *patientWriter {
	w := &patientWriter{to: to, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes one line. It never fails: there is nobody else to tell.
func (w *patientWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	if len(w.pending)+len(p) > maxPending {
		w.dropped++
	} else {
		w.pending = append(w.pending, p...)
	}
	w.mu.Unlock()
	w.poke()
	return len(p), nil
}

func (w *patientWriter) poke() {
	select {
	case w.wake <- struct{}{}:
	default: // it will look anyway
	}
}

func (w *patientWriter) run() {
	defer close(w.done)
	var spare []byte
	for range w.wake {
		w.mu.Lock()
		lines, dropped, ended := w.pending, w.dropped, w.ended
		w.pending, w.dropped = spare[:0], 0
		w.mu.Unlock()
		if dropped > 0 {
			lines = fmt.Appendf(lines, "level=WARN msg=\"log lines were dropped, because nobody took them in time\" count=%d\n", dropped)
		}
		_, _ = w.to.Write(lines) // the log itself cannot be written
		if spare = lines; cap(spare) > maxPending/8 {
			spare = nil
		}
		if ended {
			return
		}
	}
}

// stop writes what is left, but does not wait for ever.
func (w *patientWriter) stop() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.poke()
	select {
	case <-w.done:
	case <-time.After(stopLogs):
	}
}

// calmHandler bounds how often the same message is logged. The next line that passes says how many were left out.
type calmHandler struct {
	slog.Handler
	repeats *repeats
}

func newCalmHandler(h slog.Handler) *calmHandler {
	return &calmHandler{h, &repeats{seen: make(map[string]*repeat)}}
}

// repeats counts messages.
type repeats struct {
	mu   sync.Mutex // guards seen
	seen map[string]*repeat
}

type repeat struct {
	since   time.Time
	count   int
	leftOut int
}

// pass reports whether a message may be logged, and how many of it were left out before.
func (r *repeats) pass(message string, now time.Time) (leftOut int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.seen[message]
	if m == nil {
		if len(r.seen) >= maxMessages {
			clear(r.seen)
		}
		m = &repeat{since: now}
		r.seen[message] = m
	}
	if now.Sub(m.since) >= repeatWindow {
		leftOut, m.since, m.count, m.leftOut = m.leftOut, now, 0, 0
	}
	if m.count++; m.count > maxRepeats {
		m.leftOut++
		return 0, false
	}
	return leftOut, true
}

// Handle implements slog.Handler.
func (h *calmHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelInfo {
		return h.Handler.Handle(ctx, r) // whoever looks at every request wants to see every request
	}
	leftOut, ok := h.repeats.pass(r.Message, time.Now())
	if !ok {
		return nil
	}
	if leftOut > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", leftOut))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *calmHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &calmHandler{h.Handler.WithAttrs(attrs), h.repeats}
}

// WithGroup implements slog.Handler.
func (h *calmHandler) WithGroup(name string) slog.Handler {
	return &calmHandler{h.Handler.WithGroup(name), h.repeats}
}
