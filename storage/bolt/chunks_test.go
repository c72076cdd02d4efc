package bolt_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
	"telemetryhub/storage/storagetest"
)

// openChunks opens a folder that must be sound.
func openChunks(t testing.TB, dir string, opts bolt.ChunksOptions) *bolt.Chunks {
	t.Helper()
	c, err := bolt.OpenChunks(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d := c.Damage(); len(d) > 0 {
			t.Errorf("damage in a sound folder: %v", d)
		}
	})
	return c
}

func TestChunks(t *testing.T) {
	// Two files are fewer than the suite uses at once, so that they are closed and opened all the time.
	r := reopener[storage.Chunks]{open: func(t testing.TB, path string) storage.Chunks {
		return openChunks(t, path, bolt.ChunksOptions{OpenFiles: 2})
	}}
	dir := t.TempDir()
	var n atomic.Int32
	storagetest.RunChunks(t, storagetest.Harness[storage.Chunks]{
		Open:   func(t testing.TB) storage.Chunks { return r.at(t, filepath.Join(dir, fmt.Sprint(n.Add(1)))) },
		Reopen: r.again,
	})
}

// openFiles counts the slice files that this process has open.
func openFiles(t *testing.T, dir string) (n int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, dir) {
			n++
		}
	}
	return n
}

func TestIdleSliceFilesAreClosed(t *testing.T) {
	dir := t.TempDir()
	c := openChunks(t, dir, bolt.ChunksOptions{OpenFiles: 3})
	for s := range storage.Slice(10) {
		if err := c.Write(t.Context(), s, 1, [][]byte{[]byte("block")}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Block(t.Context(), s/2, storage.BlockKey{Flush: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if n := openFiles(t, dir); n == 0 || n > 3 {
		t.Errorf("%d files are open, want 1 to 3", n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if n := openFiles(t, dir); n != 0 {
		t.Errorf("%d files are open after Close", n)
	}
}

func TestSliceIsFullAtItsLimitAndGoesOn(t *testing.T) {
	c := openChunks(t, t.TempDir(), bolt.ChunksOptions{SliceBytes: 1 << 20})
	defer c.Close()
	block := make([]byte, 30_000)
	flush := uint64(0)
	for ; ; flush++ {
		err := c.Write(t.Context(), 1, flush, [][]byte{block, block})
		if errors.Is(err, storage.ErrFull) {
			break
		}
		if err != nil || flush > 20 {
			t.Fatalf("flush %d: %v", flush, err)
		}
	}
	if _, err := c.Block(t.Context(), 1, storage.BlockKey{Flush: flush}); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("what did not fit is there: %v", err)
	}
	if err := c.Write(t.Context(), 2, 0, [][]byte{block}); err != nil {
		t.Errorf("another slice: %v", err)
	}
	for f := range flush {
		if b, err := c.Block(t.Context(), 1, storage.BlockKey{Flush: f, Index: 1}); err != nil || len(b) != len(block) {
			t.Errorf("flush %d: %d bytes, %v", f, len(b), err)
		}
	}
	if err := c.Write(t.Context(), 1, flush/2, [][]byte{block}); err != nil {
		t.Errorf("replacing makes room: %v", err)
	}
	if err := c.Write(t.Context(), 1, flush/2+1, [][]byte{block}); err != nil {
		t.Errorf("writing on: %v", err)
	}
}

func TestReadOnlyChunksAreNotWritten(t *testing.T) {
	dir := t.TempDir()
	if _, err := bolt.OpenChunks(filepath.Join(dir, "missing"), bolt.ChunksOptions{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open of a missing folder: %v", err)
	}
	c := openChunks(t, dir, bolt.ChunksOptions{})
	if err := c.Write(t.Context(), 1, 1, [][]byte{[]byte("block")}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openChunks(t, dir, bolt.ChunksOptions{ReadOnly: true})
	defer c.Close()
	if b, err := c.Block(t.Context(), 1, storage.BlockKey{Flush: 1}); err != nil || string(b) != "block" {
		t.Errorf("block: %q, %v", b, err)
	}
	if err := c.Write(t.Context(), 1, 2, nil); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("write: %v", err)
	}
	if err := c.Drop(t.Context(), 1); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("drop: %v", err)
	}
}

func TestUnfinishedSliceFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"5.bolt.tmp": []byte("half"), "notes.txt": []byte("mine"), "07.bolt": {}, "x.bolt": {}} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := openChunks(t, dir, bolt.ChunksOptions{})
	defer c.Close()
	if s, err := c.Slices(t.Context()); err != nil || len(s) != 0 {
		t.Errorf("slices: %v, %v", s, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "5.bolt.tmp")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("temporary file: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "notes.txt")); err != nil {
		t.Errorf("a file that is not ours: %v", err)
	}
	if err := c.Write(t.Context(), 5, 1, [][]byte{[]byte("block")}); err != nil {
		t.Error(err)
	}
}
