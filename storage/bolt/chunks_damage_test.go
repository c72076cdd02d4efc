package bolt_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	bbolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

func flush(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func TestFlushesThatVanishedAreNoticed(t *testing.T) {
	deleteFlush := func(n uint64) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return tx.Bucket([]byte("flushes")).Delete(flush(n)) }
	}
	deleteBlocks := func(n uint64) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("blocks"))
			var keys [][]byte
			for k, _ := b.Cursor().Seek(flush(n)); bytes.HasPrefix(k, flush(n)); {
				keys = append(keys, bytes.Clone(k))
				k, _ = b.Cursor().Seek(append(k, 0))
			}
			for _, k := range keys {
				if err := b.Delete(k); err != nil {
					return err
				}
			}
			return nil
		}
	}
	both := func(n uint64) func(tx *bbolt.Tx) error {
		return func(tx *bbolt.Tx) error { return errors.Join(deleteFlush(n)(tx), deleteBlocks(n)(tx)) }
	}
	for name, edit := range map[string]func(tx *bbolt.Tx) error{
		"the first directory":           deleteFlush(0),
		"a directory in the middle":     deleteFlush(5),
		"the last directory":            deleteFlush(9),
		"the first flush":               both(0),
		"a flush in the middle":         both(5),
		"the last flush":                both(9),
		"the blocks of a flush":         deleteBlocks(4),
		"two flushes":                   func(tx *bbolt.Tx) error { return errors.Join(both(5)(tx), both(6)(tx)) },
		"the tail":                      func(tx *bbolt.Tx) error { return tx.Bucket([]byte("tail")).Delete([]byte("tail")) },
		"a transaction that is foreign": func(tx *bbolt.Tx) error { return tx.Bucket([]byte("header")).Put([]byte("x"), nil) },
	} {
		for _, writing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, writing %v", name, writing), func(t *testing.T) {
				dir := t.TempDir()
				want := tenFlushes(t, dir)
				editSlice(t, dir, edit)
				outcome, err := trySlice(t, dir, want, writing)
				if err != nil {
					t.Error(err)
				}
				if outcome == "harmless" && !strings.HasPrefix(name, "the blocks") {
					t.Error("nothing was noticed")
				}
			})
		}
	}
}

// Blocks that are intact are not lost with the directories that list them, however many of these a page held.
func TestDirectoriesAreMadeAgainFromBlocks(t *testing.T) {
	for _, gone := range [][]uint64{{0, 1}, {4, 5, 6}, {8, 9}, {2, 3, 7}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		t.Run(fmt.Sprint(gone), func(t *testing.T) {
			dir := t.TempDir()
			want := tenFlushes(t, dir)
			editSlice(t, dir, func(tx *bbolt.Tx) (err error) {
				for _, n := range gone {
					err = errors.Join(err, tx.Bucket([]byte("flushes")).Delete(flush(n)))
				}
				return err
			})
			if outcome, err := trySlice(t, dir, want, false); err != nil || outcome != "rescued" {
				t.Errorf("%s, %v", outcome, err)
			}
		})
	}
}

// What a rescue listed as lost stays listed when the flush behind it is written again, because that was interrupted.
func TestLossIsRememberedWhenALaterFlushIsWrittenAgain(t *testing.T) {
	dir := t.TempDir()
	tenFlushes(t, dir)
	editSlice(t, dir, func(tx *bbolt.Tx) (err error) {
		for _, n := range []uint64{7, 8, 9} {
			err = errors.Join(err, tx.Bucket([]byte("flushes")).Delete(flush(n)))
			for i := range uint32(2) {
				for part := range uint16(2) {
					key := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint32(flush(n), i), part)
					err = errors.Join(err, tx.Bucket([]byte("blocks")).Delete(key))
				}
			}
		}
		tails := tx.Bucket([]byte("tail"))
		b := bytes.Clone(tails.Get([]byte("tail")))
		binary.BigEndian.PutUint64(b[5:], uint64(tx.ID()+1)) // editSlice makes one more
		binary.BigEndian.PutUint32(b[33:], crc32.Checksum(b[:33], crc32.MakeTable(crc32.Castagnoli)))
		return errors.Join(err, tails.Put([]byte("tail"), b))
	})
	c, err := bolt.OpenChunks(dir, bolt.ChunksOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	all := func(storage.BlockKey, int) bool { return true }
	if err := c.Blocks(t.Context(), flipSlice, all); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatalf("blocks: %v, want ErrCorrupt", err)
	}
	for _, n := range []uint64{9, 9, 10} {
		if err := c.Write(t.Context(), flipSlice, n, [][]byte{[]byte("x")}); err != nil {
			t.Fatal(err)
		}
		if err := c.Blocks(t.Context(), flipSlice, all); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("blocks after flush %d was written: %v, want ErrCorrupt", n, err)
		}
	}
}

