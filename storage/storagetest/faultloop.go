package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"telemetryhub/storage"
)

// failEverywhere lets the first operation of a run fail in every way, then the second, and so on, until the run ends
// without a failure.
func failEverywhere(t *testing.T, run func(f *Faults) error) {
	for n := 1; ; n++ {
		fired := false
		for name, plan := range map[string]Plan{
			"full":            {At: n, For: 2, Err: storage.ErrFull},
			"unknown, lost":   {At: n, Err: storage.ErrUnknown},
			"unknown, stored": {At: n, Err: storage.ErrUnknown, Done: true},
		} {
			f := NewFaults(plan)
			if err := run(f); err != nil {
				t.Fatalf("operation %d fails (%s): %v", n, name, err)
			}
			fired = fired || f.Fired()
		}
		if !fired {
			return
		}
	}
}

// insist repeats a write while the store is full. It reports whether the write succeeded; if not, its outcome is
// unknown, and the store must refuse to write on.
func insist(write func() error) (bool, error) {
	for {
		err := write()
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, storage.ErrFull):
			continue
		case !errors.Is(err, storage.ErrUnknown):
			return false, err
		}
		if again := write(); !errors.Is(again, storage.ErrUnknown) {
			return false, fmt.Errorf("after ErrUnknown the next write returned %v", again)
		}
		return false, nil
	}
}

// testLogFaults sends groups through every fault. After a restart the log must hold all that was acknowledged and at
// most the one group whose outcome was unknown, and sending the rest must give every group once.
func testLogFaults(t *testing.T, h Harness[storage.Log]) {
	if h.Reopen == nil {
		t.Skip("this store forgets")
	}
	groups := sampleGroups()[:6]
	failEverywhere(t, func(f *Faults) error {
		inner := h.Open(t)
		defer func() { closeStore(t, inner) }()
		l, acked := f.Log(inner), 0
		for _, g := range groups {
			ok, err := insist(func() error { _, err := l.Append(t.Context(), g, l.Last()); return err })
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			acked++
		}
		if seen := len(readAll(t, l, 0)); seen != acked {
			return fmt.Errorf("%d groups can be seen, %d were acknowledged", seen, acked)
		}
		inner = h.Reopen(t, inner)
		stored := len(readAll(t, inner, 0))
		if stored < acked || stored > acked+1 {
			return fmt.Errorf("%d groups stored, %d acknowledged", stored, acked)
		}
		for _, g := range groups[min(stored, len(groups)):] {
			if _, err := inner.Append(t.Context(), g, inner.Last()); err != nil {
				return err
			}
		}
		for i, e := range readAll(t, inner, 0) {
			if i >= len(groups) || !bytes.Equal(e.Group, groups[i]) {
				return fmt.Errorf("group %d at %d is not what was sent", i, e.Position)
			}
		}
		return nil
	})
}

// testCatalogFaults counts up through every fault. After a restart the count must be what was acknowledged, or one
// more if the last outcome was unknown.
func testCatalogFaults(t *testing.T, h Harness[storage.Catalog]) {
	if h.Reopen == nil {
		t.Skip("this store forgets")
	}
	failEverywhere(t, func(f *Faults) error {
		inner := h.Open(t)
		defer func() { closeStore(t, inner) }()
		c, acked, sure := f.Catalog(inner), 0, true
		for acked < 4 && sure {
			var err error
			sure, err = insist(func() error { return increment(t, c, "count") })
			if err != nil {
				return err
			}
			if sure {
				acked++
			}
		}
		if sure {
			gone, err := insist(func() error { return c.Delete(t.Context(), "count", storage.Any) })
			if err != nil || gone {
				return err
			}
			acked = -1 // nobody knows whether it is still there
		}
		inner = h.Reopen(t, inner)
		value, _, err := inner.Get(t.Context(), "count")
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		switch stored := len(value); {
		case acked < 0 && (stored == 0 || stored == 4):
		case acked >= 0 && (stored == acked || stored == acked+1):
		default:
			return fmt.Errorf("the count is %d, %d were acknowledged", stored, acked)
		}
		return nil
	})
}

// testChunksFaults writes flushes through every fault. After a restart all acknowledged ones must be there, and writing
// the one whose outcome was unknown once more must give every block once.
func testChunksFaults(t *testing.T, h Harness[storage.Chunks]) {
	if h.Reopen == nil {
		t.Skip("this store forgets")
	}
	failEverywhere(t, func(f *Faults) error {
		inner := h.Open(t)
		defer func() { closeStore(t, inner) }()
		c, want := f.Chunks(inner), flushes{}
		block := func(flush uint64) [][]byte { return [][]byte{noise(flush, 5000), noise(flush, int(flush))} }
		flush, sure := uint64(0), true
		for ; flush < 4 && sure; flush++ {
			var err error
			sure, err = insist(func() error { return c.Write(t.Context(), 1, flush, block(flush)) })
			if err != nil {
				return err
			}
			if sure {
				want[flush] = block(flush)
			}
		}
		inner = h.Reopen(t, inner)
		if !sure {
			flush-- // the caller knows from its checkpoint that this flush was not finished
		}
		for ; flush < 4; flush++ {
			want[flush] = block(flush)
			if err := inner.Write(t.Context(), 1, flush, block(flush)); err != nil {
				return err
			}
		}
		return checkSlice(t, inner, 1, want)
	})
}
