package storagetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"telemetryhub/storage"
)

// RunCatalog runs the conformance suite for storage.Catalog, and for storage.BulkPutter where a catalog is one.
func RunCatalog(t *testing.T, h Harness[storage.Catalog]) {
	suite(t, h, map[string]func(*testing.T, Harness[storage.Catalog]){
		"ValuesComeBack":              testCatalogValues,
		"ExpectationsAreChecked":      testCatalogExpect,
		"RevisionsGrowAcrossDeletion": testCatalogRevisions,
		"TooLargeWritesNothing":       testCatalogTooLarge,
		"CancelledWritesNothing":      testCatalogCancelled,
		"ValuesAreCopies":             testCatalogAliasing,
		"ListIsOrderedAndPrefixed":    testCatalogList,
		"ChangesInsideYield":          testCatalogPutInYield,
		"PutAllStoresAll":             testCatalogPutAll,
		"ClosedRefuses":               testCatalogClosed,
		"ReopenFindsEverything":       testCatalogReopen,
		"CompareAndSetCountsExactly":  testCatalogConcurrent,
		"CloseWaitsForWriters":        testCatalogCloseRace,
		"FailsExactlyHere":            testCatalogFaults,
		"AgreesWithModel":             testCatalogModel,
	})
}

func put(t testing.TB, c storage.Catalog, key string, value []byte, expect storage.Revision) storage.Revision {
	t.Helper()
	rev, err := c.Put(t.Context(), key, value, expect)
	must(t, "put "+key, err)
	if rev == storage.Absent || rev == storage.Any {
		t.Fatalf("put %s returned the reserved revision %d", key, rev)
	}
	return rev
}

func wantValue(t testing.TB, c storage.Catalog, key string, value []byte, rev storage.Revision) {
	t.Helper()
	got, gotRev, err := c.Get(t.Context(), key)
	if err != nil {
		t.Errorf("get %q: %v", key, err)
		return
	}
	if d := diff(got, value); d != "" {
		t.Errorf("get %q: %s", key, d)
	}
	if gotRev != rev {
		t.Errorf("get %q: got revision %d, want %d", key, gotRev, rev)
	}
}

func wantAbsent(t testing.TB, c storage.Catalog, key string) {
	t.Helper()
	_, _, err := c.Get(t.Context(), key)
	wantError(t, "get "+key, err, storage.ErrNotFound)
}

func listAll(t testing.TB, c storage.Catalog, prefix string) []storage.Item {
	t.Helper()
	var items []storage.Item
	err := c.List(t.Context(), prefix, func(i storage.Item) bool {
		items = append(items, i)
		return true
	})
	must(t, "list", err)
	return items
}

func testCatalogValues(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	wantAbsent(t, c, "nothing")
	revs := make(map[string]storage.Revision)
	values := make(map[string][]byte)
	for i, n := range []int{0, 1, 17, 4000, 4096, 70_000, storage.MaxValue} {
		key := fmt.Sprintf("size/%d", n)
		values[key] = noise(uint64(i), n)
		revs[key] = put(t, c, key, values[key], storage.Absent)
	}
	for _, key := range []string{"\x00", "\xff\xff", "ä/\n", strings.Repeat("k", storage.MaxKey)} {
		values[key] = []byte(key)
		revs[key] = put(t, c, key, values[key], storage.Any)
	}
	for key, value := range values {
		wantValue(t, c, key, value, revs[key])
	}
	wantAbsent(t, c, "size/")
	wantAbsent(t, c, "size/00")
}

