package bolt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
	"telemetryhub/storage/storagetest"
)

// openCatalog opens a catalog that must be sound.
func openCatalog(t testing.TB, path string) *bolt.Catalog {
	t.Helper()
	c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if d := c.Damage(); len(d) > 0 {
		t.Errorf("damage in a sound file: %v", d)
	}
	return c
}

// reopener opens the same path again after a close.
type reopener[S any] struct {
	mu    sync.Mutex
	paths map[any]string
	open  func(t testing.TB, path string) S
}

func (r *reopener[S]) at(t testing.TB, path string) S {
	s := r.open(t, path)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths == nil {
		r.paths = make(map[any]string)
	}
	r.paths[s] = path
	return s
}

func (r *reopener[S]) again(t testing.TB, s S) S {
	r.mu.Lock()
	path := r.paths[s]
	r.mu.Unlock()
	if err := any(s).(interface{ Close() error }).Close(); err != nil {
		t.Fatal(err)
	}
	return r.at(t, path)
}

func TestCatalog(t *testing.T) {
	r := reopener[storage.Catalog]{open: func(t testing.TB, path string) storage.Catalog { return openCatalog(t, path) }}
	dir := t.TempDir()
	n := 0
	storagetest.RunCatalog(t, storagetest.Harness[storage.Catalog]{
		Open: func(t testing.TB) storage.Catalog {
			r.mu.Lock()
			n++
			path := filepath.Join(dir, fmt.Sprintf("%d.bolt", n))
			r.mu.Unlock()
			return r.at(t, path)
		},
		Reopen: r.again,
	})
}

func TestCatalogIsFullAtItsLimitAndGoesOn(t *testing.T) {
	c, err := bolt.OpenCatalog(filepath.Join(t.TempDir(), "catalog.bolt"), bolt.CatalogOptions{MaxBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var stored []string
	for i := 0; ; i++ {
		key := fmt.Sprintf("k/%04d", i)
		_, err := c.Put(t.Context(), key, make([]byte, 10_000), storage.Absent)
		if errors.Is(err, storage.ErrFull) {
			break
		}
		if err != nil || i > 200 {
			t.Fatalf("put %d: %v", i, err)
		}
		stored = append(stored, key)
	}
	if _, _, err := c.Get(t.Context(), fmt.Sprintf("k/%04d", len(stored))); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("what did not fit is there: %v", err)
	}
	for _, key := range stored {
		if v, _, err := c.Get(t.Context(), key); err != nil || len(v) != 10_000 {
			t.Errorf("get %s: %d bytes, %v", key, len(v), err)
		}
	}
	for _, key := range stored[:len(stored)/2] {
		if err := c.Delete(t.Context(), key, storage.Any); err != nil {
			t.Fatalf("delete in a full catalog: %v", err)
		}
	}
	for i := range 3 {
		if _, err := c.Put(t.Context(), fmt.Sprintf("more/%d", i), make([]byte, 10_000), storage.Absent); err != nil {
			t.Errorf("put after room was made: %v", err)
		}
	}
}

func TestReadOnlyCatalogIsNotWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.bolt")
	if _, err := bolt.OpenCatalog(path, bolt.CatalogOptions{ReadOnly: true}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("open of a missing file: %v", err)
	}
	c := openCatalog(t, path)
	if _, err := c.Put(t.Context(), "a", []byte("1"), storage.Any); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v, _, err := c.Get(t.Context(), "a"); err != nil || string(v) != "1" {
		t.Errorf("get: %q, %v", v, err)
	}
	if _, err := c.Put(t.Context(), "a", nil, storage.Any); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("put: %v", err)
	}
	if err := c.Delete(t.Context(), "a", storage.Any); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("delete: %v", err)
	}
	if err := c.PutAll(t.Context(), []storage.Item{{Key: "a"}}); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("put all: %v", err)
	}
}

// Many puts at once must not cost a commit each: the test counts transactions, not time.
func TestConcurrentPutsShareCommits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.bolt")
	c := openCatalog(t, path)
	before := lastTransaction(t, path)
	var wg sync.WaitGroup
	start := make(chan struct{})
	const callers = 200
	for i := range callers {
		wg.Go(func() {
			<-start
			if _, err := c.Put(t.Context(), fmt.Sprintf("device/%d", i), []byte("x"), storage.Absent); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	if n := lastTransaction(t, path) - before; n > callers/2 {
		t.Errorf("%d puts took %d commits", callers, n)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// lastTransaction reads the number of the newest transaction from the meta pages of the file.
func lastTransaction(t *testing.T, path string) uint64 {
	t.Helper()
	b := readFile(t, path)
	return max(le64(b[16+48:]), le64(b[4096+16+48:]))
}

func le64(b []byte) (n uint64) {
	for i := range 8 {
		n |= uint64(b[i]) << (8 * i)
	}
	return n
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A put that waits behind a commit can be withdrawn: then nothing of it is written. One whose commit has begun ends
// as that commit ends.
func TestCancelledPutIsWithdrawnOrDone(t *testing.T) {
	c := openCatalog(t, filepath.Join(t.TempDir(), "catalog.bolt"))
	defer c.Close()
	var wg sync.WaitGroup
	acked := make([]bool, 100)
	for i := range acked {
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			_, err := c.Put(ctx, fmt.Sprintf("k/%d", i), []byte("x"), storage.Absent)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			acked[i] = err == nil
		})
		wg.Go(cancel)
	}
	wg.Wait()
	for i, ok := range acked {
		if _, _, err := c.Get(t.Context(), fmt.Sprintf("k/%d", i)); (err == nil) != ok {
			t.Errorf("put %d was acknowledged: %v, get: %v", i, ok, err)
		}
	}
}
