package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// A page that cannot be read any more while the file is in use is a fault inside the memory map. Cutting the file makes
// one.
func TestUnreadablePagesAreErrorsAndNotTheEnd(t *testing.T) {
	dir := t.TempDir()
	c := openCatalog(t, filepath.Join(dir, "catalog.bolt"))
	k, err := bolt.OpenChunks(dir, bolt.ChunksOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if _, err := c.Put(t.Context(), fmt.Sprintf("k/%03d", i), make([]byte, 900), storage.Any); err != nil {
			t.Fatal(err)
		}
	}
	for f := range uint64(20) {
		if err := k.Write(t.Context(), 1, f, [][]byte{make([]byte, 9000)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"catalog.bolt", "1.bolt"} {
		if err := os.Truncate(filepath.Join(dir, name), 3*4096); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := c.Get(t.Context(), "k/100"); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("get: %v", err)
	}
	if err := c.List(t.Context(), "", func(storage.Item) bool { return true }); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("list: %v", err)
	}
	if _, err := c.Put(t.Context(), "k/100", nil, storage.Any); err == nil {
		t.Error("put into a catalog that cannot be read")
	}
	if _, err := c.Put(t.Context(), "k/100", nil, storage.Any); err == nil {
		t.Error("second put")
	}
	if _, err := k.Block(t.Context(), 1, storage.BlockKey{Flush: 3}); !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("block: %v", err)
	}
	if len(k.Damage()) == 0 {
		t.Error("the damage of the slice was not reported")
	}
	if err := k.Write(t.Context(), 2, 1, [][]byte{[]byte("other slice")}); err != nil {
		t.Errorf("another slice: %v", err)
	}
	if err := errors.Join(c.Close(), k.Close()); err != nil {
		t.Error(err)
	}
}

// Close under load: whatever was acknowledged is there, everything else has failed with ErrClosed.
func TestChunksCloseWaitsForWriters(t *testing.T) {
	dir := t.TempDir()
	k := openChunks(t, dir, bolt.ChunksOptions{OpenFiles: 2})
	acked := make([]uint64, 4)
	var wg, started sync.WaitGroup
	started.Add(len(acked))
	for w := range acked {
		s := storage.Slice(w)
		wg.Go(func() {
			for f := uint64(0); ; f++ {
				err := k.Write(t.Context(), s, f, [][]byte{[]byte("block")})
				if f == 0 {
					started.Done()
				}
				if err == nil {
					_, err = k.Block(t.Context(), s, storage.BlockKey{Flush: f})
					acked[w] = f + 1
				}
				if err != nil {
					if !errors.Is(err, storage.ErrClosed) {
						t.Errorf("while closing: %v", err)
					}
					return
				}
			}
		})
	}
	started.Wait()
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	k = openChunks(t, dir, bolt.ChunksOptions{})
	defer k.Close()
	for w, n := range acked {
		flushes := uint64(0)
		err := k.Blocks(t.Context(), storage.Slice(w), func(storage.BlockKey, int) bool { flushes++; return true })
		if err != nil || flushes != n {
			t.Errorf("slice %d has %d flushes, %d were acknowledged: %v", w, flushes, n, err)
		}
	}
}

// A slice that is dropped while others read and write it is there or not, and never anything between.
func TestDropBesideReadersAndWriters(t *testing.T) {
	k := openChunks(t, t.TempDir(), bolt.ChunksOptions{OpenFiles: 1})
	defer k.Close()
	block := bytes.Repeat([]byte("block"), 3000)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				b, err := k.Block(t.Context(), 1, storage.BlockKey{})
				if err == nil && !bytes.Equal(b, block) || err != nil && !errors.Is(err, storage.ErrNotFound) {
					t.Errorf("%d bytes, %v", len(b), err)
					return
				}
			}
		})
	}
	for range 30 {
		if err := k.Write(t.Context(), 1, 0, [][]byte{block}); err != nil {
			t.Fatal(err)
		}
		if err := k.Write(t.Context(), 2, 0, [][]byte{block}); err != nil {
			t.Fatal(err)
		}
		if err := k.Drop(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	if all, err := k.Slices(t.Context()); err != nil || len(all) != 1 || all[0] != 2 {
		t.Errorf("slices %v, %v", all, err)
	}
}