func testCatalogExpect(t *testing.T, h Harness[storage.Catalog]) {
	c, ctx := h.open(t), t.Context()
	_, err := c.Put(ctx, "a", []byte("1"), 1)
	wantError(t, "put that expects a revision of an absent key", err, storage.ErrConflict)
	wantError(t, "delete that expects a revision of an absent key", c.Delete(ctx, "a", 1), storage.ErrConflict)
	wantError(t, "delete of an absent key", c.Delete(ctx, "a", storage.Any), nil)
	wantError(t, "delete of a key that should be absent and is", c.Delete(ctx, "a", storage.Absent), nil)
	r1 := put(t, c, "a", []byte("1"), storage.Absent)
	r2 := put(t, c, "a", []byte("2"), r1)
	for _, expect := range []storage.Revision{storage.Absent, r1, r2 + 1} {
		_, err := c.Put(ctx, "a", []byte("x"), expect)
		wantError(t, fmt.Sprintf("put that expects %d, not %d", expect, r2), err, storage.ErrConflict)
		wantError(t, "delete with the same", c.Delete(ctx, "a", expect), storage.ErrConflict)
	}
	wantValue(t, c, "a", []byte("2"), r2)
	r3 := put(t, c, "a", []byte("3"), storage.Any)
	wantValue(t, c, "a", []byte("3"), r3)
	wantError(t, "delete", c.Delete(ctx, "a", r3), nil)
	wantAbsent(t, c, "a")
}

func testCatalogRevisions(t *testing.T, h Harness[storage.Catalog]) {
	c, ctx := h.open(t), t.Context()
	var last storage.Revision
	for range 4 {
		r := put(t, c, "a", []byte("same"), storage.Absent)
		if r <= last {
			t.Errorf("re-created with revision %d after %d", r, last)
		}
		last = put(t, c, "a", []byte("same"), r)
		if last <= r {
			t.Errorf("revision %d after %d, though the value is the same", last, r)
		}
		wantError(t, "delete", c.Delete(ctx, "a", last), nil)
		if h.Reopen != nil {
			c = h.reopen(t, c) // the revisions must grow across this too
		}
		_, err := c.Put(ctx, "a", []byte("x"), last)
		wantError(t, "put that expects the revision of a deleted value", err, storage.ErrConflict)
	}
}

func testCatalogTooLarge(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	long := strings.Repeat("k", storage.MaxKey+1)
	for _, key := range []string{"", long} {
		_, err := c.Put(t.Context(), key, []byte("x"), storage.Any)
		wantError(t, fmt.Sprintf("put a key of %d bytes", len(key)), err, storage.ErrTooLarge)
		wantAbsent(t, c, key)
		wantError(t, "delete it", c.Delete(t.Context(), key, storage.Any), nil)
	}
	_, err := c.Put(t.Context(), "a", make([]byte, storage.MaxValue+1), storage.Any)
	wantError(t, "put a value over the limit", err, storage.ErrTooLarge)
	if b, ok := c.(storage.BulkPutter); ok {
		err := b.PutAll(t.Context(), []storage.Item{{Key: "a"}, {Key: long}})
		wantError(t, "put all with a key over the limit", err, storage.ErrTooLarge)
	}
	if items := listAll(t, c, ""); len(items) != 0 {
		t.Errorf("%d items were stored", len(items))
	}
}

func testCatalogCancelled(t *testing.T, h Harness[storage.Catalog]) {
	c, ctx := h.open(t), cancelled(t)
	r := put(t, c, "a", []byte("1"), storage.Any)
	_, err := c.Put(ctx, "a", []byte("2"), storage.Any)
	wantError(t, "put", err, ctx.Err())
	wantError(t, "delete", c.Delete(ctx, "a", storage.Any), ctx.Err())
	_, _, err = c.Get(ctx, "a")
	wantError(t, "get", err, ctx.Err())
	wantError(t, "list", c.List(ctx, "", func(storage.Item) bool { return true }), ctx.Err())
	if b, ok := c.(storage.BulkPutter); ok {
		wantError(t, "put all", b.PutAll(ctx, []storage.Item{{Key: "a"}}), ctx.Err())
	}
	wantValue(t, c, "a", []byte("1"), r)
}

