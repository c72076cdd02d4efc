package storagetest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/storage"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/storagetest"
)

func appendTo(t *testing.T, l storage.Log) error {
	t.Helper()
	_, err := l.Append(t.Context(), []byte("group"), l.Last())
	return err
}

func groups(t *testing.T, l storage.Log) (n int) {
	t.Helper()
	if err := l.Read(t.Context(), 0, func(storage.Entry) bool { n++; return true }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOneCountRunsOverAllStores(t *testing.T) {
	f := storagetest.FailAt(3, storage.ErrFull)
	l, c, k := f.Log(mem.NewLog()), f.Catalog(mem.NewCatalog()), f.Chunks(mem.NewChunks())
	if err := appendTo(t, l); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(t.Context(), "a", nil, storage.Any); err != nil {
		t.Fatal(err)
	}
	if f.Fired() {
		t.Error("fired after two operations")
	}
	if err := k.Write(t.Context(), 1, 1, nil); !errors.Is(err, storage.ErrFull) {
		t.Errorf("the third operation returned %v", err)
	}
	if all, err := k.Slices(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("slices %v, %v after a write that failed", all, err)
	}
	if err := k.Write(t.Context(), 1, 1, nil); err != nil {
		t.Errorf("a full disk is a pause: %v", err)
	}
	if !f.Fired() || f.Count() != 4 {
		t.Errorf("fired %v, count %d", f.Fired(), f.Count())
	}
}

func TestUnknownSticksToItsStore(t *testing.T) {
	for _, done := range []bool{false, true} {
		f := storagetest.NewFaults(storagetest.Plan{At: 2, Err: storage.ErrUnknown, Done: done})
		inner := mem.NewLog()
		l, other := f.Log(inner), f.Log(mem.NewLog())
		for i, want := range []error{nil, storage.ErrUnknown, storage.ErrUnknown} {
			if err := appendTo(t, l); !errors.Is(err, want) {
				t.Errorf("append %d: got %v, want %v", i, err, want)
			}
		}
		if err := l.Trim(t.Context(), 1); !errors.Is(err, storage.ErrUnknown) {
			t.Errorf("trim: %v", err)
		}
		if err := appendTo(t, other); err != nil {
			t.Errorf("another store: %v", err)
		}
		if n := groups(t, l); n != 1 {
			t.Errorf("%d groups can be seen, 1 is known to be durable", n)
		}
		stored := 1
		if done {
			stored = 2
		}
		if n := groups(t, inner); n != stored {
			t.Errorf("%d groups are stored, want %d", n, stored)
		}
	}
}

func TestBreakLastsUntilHeal(t *testing.T) {
	var f = storagetest.NewFaults(storagetest.Plan{})
	c := f.Catalog(mem.NewCatalog())
	f.Break(storage.ErrFull)
	for range 3 {
		if _, err := c.Put(t.Context(), "a", []byte("1"), storage.Any); !errors.Is(err, storage.ErrFull) {
			t.Errorf("put on a full disk: %v", err)
		}
	}
	if _, _, err := c.Get(t.Context(), "a"); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("reads go on, and nothing was written: %v", err)
	}
	f.Heal()
	if _, err := c.Put(t.Context(), "a", []byte("1"), storage.Any); err != nil {
		t.Error(err)
	}
}

func TestPutAllFailsHalfDone(t *testing.T) {
	inner := mem.NewCatalog()
	bulk := storagetest.FailAt(1, storage.ErrUnknown).Catalog(inner).(storage.BulkPutter)
	items := []storage.Item{{Key: "a"}, {Key: "b"}}
	for range 2 {
		if err := bulk.PutAll(t.Context(), items); !errors.Is(err, storage.ErrUnknown) {
			t.Errorf("put all: %v", err)
		}
	}
	if _, _, err := inner.Get(t.Context(), "a"); err != nil {
		t.Error(err)
	}
	if _, _, err := inner.Get(t.Context(), "b"); !errors.Is(err, storage.ErrNotFound) {
		t.Error(err)
	}
}

func TestReadsFailWhenTheyCount(t *testing.T) {
	f := storagetest.NewFaults(storagetest.Plan{At: 1, For: 6, Err: storage.ErrCorrupt, Reads: true})
	l, c, k := f.Log(mem.NewLog()), f.Catalog(mem.NewCatalog()), f.Chunks(mem.NewChunks())
	ctx := t.Context()
	_, _, get := c.Get(ctx, "a")
	_, block := k.Block(ctx, 1, storage.BlockKey{})
	_, slices := k.Slices(ctx)
	for name, err := range map[string]error{
		"read": l.Read(ctx, 0, func(storage.Entry) bool { return true }), "get": get, "block": block, "slices": slices,
		"list":   c.List(ctx, "", func(storage.Item) bool { return true }),
		"blocks": k.Blocks(ctx, 1, func(storage.BlockKey, int) bool { return true }),
	} {
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := appendTo(t, l); err != nil {
		t.Errorf("the plan is over: %v", err)
	}
}

func TestLatencyIsWaitedOutOrCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := storagetest.NewFaults(storagetest.Plan{Latency: time.Minute}).Log(mem.NewLog())
		start := time.Now()
		if err := appendTo(t, l); err != nil || time.Since(start) != time.Minute {
			t.Errorf("append took %v: %v", time.Since(start), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, err := l.Append(ctx, []byte("x"), l.Last()); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("append took %v: %v", time.Since(start), err)
		}
		if n := groups(t, l); n != 1 {
			t.Errorf("%d groups after one append and one cancelled one", n)
		}
	})
}
