package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// stuckWriter takes nothing until it is let go.
type stuckWriter struct {
	screen
	let chan struct{}
}

func (s *stuckWriter) Write(p []byte) (int, error) {
	<-s.let
	return s.screen.Write(p)
}

func TestALogThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	to := &stuckWriter{screen: *newScreen(), let: make(chan struct{})}
	w := startWriter(to)
	log := slog.New(slog.NewTextHandler(w, nil))
	for range 50_000 {
		log.Info("the same line again and again", "text", strings.Repeat("x", 100))
	}
	w.mu.Lock()
	pending, dropped := len(w.pending), w.dropped
	w.mu.Unlock()
	if pending > maxPending || dropped == 0 {
		t.Errorf("%d bytes wait, %d lines were dropped", pending, dropped)
	}
	close(to.let)
	log.Info("the last line")
	w.stop()
	if text := to.String(); !strings.Contains(text, "were dropped") || !strings.Contains(text, "the last line") {
		t.Errorf("the log ends with %q", text[max(0, len(text)-300):])
	}
}

// A hub that must end, so that it is started again, must not wait for whoever does not read why.
func TestAnErrorThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	to := &stuckWriter{screen: *newScreen(), let: make(chan struct{})}
	code := make(chan int, 1)
	go func() {
		code <- run(t.Context(), []string{"serve", "--data", filepath.Join(os.DevNull, "none")}, world{environment(), strings.NewReader(""), newScreen(), to})
	}()
	select {
	case got := <-code:
		if got != exitError {
			t.Errorf("it ended with %d", got)
		}
	case <-time.After(patience):
		t.Error("the hub does not end as long as nobody reads what it writes")
	}
	close(to.let)
}

func TestTheSameMessageIsLoggedOnlySoOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newScreen()
		log := slog.New(newCalmHandler(slog.NewTextHandler(out, nil))).With("component", "x")
		for range 5000 {
			log.Error("the disk is on fire")
		}
		log.Error("something else")
		if n := strings.Count(out.String(), "on fire"); n != maxRepeats {
			t.Errorf("it was logged %d times", n)
		}
		time.Sleep(repeatWindow)
		log.Error("the disk is on fire")
		if text := out.String(); !strings.Contains(text, "left_out=4900") || !strings.Contains(text, "something else") {
			t.Errorf("the log ends with %q", text[max(0, len(text)-300):])
		}
	})
}
