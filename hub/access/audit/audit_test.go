package audit_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"telemetryhub/hub/access/audit"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/storagetest"
)

func open(t *testing.T, catalog storage.Catalog, opts audit.Options) *audit.Log {
	t.Helper()
	l, err := audit.Open(t.Context(), catalog, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func record(t *testing.T, l *audit.Log, what string) {
	t.Helper()
	err := l.Record(t.Context(), audit.Entry{Who: "alice", Credential: "c1", What: what, Target: "pi-1", Detail: "d"})
	if err != nil {
		t.Fatal(err)
	}
}

// deeds lists the whole log in pages, newest first.
func deeds(t *testing.T, l *audit.Log, page int) string {
	t.Helper()
	var all []string
	for before := ""; ; {
		list, err := l.List(t.Context(), before, page)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return strings.Join(all, " ")
		}
		for _, e := range list {
			if all = append(all, e.What); e.Damaged {
				all[len(all)-1] = "damaged"
			}
			before = e.ID
		}
	}
}

func TestEntriesComeBackNewestFirst(t *testing.T) {
	catalog := mem.NewCatalog()
	now := time.UnixMilli(1_760_000_000_123)
	opts := audit.Options{Now: func() time.Time { return now }}
	l := open(t, catalog, opts)
	for i := range 7 {
		if i == 3 {
			now = now.Add(time.Second)
		}
		record(t, l, fmt.Sprint("w", i))
	}
	for _, page := range []int{-1, 1, 2, 3, 7, 1000, 1 << 30} {
		if got := deeds(t, l, page); got != "w6 w5 w4 w3 w2 w1 w0" {
			t.Errorf("pages of %d: %s", page, got)
		}
	}
	l = open(t, catalog.Reopen(), opts)
	list, err := l.List(t.Context(), "", 1)
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	want := audit.Entry{ID: "001760000001123-000003", At: now, Who: "alice", Credential: "c1", What: "w6",
		Target: "pi-1", Detail: "d"}
	if got := list[0]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for _, id := range []string{"x", "1-1", "001760000001123-00003", "001760000001123-000003 ", "-00000000000001-000001"} {
		if _, err := l.List(t.Context(), id, 1); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("before %q: got %v", id, err)
		}
	}
}

func TestOrderHoldsWhenTheClockIsSetBack(t *testing.T) {
	catalog := mem.NewCatalog()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	opts := audit.Options{Now: func() time.Time { return now }}
	l := open(t, catalog, opts)
	record(t, l, "first")
	now = now.AddDate(-10, 0, 0)
	record(t, l, "second")
	l = open(t, catalog.Reopen(), opts)
	record(t, l, "third")
	if got := deeds(t, l, 2); got != "third second first" {
		t.Errorf("got %s", got)
	}
	list, err := l.List(t.Context(), "", 1)
	if err != nil || !list[0].At.Equal(now) {
		t.Errorf("the entry must tell what the clock said, got %+v, %v", list, err)
	}
}

func TestTheOldestEntriesAreRemoved(t *testing.T) {
	catalog := mem.NewCatalog()
	l := open(t, catalog, audit.Options{Max: 3})
	for i := range 10 {
		record(t, l, fmt.Sprint("w", i))
	}
	if got := deeds(t, l, 2); got != "w9 w8 w7" {
		t.Errorf("got %s", got)
	}
	catalog = catalog.Reopen()
	l = open(t, catalog, audit.Options{Max: 1})
	record(t, l, "last")
	if got := deeds(t, l, 2); got != "last" {
		t.Errorf("with a smaller maximum: %s", got)
	}
	n := 0
	if err := catalog.List(t.Context(), "", func(storage.Item) bool { n++; return true }); err != nil || n != 1 {
		t.Errorf("%d keys are left, %v", n, err)
	}
	if _, err := audit.Open(t.Context(), catalog, audit.Options{Max: -1}); err == nil {
		t.Error("a negative maximum was taken")
	}
}

func TestDamagedEntriesKeepTheirPlace(t *testing.T) {
	catalog := mem.NewCatalog()
	l := open(t, catalog, audit.Options{})
	for i := range 3 {
		record(t, l, fmt.Sprint("w", i))
	}
	list, err := l.List(t.Context(), "", 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"not JSON", `{"v":2,"what":"from a newer program"}`} {
		if _, err := catalog.Put(t.Context(), "audit/"+list[i].ID, []byte(text), storage.Any); err != nil {
			t.Fatal(err)
		}
	}
	if got := deeds(t, l, 1); got != "damaged damaged w0" {
		t.Errorf("got %s", got)
	}
}

func TestFailedEntriesAreReportedAndLeaveNoHole(t *testing.T) {
	for n := 1; ; n++ {
		f := storagetest.FailAt(n, storage.ErrFull)
		catalog := mem.NewCatalog()
		l := open(t, f.Catalog(catalog), audit.Options{Max: 2})
		for i := range 4 {
			what := fmt.Sprint("w", i)
			err := l.Record(t.Context(), audit.Entry{Who: "alice", What: what})
			if err != nil && !errors.Is(err, storage.ErrFull) {
				t.Fatal(err)
			}
			if newest, _, _ := strings.Cut(deeds(t, l, 10), " "); (newest == what) != (err == nil) {
				t.Errorf("operation %d fails: newest is %s after %s was recorded with %v", n, newest, what, err)
			}
		}
		l = open(t, catalog, audit.Options{Max: 2})
		record(t, l, "last") // removes what could not be removed before
		if got := len(strings.Fields(deeds(t, l, 1))); got != 2 {
			t.Errorf("operation %d fails: %d entries are left, want 2", n, got)
		}
		if !f.Fired() {
			return
		}
	}
}

func TestManyWritersLoseNothing(t *testing.T) {
	catalog := mem.NewCatalog()
	now := time.UnixMilli(1_760_000_000_123)
	opts := audit.Options{Now: func() time.Time { return now }}
	logs := []*audit.Log{open(t, catalog, opts), open(t, catalog, opts)} // two hubs on one catalog
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				if err := logs[i%2].Record(t.Context(), audit.Entry{Who: "w", What: fmt.Sprint(i, ".", j)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := len(strings.Fields(deeds(t, open(t, catalog, opts), 7))); got != 200 {
		t.Errorf("%d entries, want 200", got)
	}
}

func TestLongTextsAreCut(t *testing.T) {
	l := open(t, mem.NewCatalog(), audit.Options{})
	long := audit.Entry{Who: strings.Repeat("ä", 400), What: "a\xffb", Target: strings.Repeat("x", 1<<20)}
	if err := l.Record(t.Context(), long); err != nil {
		t.Fatal(err)
	}
	list, err := l.List(t.Context(), "", 1)
	if err != nil || list[0].Who != strings.Repeat("ä", 256) || list[0].What != "a\uFFFDb" || len(list[0].Target) != 512 {
		t.Errorf("got %+v, %v", list, err)
	}
}