func testCatalogAliasing(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	value := noise(1, 5000)
	mine := append([]byte{}, value...)
	r := put(t, c, "a", mine, storage.Any)
	clear(mine)
	got, _, err := c.Get(t.Context(), "a")
	must(t, "get", err)
	clear(got)
	for _, item := range listAll(t, c, "") {
		clear(item.Value)
	}
	wantValue(t, c, "a", value, r)
}

func testCatalogList(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	keys := []string{"a", "a/", "a/1", "a/10", "a/2", "a/\xff", "a0", "b", "\xff", "\xff\xff", "\xff\xffx"} // in byte order
	revs := make(map[string]storage.Revision)
	for i := range keys {
		key := keys[(i*7)%len(keys)]
		revs[key] = put(t, c, key, []byte("value of "+key), storage.Absent)
	}
	for _, prefix := range []string{"", "a", "a/", "a/1", "c", "\xff", "\xff\xff", "\xff\xff\xff"} {
		var want []string
		for _, key := range keys {
			if strings.HasPrefix(key, prefix) {
				want = append(want, key)
			}
		}
		items := listAll(t, c, prefix)
		for i, item := range items {
			if i >= len(want) || item.Key != want[i] || string(item.Value) != "value of "+item.Key || item.Revision != revs[item.Key] {
				t.Errorf("list %q: item %d is %q = %q at %d", prefix, i, item.Key, item.Value, item.Revision)
			}
		}
		if len(items) != len(want) {
			t.Errorf("list %q: got %d items, want %d", prefix, len(items), len(want))
		}
	}
	calls := 0
	err := c.List(t.Context(), "a", func(storage.Item) bool { calls++; return calls < 3 })
	wantError(t, "list", err, nil)
	if calls != 3 {
		t.Errorf("yield was called %d times after it returned false at call 3", calls)
	}
}

// testCatalogPutInYield hangs if List holds a lock while it yields.
func testCatalogPutInYield(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	for i := range 50 {
		put(t, c, fmt.Sprintf("a/%02d", i), []byte("old"), storage.Any)
	}
	seen := 0
	err := c.List(t.Context(), "a/", func(item storage.Item) bool {
		seen++
		put(t, c, item.Key, []byte("new"), item.Revision)
		put(t, c, "b/"+item.Key, []byte("new"), storage.Absent)
		return true
	})
	wantError(t, "list", err, nil)
	if items := listAll(t, c, ""); seen != 50 || len(items) != 100 {
		t.Errorf("list yielded %d items, want 50, and %d are there, want 100", seen, len(items))
	}
}

func testCatalogPutAll(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	b, ok := c.(storage.BulkPutter)
	if !ok {
		t.Skip("not a BulkPutter")
	}
	before := put(t, c, "k/0003", []byte("old"), storage.Any)
	var items []storage.Item
	for i := range 1000 {
		items = append(items, storage.Item{Key: fmt.Sprintf("k/%04d", i), Value: noise(uint64(i), i), Revision: 77})
	}
	items = append(items, storage.Item{Key: "k/0000", Value: []byte("later wins")})
	must(t, "put all", b.PutAll(t.Context(), items))
	must(t, "put nothing", b.PutAll(t.Context(), nil))
	items[0].Value = []byte("later wins")
	if h.Reopen != nil {
		c = h.reopen(t, c)
	}
	got := listAll(t, c, "k/")
	if len(got) != 1000 {
		t.Fatalf("got %d items, want 1000", len(got))
	}
	seen := make(map[storage.Revision]bool)
	for i, item := range got {
		if item.Key != items[i].Key || diff(item.Value, items[i].Value) != "" || item.Revision <= before {
			t.Errorf("item %d is %q at %d: %s", i, item.Key, item.Revision, diff(item.Value, items[i].Value))
		}
		seen[item.Revision] = true
	}
}

