package bolt_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

const flipSlice storage.Slice = 20_000

// buildSlice makes a slice file with a past: flushes of all sizes, some written again.
func buildSlice(t testing.TB, dir string) map[storage.BlockKey]string {
	t.Helper()
	c := openChunks(t, dir, bolt.ChunksOptions{})
	r := rand.New(rand.NewPCG(7, 7))
	want := make(map[storage.BlockKey]string)
	for n, flush := 0, uint64(1); n < 36; n, flush = n+1, flush+1 {
		if n == 25 {
			flush = 18 // interrupted: written again from here
			maps.DeleteFunc(want, func(k storage.BlockKey, _ string) bool { return k.Flush >= 18 })
		}
		var blocks [][]byte
		for i := range r.IntN(12) {
			block := make([]byte, []int{r.IntN(300), r.IntN(5000), r.IntN(30_000)}[r.IntN(3)])
			for j := range block {
				block[j] = byte(r.Uint32())
			}
			blocks = append(blocks, block)
			want[storage.BlockKey{Flush: flush, Index: uint32(i)}] = string(block)
		}
		if err := c.Write(t.Context(), flipSlice, flush, blocks); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return want
}

func TestFlippedBitsInASliceAreFound(t *testing.T) {
	dir := fastDir(t)
	name := fmt.Sprintf("%d.bolt", flipSlice)
	want := buildSlice(t, filepath.Join(dir, "sound"))
	seed := rand.Uint64()
	t.Logf("seed %d, %d blocks", seed, len(want))
	f := newFlipper(readFile(t, filepath.Join(dir, "sound", name)), seed)
	outcomes := make(map[string]int)
	for n := range flipCount(t) / 2 {
		bit, what := f.draw()
		dir := filepath.Join(dir, fmt.Sprint(n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		f.flipped(t, filepath.Join(dir, name), bit)
		outcome, err := trySlice(t, dir, want, n%2 == 0)
		if err != nil {
			t.Errorf("bit %d (%s, page %d, written to: %v): %v", bit, what, bit/8/4096, n%2 == 0, err)
		}
		outcomes[what+": "+outcome]++
		_ = os.RemoveAll(dir) // only to save space
	}
	for _, o := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%5d %s", outcomes[o], o)
	}
}

// trySlice reads a damaged slice, perhaps after writing to it, and says how it went. The error tells of a wrong block, or
// of a loss in silence.
func trySlice(t testing.TB, dir string, want map[storage.BlockKey]string, writing bool) (outcome string, err error) {
	c, err := bolt.OpenChunks(dir, bolt.ChunksOptions{})
	if err != nil {
		return "refused", fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	want = maps.Clone(want)
	if writing {
		if err := c.Write(t.Context(), flipSlice, 1000, [][]byte{[]byte("new")}); err != nil {
			return "stuck", err
		}
		want[storage.BlockKey{Flush: 1000}] = "new"
	}
	first, err := compareSlice(t, c, want)
	if err != nil {
		return "wrong", err
	}
	damage := c.Damage()
	if first > 0 && len(damage) == 0 {
		return "silent", fmt.Errorf("%d blocks are gone and nothing was reported", first)
	}
	if err := c.Close(); err != nil {
		return "stuck", err
	}
	if c, err = bolt.OpenChunks(dir, bolt.ChunksOptions{}); err != nil {
		return "stuck", err
	}
	again, err := compareSlice(t, c, want)
	switch {
	case err != nil || again != first:
		return "unsteady", fmt.Errorf("%d blocks are gone after reopening, %d before: %w", again, first, err)
	case len(damage) > 0 && len(c.Damage()) > 0:
		return "unsteady", fmt.Errorf("%v was reported, and after reopening %v", damage, c.Damage())
	case len(damage) == 0:
		return "harmless", nil
	case first > 0:
		return fmt.Sprintf("rescued but for %d", first), nil
	}
	return "rescued", nil
}

// compareSlice counts the blocks that are gone, all of which must be told by an error. Whatever is there must be right.
func compareSlice(t testing.TB, c storage.Chunks, want map[storage.BlockKey]string) (gone int, err error) {
	listed := make(map[storage.BlockKey]bool)
	var wrong error
	list := c.Blocks(t.Context(), flipSlice, func(key storage.BlockKey, size int) bool {
		listed[key] = true
		block, err := c.Block(t.Context(), flipSlice, key)
		switch w, ok := want[key]; {
		case !ok:
			wrong = fmt.Errorf("block %v was never written", key)
		case errors.Is(err, storage.ErrCorrupt):
		case err != nil:
			wrong = err
		case string(block) != w || size != len(w):
			wrong = fmt.Errorf("block %v is another one", key)
		}
		return wrong == nil
	})
	if wrong != nil {
		return 0, wrong
	}
	if list != nil && !errors.Is(list, storage.ErrCorrupt) {
		return 0, list
	}
	for key, w := range want {
		block, err := c.Block(t.Context(), flipSlice, key)
		if err == nil && string(block) != w {
			return 0, fmt.Errorf("block %v is another one", key)
		}
		if err != nil {
			gone++
		}
		if err != nil && !errors.Is(err, storage.ErrCorrupt) && list == nil {
			return 0, fmt.Errorf("block %v is gone in silence: %w", key, err)
		}
		if err == nil && !listed[key] && list == nil {
			return 0, fmt.Errorf("block %v is there but not listed", key)
		}
	}
	return gone, nil
}
