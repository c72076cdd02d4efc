package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// sampleFile returns a small file with a tree of two levels, free pages, and keys of many sizes.
func sampleFile(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "f.bolt")
	f, err := openFile(path, testOptions())
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 40 {
		err := f.update(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("data"))
			for range 10 {
				if err := b.Put(fmt.Appendf(nil, "%d", r.IntN(300)), make([]byte, r.IntN(700))); err != nil {
					return err
				}
			}
			return b.Delete(fmt.Appendf(nil, "%d", r.IntN(300)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPages(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return b[:int(p.meta.high)*pageSize]
}

// TestCheckKnowsWhatBoltWrites is the other side of the tests with damage: nothing that is in order is refused. It
// lets bbolt do everything that it does to pages, and compares with bbolt's own check.
func TestCheckKnowsWhatBoltWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.bolt")
	o := testOptions()
	o.buckets = []string{"data", "more"}
	f := mustOpen(t, path, o)
	defer func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	}()
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 300 {
		err := f.update(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte(o.buckets[r.IntN(2)]))
			b.FillPercent = []float64{0.1, 0.5, 1}[r.IntN(3)]
			for range r.IntN(60) {
				key := fmt.Appendf(nil, "%0*d", 1+r.IntN(60), r.IntN(2000))
				if r.IntN(3) == 0 {
					if err := b.Delete(key); err != nil {
						return err
					}
				} else if err := b.Put(key, make([]byte, []int{0, 20, 900, 9000}[r.IntN(4)])); err != nil {
					return err
				}
			}
			if r.IntN(40) == 0 {
				return errors.New("no")
			}
			return nil
		})
		if err != nil && err.Error() != "no" {
			t.Fatal(err)
		}
		p, err := pagesOf(f.os)
		if err == nil {
			err = checkGraph(p)
		}
		if err != nil {
			t.Fatalf("after transaction %d: %v", i, err)
		}
	}
	_ = f.view(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		return nil
	})
}