func testCatalogClosed(t *testing.T, h Harness[storage.Catalog]) {
	c, ctx := h.open(t), t.Context()
	put(t, c, "a", nil, storage.Any)
	wantError(t, "close", c.Close(), nil)
	_, err := c.Put(ctx, "a", nil, storage.Any)
	wantError(t, "put after close", err, storage.ErrClosed)
	wantError(t, "delete after close", c.Delete(ctx, "a", storage.Any), storage.ErrClosed)
	_, _, err = c.Get(ctx, "a")
	wantError(t, "get after close", err, storage.ErrClosed)
	wantError(t, "list after close", c.List(ctx, "", func(storage.Item) bool { return true }), storage.ErrClosed)
	if b, ok := c.(storage.BulkPutter); ok {
		wantError(t, "put all after close", b.PutAll(ctx, []storage.Item{{Key: "a"}}), storage.ErrClosed)
	}
}

func testCatalogReopen(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	revs := make(map[string]storage.Revision)
	for i := range 300 {
		key := fmt.Sprintf("k/%d", i%200)
		revs[key] = put(t, c, key, noise(uint64(i%200), i%200*31), storage.Any)
	}
	for i := 0; i < 200; i += 3 {
		key := fmt.Sprintf("k/%d", i)
		must(t, "delete", c.Delete(t.Context(), key, revs[key]))
		delete(revs, key)
	}
	c = h.reopen(t, c)
	for i := range 200 {
		key := fmt.Sprintf("k/%d", i)
		if rev, ok := revs[key]; ok {
			wantValue(t, c, key, noise(uint64(i), i*31), rev)
		} else {
			wantAbsent(t, c, key)
		}
	}
	if items := listAll(t, c, ""); len(items) != len(revs) {
		t.Errorf("got %d items, want %d", len(items), len(revs))
	}
}

// testCatalogConcurrent lets many goroutines count up shared and own keys by compare-and-set: no count may get lost.
func testCatalogConcurrent(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	const workers, rounds = 16, 8
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for range rounds {
				for _, key := range []string{"shared", fmt.Sprintf("own/%d", w)} {
					if err := increment(t, c, key); err != nil {
						t.Errorf("count up %s: %v", key, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	counts := make(map[string]int)
	for _, item := range listAll(t, c, "") {
		counts[item.Key] = len(item.Value)
	}
	if counts["shared"] != workers*rounds || len(counts) != workers+1 {
		t.Errorf("the shared count is %d, want %d; %d keys, want %d", counts["shared"], workers*rounds, len(counts), workers+1)
	}
	for w := range workers {
		if n := counts[fmt.Sprintf("own/%d", w)]; n != rounds {
			t.Errorf("count %d is %d, want %d", w, n, rounds)
		}
	}
}

// increment makes the value one byte longer.
func increment(t testing.TB, c storage.Catalog, key string) error {
	for {
		value, rev, err := c.Get(t.Context(), key)
		if err != nil && !errors.Is(err, storage.ErrNotFound) {
			return err
		}
		_, err = c.Put(t.Context(), key, append(value, '+'), rev)
		if !errors.Is(err, storage.ErrConflict) {
			return err
		}
	}
}

// testCatalogCloseRace closes under load: what was acknowledged must be there, whatever was not must have failed clearly.
func testCatalogCloseRace(t *testing.T, h Harness[storage.Catalog]) {
	c := h.open(t)
	const workers = 8
	acked := make([]int, workers)
	started := make(chan struct{}, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := 0; ; i++ {
				_, err := c.Put(t.Context(), fmt.Sprintf("%d/%04d", w, i), []byte("x"), storage.Absent)
				if i == 0 {
					started <- struct{}{}
				}
				if err != nil {
					wantError(t, "put while closing", err, storage.ErrClosed)
					return
				}
				acked[w]++
			}
		})
	}
	for range workers {
		<-started
	}
	must(t, "close", c.Close())
	wg.Wait()
	c = h.reopen(t, c)
	for w, n := range acked {
		if got := len(listAll(t, c, fmt.Sprintf("%d/", w))); got != n {
			t.Errorf("worker %d: %d keys are there, %d were acknowledged", w, got, n)
		}
	}
}
