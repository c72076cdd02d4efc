package hub

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

// broken is a store of chunks that cannot say what is durable.
type broken struct{ storage.Chunks }

func (b *broken) Write(context.Context, storage.Slice, uint64, [][]byte) error {
	return fmt.Errorf("write: %w", storage.ErrUnknown)
}

// waiting runs a hub in whose queue one batch of two waits.
func waiting(t *testing.T, log storage.Log, chunks storage.Chunks) (h *Hub, stop context.CancelCauseFunc, done chan error) {
	t.Helper()
	h, err := Open(t.Context(), Stores{Log: log, Chunks: chunks, Catalog: mem.NewCatalog()}, Options{CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancelCause(t.Context())
	done = make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	if _, err := h.AddDevice(t.Context(), "a", DeviceAttrs{}); err != nil {
		t.Fatal(err)
	}
	s := h.mustConnect(t, "a")
	for range 2 {
		if err := s.Receive(t.Context(), wire.JSON, []byte(`{"x":1}`)); err != nil {
			t.Fatal(err)
		}
		until(t, "the first is committed", func() bool { return h.stats.commits.Load() == 1 })
	}
	s.End()
	return h, stop, done
}

func TestStoppingWhileTheDiskIsFullIsNoFailure(t *testing.T) {
	log := &stubborn{Log: mem.NewLog()}
	_, stop, done := waiting(t, log, mem.NewChunks())
	log.fail(fmt.Errorf("append: %w", storage.ErrFull))
	stop(nil)
	if err := <-done; err != nil {
		t.Errorf("got %v", err)
	}
}

func TestNothingIsAckedAfterTheHistoryFailedToSync(t *testing.T) {
	h, stop, done := waiting(t, mem.NewLog(), &broken{mem.NewChunks()})
	defer stop(nil)
	if err := h.FlushHistory(t.Context()); !errors.Is(err, storage.ErrUnknown) {
		t.Fatalf("flush: %v", err)
	}
	if err := <-done; !errors.Is(err, storage.ErrUnknown) {
		t.Errorf("run: got %v, want ErrUnknown", err)
	}
	if n := h.stats.commits.Load(); n != 1 {
		t.Errorf("%d commits, want the one before the failure", n)
	}
}

func TestNothingIsAckedAfterSomebodyElseFailedToSync(t *testing.T) {
	h, stop, done := waiting(t, mem.NewLog(), mem.NewChunks())
	stop(fmt.Errorf("the catalog: %w", storage.ErrUnknown))
	if err := <-done; !errors.Is(err, storage.ErrUnknown) {
		t.Errorf("run: got %v, want ErrUnknown", err)
	}
	if n := h.stats.commits.Load(); n != 1 {
		t.Errorf("%d commits, want the one before the failure", n)
	}
}

func TestLastFlushThatFailedToSyncIsNoGoodEnd(t *testing.T) {
	_, stop, done := waiting(t, mem.NewLog(), &broken{mem.NewChunks()})
	stop(nil)
	if err := <-done; !errors.Is(err, storage.ErrUnknown) {
		t.Errorf("got %v, want ErrUnknown", err)
	}
}
