package bolt

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"telemetryhub/storage"
)

// formatExample returns the bytes of the example that FORMAT.md gives under a label.
func formatExample(t *testing.T, label string) []byte {
	t.Helper()
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+label+"\n```\n")
	code, _, closed := strings.Cut(rest, "\n```")
	if !found || !closed {
		t.Fatalf("FORMAT.md has no example %q", label)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(code), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestExamplesInFormatAreWhatIsWritten(t *testing.T) {
	r := newRecord("site/name", []byte("Greenhouse"), 7)
	long := newRecord("site/plan", bytes.Repeat([]byte("x"), 5000), 8)
	sum := summary{tx: 12, last: 8}
	sum.add(&r)
	sum.add(&long)
	block := []byte("hello")
	key := storage.BlockKey{Flush: 3, Index: 0}
	head := blockHeader{size: 5, count: 1, sum: blockSum(20_000, key, 1, block)}
	d := directory{kind: directoryKept, place: 1, prev: 2, prevCheck: 0x01020304, entries: []blockEntry{{size: 5, sum: head.sum}}}
	dir := d.encode(20_000, 3)
	end := tail{tx: 9, count: 2, flush: 3, check: d.check}
	for label, got := range map[string][]byte{
		"`site/name` = `Greenhouse` at revision 7:":             append(r.put(nil), "Greenhouse"...),
		"`site/plan` = 5,000 times `x` at revision 8:":          long.put(nil),
		"The summary of these two, written by transaction 12:":  sum.encode(),
		"`hello` as the only block of flush 3 in slice 20,000:": append(head.put(nil), block...),
		"Its directory, behind flush 2 with check 0x01020304:":  dir,
		"The tail behind it, written by transaction 9:":         end.encode(20_000),
	} {
		if want := formatExample(t, label); !bytes.Equal(got, want) {
			t.Errorf("%s\ngot  %x\nwant %x", label, got, want)
		}
	}
}

// goldenItem is item n of the golden catalog.
func goldenItem(n int) (key string, value []byte) {
	return fmt.Sprintf("item/%02d", n), bytes.Repeat(fmt.Appendf(nil, "value %d ", n), n*n)
}

const goldenItems = 24

func goldenBlock(flush, index int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "block %d of %d ", index, flush), 1+flush*index*20)
}

// The golden slice has so many flushes, and each of them so many blocks.
const (
	goldenFlushes = 5
	goldenBlocks  = 6
)

const goldenSlice storage.Slice = 20_000

