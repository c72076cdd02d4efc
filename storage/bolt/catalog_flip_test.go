package bolt_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// flipCount is how many bits a flip test turns in all: TORTURE_FLIPS, or 500.
func flipCount(t testing.TB) int {
	t.Helper()
	s := os.Getenv("TORTURE_FLIPS")
	if s == "" {
		return 500
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("TORTURE_FLIPS: %v", err)
	}
	return n
}

// flipper draws bits of a database file so that every kind of page, and every part of a page, gets its share.
type flipper struct {
	r     *rand.Rand
	image []byte
	pages map[string][]int // page numbers by kind
	kinds []string
}

func newFlipper(image []byte, seed uint64) *flipper {
	f := &flipper{r: rand.New(rand.NewPCG(seed, 0)), image: image, pages: make(map[string][]int)}
	for id := 0; id < len(image)/4096; id++ {
		b := image[id*4096:]
		kind := "free or overflow"
		if le64(b) == uint64(id) {
			switch b[8] {
			case 1:
				kind = "branch"
			case 2:
				kind = "leaf"
			case 4:
				kind = "meta"
			case 16:
				kind = "freelist"
			}
		}
		f.pages[kind] = append(f.pages[kind], id)
	}
	f.kinds = slices.Sorted(maps.Keys(f.pages))
	return f
}

// draw returns the number of a bit and what it is part of.
func (f *flipper) draw() (bit int, what string) {
	kind := f.kinds[f.r.IntN(len(f.kinds))]
	id := f.pages[kind][f.r.IntN(len(f.pages[kind]))]
	count := int(f.image[id*4096+10]) | int(f.image[id*4096+11])<<8
	parts := []struct {
		name     string
		from, to int
	}{{"header", 0, 16}, {"table", 16, min(4096, 16+16*min(count, 255))}, {"rest", 0, 4096}}
	if kind == "meta" {
		parts[1].to, parts[2].to = 80, 80
	}
	part := parts[f.r.IntN(len(parts))]
	if part.to <= part.from || kind == "free or overflow" {
		part = parts[2]
	}
	at := id*4096 + part.from + f.r.IntN(part.to-part.from)
	return at*8 + f.r.IntN(8), kind + " page " + part.name
}

// flipped writes the image with one bit turned to a new file.
func (f *flipper) flipped(t testing.TB, path string, bit int) {
	t.Helper()
	image := slices.Clone(f.image)
	image[bit/8] ^= 1 << (bit % 8)
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
}

// buildCatalog makes a file with a past: small and large values, overwritten and deleted ones.
func buildCatalog(t testing.TB, path string) map[string]storage.Item {
	t.Helper()
	c := openCatalog(t, path)
	r := rand.New(rand.NewPCG(4, 2))
	items := make(map[string]storage.Item)
	for i := range 300 {
		var batch []storage.Item
		for range 1 + r.IntN(6) {
			value := make([]byte, r.IntN(600))
			if r.IntN(20) == 0 {
				value = make([]byte, 1000+r.IntN(20_000))
			}
			for j := range value {
				value[j] = byte(r.Uint32())
			}
			batch = append(batch, storage.Item{Key: fmt.Sprintf("device/%03d", r.IntN(500)), Value: value})
		}
		if err := c.PutAll(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			if err := c.Delete(t.Context(), fmt.Sprintf("device/%03d", r.IntN(500)), storage.Any); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.List(t.Context(), "", func(i storage.Item) bool { items[i.Key] = i; return true }); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return items
}

func TestFlippedBitsInTheCatalogAreFound(t *testing.T) {
	dir := fastDir(t)
	path := filepath.Join(dir, "sound.bolt")
	want := buildCatalog(t, path)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	f := newFlipper(readFile(t, path), seed)
	outcomes := make(map[string]int)
	for n := range (flipCount(t) + 1) / 2 {
		bit, what := f.draw()
		path := filepath.Join(dir, fmt.Sprintf("%d.bolt", n))
		f.flipped(t, path, bit)
		outcome, err := tryCatalog(t, path, want)
		if err != nil {
			t.Errorf("bit %d (%s, page %d): %v", bit, what, bit/8/4096, err)
		}
		outcomes[what+": "+outcome]++
		for _, left := range must2(filepath.Glob(path + "*")) {
			_ = os.Remove(left) // only to save space
		}
	}
	for _, o := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%5d %s", outcomes[o], o)
	}
}

func must2[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// tryCatalog opens a damaged catalog and says how it went. The error tells of a wrong value, or of a loss in silence.
func tryCatalog(t testing.TB, path string, want map[string]storage.Item) (outcome string, err error) {
	c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{})
	if err != nil {
		return "refused", fmt.Errorf("open: %w", err)
	}
	damages := c.Damage()
	defer func() { err = errors.Join(err, c.Close()) }()
	gone, err := compareCatalog(t, c, want)
	switch {
	case err != nil:
		return "wrong", fmt.Errorf("%w; reported: %v", err, damages)
	case len(damages) == 0 && gone > 0:
		return "silent", fmt.Errorf("%d items are gone and nothing was reported", gone)
	case len(damages) == 0:
		return "harmless", nil
	}
	if _, err := c.Put(t.Context(), "after", []byte("rescue"), storage.Absent); err != nil {
		return "stuck", err
	}
	if gone > 0 {
		return fmt.Sprintf("rescued but for %d", gone), nil
	}
	return "rescued", nil
}

// compareCatalog counts what is gone. Whatever is there must be right.
func compareCatalog(t testing.TB, c storage.Catalog, want map[string]storage.Item) (gone int, err error) {
	for key, item := range want {
		value, rev, err := c.Get(t.Context(), key)
		switch {
		case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrCorrupt):
			gone++
		case err != nil:
			return gone, err
		case string(value) != string(item.Value) || rev != item.Revision:
			return gone, fmt.Errorf("get %q returns another value", key)
		}
	}
	var wrong error
	err = c.List(t.Context(), "", func(item storage.Item) bool {
		if w, ok := want[item.Key]; !ok || string(w.Value) != string(item.Value) || w.Revision != item.Revision {
			wrong = fmt.Errorf("list yields %q with another value", item.Key)
		}
		return wrong == nil
	})
	if errors.Is(err, storage.ErrCorrupt) && gone > 0 {
		err = nil
	}
	return gone, errors.Join(wrong, err)
}
