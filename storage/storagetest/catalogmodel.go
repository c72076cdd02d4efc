package storagetest

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/storage"
)

// catalogModel is what a catalog should be: a map.
type catalogModel struct {
	t       testing.TB
	h       Harness[storage.Catalog]
	catalog storage.Catalog
	items   map[string]storage.Item
	newest  map[string]storage.Revision // the greatest revision that a key ever had
	count   uint64
}

var modelKeys = rapid.SampledFrom([]string{
	"a", "a/1", "a/2", "a/2/x", "b", "b/1", "dev/1", "dev/2", "dev/3", strings.Repeat("long", 100), "\xff", "\xff\xff",
})

// testCatalogModel draws random operations and checks the whole catalog after each of them.
func testCatalogModel(t *testing.T, h Harness[storage.Catalog]) {
	rapid.Check(t, func(r *rapid.T) {
		m := &catalogModel{t: t, h: h, catalog: h.Open(t),
			items: make(map[string]storage.Item), newest: make(map[string]storage.Revision)}
		defer func() { closeStore(t, m.catalog) }()
		r.Repeat(map[string]func(*rapid.T){
			"put": m.put, "delete": m.delete, "putAll": m.putAll, "reopen": m.reopen, "": m.check,
		})
	})
}

func (m *catalogModel) value(r *rapid.T) []byte {
	m.count++
	n := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(4000, 4200), rapid.IntRange(0, 20_000)).Draw(r, "size")
	return noise(m.count, n)
}

// expectation draws one that is right about half of the time.
func (m *catalogModel) expectation(r *rapid.T, key string) storage.Revision {
	have := m.items[key].Revision
	return rapid.SampledFrom([]storage.Revision{have, have, storage.Any, storage.Absent, have + 1, 1}).Draw(r, "expect")
}

func (m *catalogModel) fits(key string, expect storage.Revision) bool {
	return expect == storage.Any || expect == m.items[key].Revision
}

func (m *catalogModel) put(r *rapid.T) {
	key := modelKeys.Draw(r, "key")
	expect, value := m.expectation(r, key), m.value(r)
	rev, err := m.catalog.Put(m.t.Context(), key, value, expect)
	if !m.fits(key, expect) {
		if !errors.Is(err, storage.ErrConflict) {
			r.Fatalf("put %q that expects %d, not %d: %v", key, expect, m.items[key].Revision, err)
		}
		return
	}
	if err != nil {
		r.Fatalf("put %q: %v", key, err)
	}
	m.set(r, key, value, rev)
}

func (m *catalogModel) delete(r *rapid.T) {
	key := modelKeys.Draw(r, "key")
	expect := m.expectation(r, key)
	err := m.catalog.Delete(m.t.Context(), key, expect)
	switch {
	case !m.fits(key, expect) && !errors.Is(err, storage.ErrConflict):
		r.Fatalf("delete %q that expects %d, not %d: %v", key, expect, m.items[key].Revision, err)
	case m.fits(key, expect) && err != nil:
		r.Fatalf("delete %q: %v", key, err)
	case m.fits(key, expect):
		delete(m.items, key)
	}
}

func (m *catalogModel) putAll(r *rapid.T) {
	b, ok := m.catalog.(storage.BulkPutter)
	if !ok {
		r.Skip("not a BulkPutter")
	}
	var items []storage.Item
	for _, key := range rapid.SliceOfN(modelKeys, 0, 6).Draw(r, "keys") {
		items = append(items, storage.Item{Key: key, Value: m.value(r)})
	}
	if err := b.PutAll(m.t.Context(), items); err != nil {
		r.Fatalf("put all: %v", err)
	}
	for _, item := range items {
		m.items[item.Key] = item // a key may stand in items twice: the later value wins
	}
	for _, item := range items {
		_, rev, err := m.catalog.Get(m.t.Context(), item.Key)
		if err != nil {
			r.Fatalf("get %q after put all: %v", item.Key, err)
		}
		m.set(r, item.Key, m.items[item.Key].Value, rev)
	}
}

// set notes what a key has now. Its revision must be greater than any before, also across deletion.
func (m *catalogModel) set(r *rapid.T, key string, value []byte, rev storage.Revision) {
	if have := m.items[key].Revision; rev == have && have != 0 {
		return // seen already
	}
	if rev <= m.newest[key] || rev == storage.Any {
		r.Fatalf("%q has revision %d after %d", key, rev, m.newest[key])
	}
	m.newest[key] = rev
	m.items[key] = storage.Item{Key: key, Value: value, Revision: rev}
}

func (m *catalogModel) reopen(r *rapid.T) {
	if m.h.Reopen == nil {
		r.Skip("this store forgets")
	}
	m.catalog = m.h.Reopen(m.t, m.catalog)
}

func (m *catalogModel) check(r *rapid.T) {
	keys := slices.Sorted(maps.Keys(m.items))
	i := 0
	err := m.catalog.List(m.t.Context(), "", func(item storage.Item) bool {
		if i == len(keys) || item.Key != keys[i] {
			r.Fatalf("list yields %q at place %d", item.Key, i)
		}
		want := m.items[item.Key]
		if item.Revision != want.Revision || diff(item.Value, want.Value) != "" {
			r.Fatalf("list yields %q at revision %d, want %d: %s", item.Key, item.Revision, want.Revision, diff(item.Value, want.Value))
		}
		i++
		return true
	})
	if err != nil || i != len(keys) {
		r.Fatalf("list ended after %d of %d items: %v", i, len(keys), err)
	}
	key := modelKeys.Draw(r, "get")
	value, rev, err := m.catalog.Get(m.t.Context(), key)
	want, ok := m.items[key]
	if ok != (err == nil) || (!ok && !errors.Is(err, storage.ErrNotFound)) || rev != want.Revision || diff(value, want.Value) != "" {
		r.Fatalf("get %q: revision %d, %d bytes, %v; want revision %d", key, rev, len(value), err, want.Revision)
	}
}
