package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// storesState is what catalog and chunks should hold: a map and a map of maps.
type storesState struct {
	items  map[string]string
	slices map[storage.Slice]map[uint64][]string
}

const storesSteps = 44

// storesValue is the value that step n stores, of a size from nothing to several pages.
func storesValue(n int) string {
	r := rand.New(rand.NewPCG(uint64(n), 9))
	b := make([]byte, []int{0, 40, 900, 3000, 14_000}[n%5]+r.IntN(60))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return string(b)
}

// storesStep does step n: with catalog and chunks if they are there, and with the state if it is.
func storesStep(n int, c *bolt.Catalog, k *bolt.Chunks, s *storesState) error {
	ctx := context.Background()
	key, value := fmt.Sprintf("key/%d", n%6), storesValue(n)
	slice, flush := storage.Slice(n/12), uint64(n)
	switch {
	case n == 30: // an interrupted flush is written again
		flush = 26
		fallthrough
	case n%3 == 0:
		blocks := []string{value, storesValue(n + 1), "small"}
		if s != nil {
			if s.slices[slice] == nil {
				s.slices[slice] = make(map[uint64][]string)
			}
			for f := range s.slices[slice] {
				if f >= flush {
					delete(s.slices[slice], f)
				}
			}
			s.slices[slice][flush] = blocks
			return nil
		}
		return k.Write(ctx, slice, flush, [][]byte{[]byte(blocks[0]), []byte(blocks[1]), []byte(blocks[2])})
	case n == 31:
		if s != nil {
			delete(s.slices, 1)
			return nil
		}
		return k.Drop(ctx, 1)
	case n%7 == 4:
		if s != nil {
			delete(s.items, key)
			return nil
		}
		return c.Delete(ctx, key, storage.Any)
	case n%7 == 5:
		if s != nil {
			s.items[key], s.items["all"] = value, value
			return nil
		}
		return c.PutAll(ctx, []storage.Item{{Key: key, Value: []byte(value)}, {Key: "all", Value: []byte(value)}})
	}
	if s != nil {
		s.items[key] = value
		return nil
	}
	_, err := c.Put(ctx, key, []byte(value), storage.Any)
	return err
}

// openStores opens catalog and chunks in one folder.
func openStores(dir string) (*bolt.Catalog, *bolt.Chunks, error) {
	c, err := bolt.OpenCatalog(filepath.Join(dir, "catalog.bolt"), bolt.CatalogOptions{})
	if err != nil {
		return nil, nil, err
	}
	k, err := bolt.OpenChunks(dir, bolt.ChunksOptions{OpenFiles: 1})
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	return c, k, nil
}

// storesChild does all steps, and opens everything again in between. It says which step it begins and which is done. On a
// full disk it tries again; any other error ends it.
func storesChild(dir string) error {
	c, k, err := openStores(dir)
	for n := 1; n <= storesSteps && err == nil; n++ {
		fmt.Println("step", n)
		err = storesStep(n, c, k, nil)
		for tries := 0; errors.Is(err, storage.ErrFull) && tries < 10; tries++ {
			err = storesStep(n, c, k, nil)
		}
		if errors.Is(err, storage.ErrUnknown) {
			if again := storesStep(n, c, k, nil); !errors.Is(again, storage.ErrUnknown) {
				return fmt.Errorf("after %w the same step returned %v", err, again)
			}
		}
		if err != nil {
			break
		}
		fmt.Println("done", n)
		if n == 17 || n == 38 {
			if err = errors.Join(c.Close(), k.Close()); err == nil {
				c, k, err = openStores(dir)
			}
		}
	}
	if err != nil {
		fmt.Println("ended", err)
	}
	if c != nil {
		_, _ = c.Close(), k.Close() // may fail too
	}
	return nil
}

// checkStores opens what the child left. It must be the state after the steps that were done, or after one more if that
// had begun.
func checkStores(t testing.TB, dir, said string) error {
	t.Helper()
	begun, done := 0, 0
	for line := range strings.Lines(said) {
		_, _ = fmt.Sscanf(line, "step %d", &begun) // lines of other kinds change nothing
		_, _ = fmt.Sscanf(line, "done %d", &done)
	}
	c, k, err := openStores(dir)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() {
		if err := errors.Join(c.Close(), k.Close()); err != nil {
			t.Error(err)
		}
	}()
	s := &storesState{items: make(map[string]string), slices: make(map[storage.Slice]map[uint64][]string)}
	for n := 1; n <= done; n++ {
		_ = storesStep(n, nil, nil, s) // a state does not fail
	}
	wrong := s.compare(t, c, k)
	if wrong != nil && begun > done {
		_ = storesStep(begun, nil, nil, s)
		wrong = errors.Join(wrong, s.compare(t, c, k))
		if strings.Count(wrong.Error(), "after the steps") < 2 {
			wrong = nil
		}
	}
	if ds := append(c.Damage(), k.Damage()...); len(ds) > 0 {
		return fmt.Errorf("damage: %v", ds)
	}
	if wrong != nil {
		return fmt.Errorf("done up to step %d, begun %d: %w", done, begun, wrong)
	}
	for n := begun + 1; n <= begun+4; n++ {
		if err := storesStep(n, c, k, nil); err != nil {
			return fmt.Errorf("going on: %w", err)
		}
	}
	return nil
}