// goldenCopy copies what a version wrote to a folder of the test. The originals are never written again, only added to
// by new versions.
func goldenCopy(t *testing.T, name string, write func(dir string)) string {
	t.Helper()
	golden := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(golden, 0o755); err != nil {
			t.Fatal(err)
		}
		write(golden)
		files, err := filepath.Glob(filepath.Join(golden, "*.bolt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			cutUnused(t, path)
		}
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// cutUnused cuts a file behind the last page that was ever used.
func cutUnused(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := pagesOf(f)
	if err == nil {
		err = f.Truncate(int64(p.meta.high) * pageSize)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestGoldenCatalogIsRead(t *testing.T) {
	dir := goldenCopy(t, "catalog-v1", func(dir string) {
		c, err := OpenCatalog(filepath.Join(dir, "catalog.bolt"), CatalogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for n := range goldenItems {
			key, value := goldenItem(n)
			if _, err := c.Put(t.Context(), key, value, storage.Absent); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	})
	c, err := OpenCatalog(filepath.Join(dir, "catalog.bolt"), CatalogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if d := c.Damage(); len(d) > 0 {
		t.Errorf("damage: %v", d)
	}
	for n := range goldenItems {
		key, value := goldenItem(n)
		got, rev, err := c.Get(t.Context(), key)
		if err != nil || rev != storage.Revision(n+1) || !bytes.Equal(got, value) {
			t.Errorf("%s: %d bytes at revision %d, %v", key, len(got), rev, err)
		}
	}
	if rev, err := c.Put(t.Context(), "more", nil, storage.Absent); err != nil || rev != goldenItems+1 {
		t.Errorf("put: revision %d, %v", rev, err)
	}
}

func TestGoldenSliceIsRead(t *testing.T) {
	dir := goldenCopy(t, "slice-v1", func(dir string) {
		c, err := OpenChunks(dir, ChunksOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for f := range goldenFlushes {
			var blocks [][]byte
			for i := range goldenBlocks {
				blocks = append(blocks, goldenBlock(f, i))
			}
			if err := c.Write(t.Context(), goldenSlice, uint64(f), blocks); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	})
	c, err := OpenChunks(dir, ChunksOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n := 0
	err = c.Blocks(t.Context(), goldenSlice, func(key storage.BlockKey, size int) bool {
		got, err := c.Block(t.Context(), goldenSlice, key)
		want := goldenBlock(int(key.Flush), int(key.Index))
		if err != nil || size != len(want) || !bytes.Equal(got, want) {
			t.Errorf("block %v: %d bytes, %v", key, len(got), err)
		}
		n++
		return true
	})
	if err != nil || n != goldenFlushes*goldenBlocks || len(c.Damage()) > 0 {
		t.Errorf("%d blocks, %v, %v", n, err, c.Damage())
	}
	if err := c.Write(t.Context(), goldenSlice, goldenFlushes, nil); err != nil {
		t.Error(err)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	r := newRecord("key", []byte("value"), 7)
	f.Add([]byte("key"), append(r.put(nil), "value"...))
	f.Add([]byte(""), []byte{1})
	f.Fuzz(func(t *testing.T, key, b []byte) {
		r, body, err := decodeRecord(key, b)
		if err != nil {
			return
		}
		if r.pieces() > storage.MaxValue/pieceMax+1 {
			t.Errorf("%d pieces", r.pieces())
		}
		if again := append(r.put(nil), body...); r.kind == recordInline && !bytes.Equal(again, b) {
			t.Errorf("got %x from %x", again, b)
		}
	})
}

func FuzzDecodeDirectory(f *testing.F) {
	d := directory{kind: directoryKept, place: 1, prev: 2, prevCheck: 3, entries: []blockEntry{{5, 6}, {7, 8}}}
	f.Add(int32(20_000), uint64(3), d.encode(20_000, 3))
	f.Add(int32(-1), uint64(0), []byte{})
	f.Fuzz(func(t *testing.T, slice int32, flush uint64, b []byte) {
		d, err := decodeDirectory(storage.Slice(slice), flush, b)
		if err != nil {
			return
		}
		if again := d.encode(storage.Slice(slice), flush); !bytes.Equal(again, b) {
			t.Errorf("got %x from %x", again, b)
		}
	})
}

func FuzzDecodeTailAndSummary(f *testing.F) {
	f.Add((&tail{tx: 1, count: 2, flush: 3, check: 4}).encode(20_000))
	f.Add((&summary{tx: 1, last: 2, count: 3, set: 4}).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := decodeTail(20_000, b); err == nil && !bytes.Equal(e.encode(20_000), b) {
			t.Errorf("tail %+v from %x", e, b)
		}
		if s, err := decodeSummary(b); err == nil && !bytes.Equal(s.encode(), b) {
			t.Errorf("summary %+v from %x", s, b)
		}
	})
}

// FuzzOpenDamagedFiles changes some bytes of sound files and opens them: nothing may panic, and whatever is read must be
// what was written.
func FuzzOpenDamagedFiles(f *testing.F) {
	f.Add(uint32(3*pageSize+16), []byte{1, 2, 3}, false)
	f.Add(uint32(pageSize+20), []byte{0xff, 0xff}, true)
	f.Fuzz(func(t *testing.T, at uint32, change []byte, slice bool) {
		name, file := "catalog-v1", "catalog.bolt"
		if slice {
			name, file = "slice-v1", fmt.Sprintf("%d.bolt", goldenSlice)
		}
		b, err := os.ReadFile(filepath.Join("testdata", name, file))
		if err != nil {
			t.Fatal(err)
		}
		for i, c := range change {
			b[(int(at)+i)%len(b)] ^= c
		}
		dir := t.TempDir()
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if slice {
			fuzzSlice(t, dir, at%2 == 0)
		} else {
			fuzzCatalog(t, path)
		}
	})
}

func fuzzCatalog(t *testing.T, path string) {
	c, err := OpenCatalog(path, CatalogOptions{})
	if err != nil {
		return
	}
	defer c.Close()
	missing := 0
	for n := range goldenItems {
		key, value := goldenItem(n)
		got, _, err := c.Get(t.Context(), key)
		if err != nil {
			missing++
		} else if !bytes.Equal(got, value) && len(c.Damage()) == 0 {
			t.Errorf("%s: another value", key)
		}
	}
	if missing > 0 && len(c.Damage()) == 0 {
		t.Errorf("%d items are missing in silence", missing)
	}
}

func fuzzSlice(t *testing.T, dir string, writing bool) {
	c, err := OpenChunks(dir, ChunksOptions{})
	if err != nil {
		return
	}
	defer c.Close()
	if writing {
		_ = c.Write(t.Context(), goldenSlice, 99, nil) // goes the way of a writer; it may be refused
	}
	n := 0
	err = c.Blocks(t.Context(), goldenSlice, func(key storage.BlockKey, _ int) bool {
		if got, err := c.Block(t.Context(), goldenSlice, key); err == nil {
			n++
			if !bytes.Equal(got, goldenBlock(int(key.Flush), int(key.Index))) {
				t.Errorf("block %v is another one", key)
			}
		}
		return true
	})
	if err == nil && n < goldenFlushes*goldenBlocks && len(c.Damage()) == 0 {
		t.Errorf("%d blocks of %d, and no error", n, goldenFlushes*goldenBlocks)
	}
}
