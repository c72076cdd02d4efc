package history_test

import (
	"context"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
	"telemetryhub/storage/history"
	"telemetryhub/storage/storagetest"
)

// machine runs random operations on a store and on the model.
type machine struct{ *world }

// insist repeats what fails because the disk is full: a fault of an earlier action may be pending.
func (m machine) insist(do func(context.Context) error) {
	for range 20 {
		err := do(m.t.Context())
		if err == nil {
			return
		}
		if !errors.Is(err, storage.ErrFull) {
			m.t.Fatalf("got %v", err)
		}
	}
	m.t.Fatalf("the disk stays full")
}

func (m machine) Append(t *rapid.T) {
	m.t = t
	var items []item
	for range rapid.IntRange(1, 4).Draw(t, "records") {
		items = append(items, drawItem(t, m.world))
	}
	m.append(items...)
}

func (m machine) Flush(t *rapid.T) {
	m.t = t
	m.insist(m.store.Flush)
	if m.store.Checkpoint() != m.log.Last() {
		t.Fatalf("checkpoint at %d after a flush, the log ends at %d", m.store.Checkpoint(), m.log.Last())
	}
	if rapid.Bool().Draw(t, "trim") {
		if err := m.log.Trim(t.Context(), m.store.Checkpoint()); err != nil {
			t.Fatalf("trim: %v", err)
		}
	}
}

// Full lets a flush fail because the disk is full, looks, and goes on without flushing again at once.
func (m machine) Full(t *rapid.T) {
	m.t = t
	m.store.Close()
	m.log, m.chunks, m.catalog = m.log.Reopen(), m.chunks.Reopen(), m.catalog.Reopen()
	m.open(storagetest.Plan{At: rapid.IntRange(1, 8).Draw(t, "operation"), Err: storage.ErrFull})
	m.Append(t)
	if err := m.store.Flush(t.Context()); err != nil && !errors.Is(err, storage.ErrFull) {
		t.Fatalf("flush: got %v, want ErrFull", err)
	}
	m.check()
}

// Crash stops the process at a random write of a flush, or between two flushes, and starts again.
func (m machine) Crash(t *rapid.T) {
	m.t = t
	m.crash()
	at := rapid.IntRange(0, 10).Draw(t, "operation")
	err := m.tryOpen(storagetest.Plan{At: at, Err: storage.ErrUnknown, Done: rapid.Bool().Draw(t, "done")})
	if err == nil && at > 0 {
		m.Append(t)
		err = m.store.Flush(t.Context())
		m.check()
	}
	if err != nil && !errors.Is(err, storage.ErrUnknown) {
		t.Fatalf("got %v, want ErrUnknown", err)
	}
	m.crash()
	m.open(storagetest.Plan{})
}

func (m machine) Query(t *rapid.T) {
	m.t = t
	from := baseMS + rapid.Int64Range(-3*chunk.SliceMS, 3*chunk.SliceMS).Draw(t, "from")
	m.checkQuery(history.Query{
		Device: rapid.Uint32Range(1, 3).Draw(t, "device"), FromMS: from,
		ToMS:    from + rapid.Int64Range(-1, 4*chunk.SliceMS).Draw(t, "span"),
		Metrics: rapid.SampledFrom([][]uint32{nil, {1}, {3, 6}, {2, 4, 5}, {99}}).Draw(t, "metrics"),
		Limit:   rapid.IntRange(0, 5).Draw(t, "limit"),
	})
}

func (m machine) Drop(t *rapid.T) {
	m.t = t
	if rapid.IntRange(0, 9).Draw(t, "rarely") > 0 {
		t.SkipNow()
	}
	num := rapid.Uint32Range(1, 3).Draw(t, "device")
	m.insist(func(ctx context.Context) error { return m.store.DropDevice(ctx, num) })
	m.model.dropped[num] = true
}

func (m machine) Check(t *rapid.T) {
	m.t = t
	m.check()
}

func TestHistoryIsWhatTheLogSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := machine{newWorld(t)}
		t.Repeat(rapid.StateMachineActions(m))
		m.t = t
		m.check()
	})
}

// TestEveryFailureLeavesHistoryWhole lets each operation of a run with several flushes fail, in each way. After a full
// disk the run goes on, after an unknown outcome it starts again from the checkpoint.
func TestEveryFailureLeavesHistoryWhole(t *testing.T) {
	run := func(plan storagetest.Plan, hasty bool) bool {
		rng := rapid.Custom(func(t *rapid.T) []item { return []item{drawItem(t, &world{schemas: testSchemas()})} })
		w := newWorld(t)
		w.store.Close()
		w.open(plan)
		w.hasty = hasty
		for i := range 12 {
			w.append(rng.Example(i)...)
			if i%3 != 2 {
				continue
			}
			for {
				err := w.store.Flush(t.Context())
				w.check()
				if err == nil {
					break
				}
				if errors.Is(err, storage.ErrUnknown) {
					fired := w.faults.Fired()
					w.crash()
					w.open(storagetest.Plan{})
					w.check()
					if !fired {
						t.Fatal("a flush failed although no operation did")
					}
				} else if !errors.Is(err, storage.ErrFull) {
					t.Fatalf("flush: %v", err)
				}
			}
		}
		w.check()
		w.checkStoredOnce()
		fired := w.faults.Fired()
		w.crash()
		w.open(storagetest.Plan{})
		w.check()
		w.store.Close()
		return fired
	}
	for n := 1; ; n++ {
		fired := false
		for _, plan := range []storagetest.Plan{
			{At: n, For: 2, Err: storage.ErrFull},
			{At: n, Err: storage.ErrUnknown},
			{At: n, Err: storage.ErrUnknown, Done: true},
		} {
			fired = run(plan, false) || fired
			fired = run(plan, true) || fired
		}
		if !fired {
			return // past the last operation
		}
	}
}