// compare says how catalog and chunks differ from the state.
func (s *storesState) compare(t testing.TB, c *bolt.Catalog, k *bolt.Chunks) error {
	fail := func(format string, args ...any) error { return fmt.Errorf("after the steps: "+format, args...) }
	n := 0
	err := c.List(t.Context(), "", func(i storage.Item) bool {
		if v, ok := s.items[i.Key]; ok && v == string(i.Value) {
			n++
		} else {
			n = -1000
		}
		return true
	})
	if err != nil || n != len(s.items) {
		return fail("%d items of %d are right: %w", n, len(s.items), err)
	}
	all, err := k.Slices(t.Context())
	if err != nil || len(all) != len(s.slices) {
		return fail("slices %v, want %d: %w", all, len(s.slices), err)
	}
	for slice, flushes := range s.slices {
		n, want := 0, 0
		for _, blocks := range flushes {
			want += len(blocks)
		}
		err := k.Blocks(t.Context(), slice, func(key storage.BlockKey, _ int) bool {
			b, err := k.Block(t.Context(), slice, key)
			blocks := flushes[key.Flush]
			if err == nil && int(key.Index) < len(blocks) && bytes.Equal(b, []byte(blocks[key.Index])) {
				n++
			}
			return true
		})
		if err != nil || n != want {
			return fail("slice %d: %d blocks of %d are right: %w", slice, n, want, err)
		}
	}
	return nil
}

func TestStoresSurvivePowerCuts(t *testing.T) {
	notUnderRace(t)
	dir := filepath.Join(fastDir(t), "stores")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ops := trace(t, dir, "stores")
	done := 0
	for _, o := range ops {
		if bytes.HasPrefix(o.data, []byte("done")) {
			done++
		}
	}
	if done != storesSteps {
		t.Fatalf("the trace has %d steps", done)
	}
	powerCuts(t, dir, ops, max(flipCount(t)/5, 20), func(dir, said string) error { return checkStores(t, dir, said) })
}

func TestStoresSurviveFailingCalls(t *testing.T) {
	notUnderRace(t)
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("calls are made to fail by strace: install it")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range []string{
		"fdatasync:error=EIO", "pwrite64:error=EIO", "pwrite64:error=ENOSPC", "fsync:error=EIO", "ftruncate:error=ENOSPC",
		"renameat2:error=EIO", "renameat2:error=EINVAL", "pread64:error=EIO", "unlinkat:error=EIO", "openat:error=EMFILE",
	} {
		t.Run(strings.ReplaceAll(fault, ":", " "), func(t *testing.T) {
			step := 1
			for n := 1; n < 4000; n += step {
				dir := filepath.Join(fastDir(t), "stores")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				log := filepath.Join(t.TempDir(), "trace")
				name, _, _ := strings.Cut(fault, ":")
				cmd := exec.CommandContext(t.Context(), strace, "-f", "-o", log, "-e", "trace="+name, "-e", "signal=none",
					"-e", fmt.Sprintf("inject=%s:when=%d", fault, n), exe)
				cmd.Env = append(os.Environ(), childVar+"=stores", "CHILD_DIR="+dir, "GOMAXPROCS=1")
				out, err := cmd.CombinedOutput()
				if bytes.Contains(out, []byte("loading shared libraries")) {
					continue // the call that failed was not ours
				}
				if err != nil {
					t.Fatalf("call %d: child: %v\n%s", n, err, out)
				}
				calls, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Contains(calls, []byte("(INJECTED)")) {
					t.Logf("%d calls, every %d. failed", n, step)
					return
				}
				if bytes.Count(calls, []byte("(INJECTED)")) > 1 {
					continue // strace counts for each thread, and this is about one call that fails
				}
				if err := checkStores(t, dir, string(out)); err != nil {
					t.Errorf("call %d fails: %v\n%s", n, err, out)
				}
				if n > 12 && flipCount(t) <= 500 {
					step = 37
				}
			}
		})
	}
}