// tenFlushes writes flushes 0 to 9 of two blocks each to the slice of the flip tests.
func tenFlushes(t testing.TB, dir string) map[storage.BlockKey]string {
	t.Helper()
	c := openChunks(t, dir, bolt.ChunksOptions{})
	want := make(map[storage.BlockKey]string)
	for n := range uint64(10) {
		blocks := [][]byte{bytes.Repeat([]byte{byte(n)}, 5000), []byte(fmt.Sprint("small ", n))}
		for i, b := range blocks {
			want[storage.BlockKey{Flush: n, Index: uint32(i)}] = string(b)
		}
		if err := c.Write(t.Context(), flipSlice, n, blocks); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return want
}

func slicePath(dir string) string { return filepath.Join(dir, fmt.Sprintf("%d.bolt", flipSlice)) }

// editSlice edits a slice file and wipes the pages that are free, so that no earlier state is left to rescue from.
func editSlice(t testing.TB, dir string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	edit(t, slicePath(dir), fn)
	var free []int
	edit(t, slicePath(dir), func(tx *bbolt.Tx) error {
		for id := 2; ; id++ {
			info, err := tx.Page(id)
			if err != nil || info == nil {
				return err
			}
			if info.Type == "free" {
				free = append(free, id)
			}
			id += info.OverflowCount
		}
	})
	b := readFile(t, slicePath(dir))
	for _, id := range free {
		clear(b[id*4096+16 : (id+1)*4096])
	}
	if err := os.WriteFile(slicePath(dir), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCoarseDamageOfASlice(t *testing.T) {
	dir := fastDir(t)
	want := buildSlice(t, filepath.Join(dir, "sound"))
	image := readFile(t, slicePath(filepath.Join(dir, "sound")))
	damages := map[string][]byte{}
	for page := 0; page < len(image)/4096; page += 1 + page/10 {
		b := slices.Clone(image)
		clear(b[page*4096 : (page+1)*4096])
		damages[fmt.Sprintf("page %d zeroed", page)] = b
		b = slices.Clone(image)
		copy(b[page*4096:], image[4096*((page*7+3)%(len(image)/4096)):][:4096])
		damages[fmt.Sprintf("page %d overwritten by another", page)] = b
		if page > 3 {
			damages[fmt.Sprintf("cut after page %d", page)] = image[:page*4096]
			damages[fmt.Sprintf("cut within page %d", page)] = image[:page*4096+100]
		}
	}
	n := 0
	for name, b := range damages {
		n++
		dir := filepath.Join(dir, strings.ReplaceAll(name, " ", "-"))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(slicePath(dir), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := trySlice(t, dir, want, n%3 == 0); err != nil {
			t.Errorf("%s (written to: %v): %v", name, n%3 == 0, err)
		}
	}
}

func TestWhatIsNotASliceIsLeftAlone(t *testing.T) {
	for name, make := range map[string]func(path string) error{
		"text":   func(path string) error { return os.WriteFile(path, []byte(strings.Repeat("text\n", 9999)), 0o600) },
		"folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"other slice": func(path string) error {
			c := openChunks(t, filepath.Dir(path), bolt.ChunksOptions{})
			return errors.Join(c.Write(t.Context(), 1, 1, [][]byte{[]byte("x")}), c.Close(), os.Rename(filepath.Join(filepath.Dir(path), "1.bolt"), path))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := make(slicePath(dir)); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(slicePath(dir)) // nothing for the folder
			c, err := bolt.OpenChunks(dir, bolt.ChunksOptions{})
			if err == nil {
				defer c.Close()
				if err := c.Write(t.Context(), flipSlice, 1, [][]byte{[]byte("x")}); err == nil {
					t.Error("written to")
				}
				if _, err := c.Block(t.Context(), flipSlice, storage.BlockKey{Flush: 1}); err == nil || errors.Is(err, storage.ErrNotFound) {
					t.Errorf("block: %v", err)
				}
				if err := c.Write(t.Context(), 2, 1, [][]byte{[]byte("x")}); err != nil {
					t.Errorf("another slice: %v", err)
				}
			}
			if after, _ := os.ReadFile(slicePath(dir)); !bytes.Equal(after, before) {
				t.Error("changed")
			}
		})
	}
}

// The hub must be able to write on, and what was there must not look as if it had never been.
func TestSliceOfWhichNothingIsLeftGoesOn(t *testing.T) {
	for name, size := range map[string]int64{"empty": 0, "cut": 5 * 4096} {
		for _, writing := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, writing %v", name, writing), func(t *testing.T) {
				dir := t.TempDir()
				want := tenFlushes(t, dir)
				if err := os.Truncate(slicePath(dir), size); err != nil {
					t.Fatal(err)
				}
				if outcome, err := trySlice(t, dir, want, writing); err != nil || !strings.HasPrefix(outcome, "rescued but for") {
					t.Errorf("%s, %v", outcome, err)
				}
			})
		}
	}
}

func TestSliceOfANewerVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	tenFlushes(t, dir)
	setVersion(t, slicePath(dir), "slice", 2)
	before := readFile(t, slicePath(dir))
	if _, err := bolt.OpenChunks(dir, bolt.ChunksOptions{}); !errors.Is(err, storage.ErrNewerFormat) {
		t.Errorf("open: %v", err)
	}
	// Behind a newest slice of today's version it is noticed when it is used.
	addSlice(t, dir, flipSlice+1)
	older := openChunks(t, dir, bolt.ChunksOptions{})
	defer older.Close()
	if err := older.Write(t.Context(), flipSlice, 99, nil); !errors.Is(err, storage.ErrNewerFormat) {
		t.Errorf("write: %v", err)
	}
	if _, err := older.Block(t.Context(), flipSlice, storage.BlockKey{}); !errors.Is(err, storage.ErrNewerFormat) {
		t.Errorf("block: %v", err)
	}
	if !bytes.Equal(readFile(t, slicePath(dir)), before) {
		t.Error("changed")
	}
}

// addSlice adds a slice to a folder that nobody has open.
func addSlice(t testing.TB, dir string, s storage.Slice) {
	t.Helper()
	other := t.TempDir()
	c := openChunks(t, other, bolt.ChunksOptions{})
	if err := errors.Join(c.Write(t.Context(), s, 1, nil), c.Close()); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("%d.bolt", s)
	if err := os.Rename(filepath.Join(other, name), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

// Many readers meet the same damage at once: it is rescued and reported once.
func TestDamageIsRescuedOnce(t *testing.T) {
	dir := t.TempDir()
	want := tenFlushes(t, dir)
	b := bytes.Replace(readFile(t, slicePath(dir)), []byte("small 5"), []byte("smalx 5"), -1)
	if err := os.WriteFile(slicePath(dir), b, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := bolt.OpenChunks(dir, bolt.ChunksOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if gone, err := compareSlice(t, c, want); err != nil || gone != 1 {
				t.Errorf("%d blocks are gone: %v", gone, err)
			}
		})
	}
	wg.Wait()
	if d := c.Damage(); len(d) != 1 || !strings.Contains(d[0].Action, "block 1 of flush 5 is lost") {
		t.Errorf("reported: %v", d)
	}
	if kept, _ := filepath.Glob(slicePath(dir) + ".damaged-*"); len(kept) != 1 {
		t.Errorf("kept: %v", kept)
	}
}

// A full disk is a pause for a rescue too: the history must not wait for the next start.
func TestDamageMetOnAFullDiskIsRescuedWhenThereIsRoom(t *testing.T) {
	dir := filepath.Join(smallDisk(t, 3<<20), "history")
	want := tenFlushes(t, dir)
	// The last directory is damaged, so that nothing can be written.
	b := readFile(t, slicePath(dir))
	d := append(flush(9), 1, 0, 0, 0, 0, 0, 0, 0, 9)
	if !bytes.Contains(b, d) {
		t.Fatal("the directory is not where it was expected")
	}
	b = bytes.ReplaceAll(b, d, append(flush(9), 1, 0, 0, 0, 0, 0, 0, 0, 99))
	if err := os.WriteFile(slicePath(dir), b, 0o600); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	for size := 3 << 20; size >= 4096; size /= 2 {
		f, err := os.OpenFile(other, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.Write(make([]byte, size)) // as much as there is room for
		_ = f.Close()
	}
	c, err := bolt.OpenChunks(dir, bolt.ChunksOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write := func() error { return c.Write(t.Context(), flipSlice, 10, [][]byte{[]byte("new")}) }
	for range 3 {
		if err := write(); !errors.Is(err, storage.ErrFull) || errors.Is(err, storage.ErrUnknown) {
			t.Fatalf("write to a damaged slice on a full disk: %v, want ErrFull", err)
		}
	}
	if d := c.Damage(); len(d) != 1 {
		t.Errorf("reported: %v", d)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if err := write(); err != nil {
		t.Fatalf("write after space was freed: %v", err)
	}
	want[storage.BlockKey{Flush: 10}] = "new"
	if gone, err := compareSlice(t, c, want); gone != 0 || err != nil {
		t.Errorf("%d blocks are gone: %v", gone, err)
	}
}

func TestChunksOnAFullDiskPauseAndGoOn(t *testing.T) {
	disk := smallDisk(t, 3<<20)
	dir, other := filepath.Join(disk, "history"), filepath.Join(disk, "other")
	if err := os.WriteFile(other, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openChunks(t, dir, bolt.ChunksOptions{})
	defer c.Close()
	block := bytes.Repeat([]byte("block"), 6000)
	stored := make(map[storage.Slice]uint64) // how many flushes each slice has
	fill := func() {
		for n := 0; n < 500; n++ {
			s := storage.Slice(n % 3)
			err := c.Write(t.Context(), s, stored[s], [][]byte{block})
			if errors.Is(err, storage.ErrFull) {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			stored[s]++
		}
		t.Fatal("the disk does not get full")
	}
	check := func() {
		t.Helper()
		for s, n := range stored {
			for f := range n {
				if b, err := c.Block(t.Context(), s, storage.BlockKey{Flush: f}); err != nil || !bytes.Equal(b, block) {
					t.Fatalf("slice %d flush %d: %d bytes, %v", s, f, len(b), err)
				}
			}
		}
	}
	fill()
	check()
	if err := c.Write(t.Context(), 7, 1, [][]byte{block}); !errors.Is(err, storage.ErrFull) {
		t.Errorf("a new slice on a full disk: %v", err)
	}
	if all, err := c.Slices(t.Context()); err != nil || slices.Contains(all, 7) {
		t.Errorf("slices after that: %v, %v", all, err)
	}
	before := stored[0]
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	fill()
	check()
	if stored[0] == before {
		t.Error("nothing was written after space was freed")
	}
	if err := c.Drop(t.Context(), 1); err != nil {
		t.Errorf("drop on a full disk: %v", err)
	}
	delete(stored, 1)
	if err := c.Write(t.Context(), 7, 1, [][]byte{block}); err != nil {
		t.Errorf("a new slice after a drop: %v", err)
	}
	check()
}