// TestCursorSeesWhatBoltSees compares the own reader with bbolt's, from every key on.
func TestCursorSeesWhatBoltSees(t *testing.T) {
	b := sampleFile(t)
	path := filepath.Join(t.TempDir(), "f.bolt")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f := mustOpen(t, path, testOptions())
	defer func() {
		if err := f.close(); err != nil {
			t.Error(err)
		}
	}()
	p, err := pagesOf(f.os)
	if err != nil {
		t.Fatal(err)
	}
	root, _, _, ok, err := p.bucket("data")
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	err = f.view(func(tx *bolt.Tx) error {
		for i := range 310 {
			from := fmt.Appendf(nil, "%d", i)
			c, err := p.seek(root, from)
			if err != nil {
				return err
			}
			bc := tx.Bucket([]byte("data")).Cursor()
			for wantKey, wantValue := bc.Seek(from); ; wantKey, wantValue = bc.Next() {
				key, value, ok, err := c.next()
				if err != nil {
					return err
				}
				if ok != (wantKey != nil) || !bytes.Equal(key, wantKey) || !bytes.Equal(value, wantValue) {
					t.Fatalf("from %s: got %q, want %q", from, key, wantKey)
				}
				if !ok {
					break
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestMetaPageIsRepairedFromOneBit(t *testing.T) {
	whole := sampleFile(t)
	p, err := openPages(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	for page := range 2 {
		for bit := range metaSize * 8 {
			b := bytes.Clone(whole)
			b[page*pageSize+pageHeaderSize+bit/8] ^= 1 << (bit % 8)
			got, err := openPages(bytes.NewReader(b), int64(len(b)))
			if err != nil || got.meta != p.meta || len(got.notes) != 1 {
				t.Fatalf("page %d bit %d: %v, meta %v, notes %q", page, bit, err, got.meta, got.notes)
			}
		}
	}
	newest := int(p.meta.txid % 2)
	b := bytes.Clone(whole)
	clear(b[newest*pageSize+pageHeaderSize+20:][:8])
	b[newest*pageSize+pageHeaderSize+48] ^= 0xFF
	got, err := openPages(bytes.NewReader(b), int64(len(b)))
	if err != nil || got.meta.txid != p.meta.txid-1 || !got.lostMeta {
		t.Errorf("%v, transaction %d, want %d, lost %v", err, got.meta.txid, p.meta.txid-1, got.lostMeta)
	}
	if err := checkGraph(got); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("the older transaction was taken without a word: %v", err)
	}
}

// TestEveryFlippedBitInTheGraphIsFound turns each bit that bbolt relies on to find its way, one at a time: page headers,
// tables of elements, freelist. Only the sizes of the last key and value of a page cannot be checked against anything;
// they are covered by what the values themselves carry.
func TestEveryFlippedBitInTheGraphIsFound(t *testing.T) {
	whole := sampleFile(t)
	p, err := openPages(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	if err := checkGraph(p); err != nil {
		t.Fatal(err)
	}
	free, size, err := p.freelist()
	if err != nil || len(free) < 3 {
		t.Fatalf("the sample has %d free pages, %v", len(free), err)
	}
	inUse := make(map[pageID]int) // bytes of the page that matter
	last := make(map[pageID]int)  // where the sizes in its last element begin
	for id := pageID(2); id < p.meta.high; id++ {
		n, err := p.node(id)
		if err == nil {
			inUse[id] = pageHeaderSize + n.count*elemSize
			last[id] = inUse[id] - 8
			if !n.leaf {
				last[id] = inUse[id] - 12
			}
		}
	}
	for _, id := range free {
		delete(inUse, id)
	}
	inUse[p.meta.freelist] = pageHeaderSize + 8*len(free)
	if size != pageSize || len(inUse) < 10 {
		t.Fatalf("the sample has %d pages in use", len(inUse))
	}
	for id, n := range inUse {
		for bit := range n * 8 {
			at := int(id)*pageSize + bit/8
			if i := bit/8 - last[id]; last[id] > 0 && i >= 0 && (i < 4 || i < 8 && whole[int(id)*pageSize+8] == leafPage) {
				continue
			}
			whole[at] ^= 1 << (bit % 8)
			p, err := openPages(bytes.NewReader(whole), int64(len(whole)))
			if err != nil {
				t.Fatal(err)
			}
			if err := checkGraph(p); !errors.Is(err, storage.ErrCorrupt) {
				t.Errorf("page %d bit %d: %v", id, bit, err)
			}
			whole[at] ^= 1 << (bit % 8)
		}
	}
}

// FuzzPages changes bytes of a good file, each given by four bytes of offset and one of value, cuts it, and feeds it to
// all that reads pages. Nothing may panic, loop, or find something where nothing is.
func FuzzPages(f *testing.F) {
	good := sampleFile(f)
	f.Add([]byte{}, uint(len(good)))
	f.Add([]byte{0, 0, 0x20, 10, 3, 0, 0, 0x20, 12, 200}, uint(len(good)))
	f.Add([]byte{}, uint(5*pageSize+100))
	f.Fuzz(func(t *testing.T, changes []byte, size uint) {
		b := bytes.Clone(good[:min(size, uint(len(good)))])
		for ; len(changes) >= 5 && len(b) > 0; changes = changes[5:] {
			b[int(binary.BigEndian.Uint32(changes))%len(b)] = changes[4]
		}
		r := bytes.NewReader(b)
		p, err := openPages(r, int64(len(b)))
		if err == nil {
			_ = p.checkHeader("test", 3)
			if checkGraph(p) == nil {
				walkAll(t, p)
			}
			if root, _, _, ok, err := p.bucket("data"); ok && err == nil && root != 0 {
				_, _, _ = readGroups(p, root, 1, 100, 1<<20)
			}
		}
		if p == nil {
			p = &pages{r: r, size: int64(len(b))}
		}
		scan(p, func(e element) {
			if e.off < 0 || e.off+int64(len(e.value)) > int64(len(b)) || !bytes.Equal(b[e.off:][:len(e.value)], e.value) {
				t.Errorf("page %d: a value is not at offset %d", e.page, e.off)
			}
		})
		rescueGroups(p, 1, link{})
	})
}

// walkAll reads every bucket of a file that was found in order; then nothing may be wrong.
func walkAll(t *testing.T, p *pages) {
	root, _, _, ok, err := p.bucket("data")
	if err != nil {
		t.Errorf("find the bucket: %v", err)
	}
	if !ok || root == 0 {
		return
	}
	c, err := p.seek(root, nil)
	for more := true; more && err == nil; {
		_, _, more, err = c.next()
	}
	if err != nil {
		t.Errorf("walk: %v", err)
	}
}

func FuzzGroup(f *testing.F) {
	var b [100]byte
	sealGroup(b[:], 7, link{6, 1234}, b[groupHeaderSize:])
	f.Add(b[:], uint64(7))
	f.Fuzz(func(t *testing.T, b []byte, pos uint64) {
		h, err := openGroup(b, storage.Position(pos))
		if err != nil {
			return
		}
		var again [groupHeaderSize]byte
		if sealGroup(again[:], storage.Position(pos), h.prev, b[groupHeaderSize:]); !bytes.Equal(again[:], b[:groupHeaderSize]) {
			t.Errorf("a header that was believed is not the one of its group: %x, %x", b[:groupHeaderSize], again)
		}
	})
}
