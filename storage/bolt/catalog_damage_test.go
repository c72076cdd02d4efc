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
	"testing"

	bbolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// edit changes a file with plain bbolt: its pages stay in order, so only our own checks can notice.
func edit(t testing.TB, path string, fn func(tx *bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{PageSize: 4096})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(fn); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestItemsThatVanishedAreNoticed(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(tx *bbolt.Tx) error
		gone int
		text string
	}{
		"one item, of which an earlier state proves that it was there": {func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("items")).Delete([]byte("k/07"))
		}, 0, "none is missing"},
		"the value of one item": {func(tx *bbolt.Tx) error {
			b := tx.Bucket([]byte("items"))
			v := bytes.Clone(b.Get([]byte("k/07")))
			v[len(v)-1] ^= 1
			// Other keys change with it, so that no earlier state is left of any page.
			for i := range 40 {
				if err := b.Put([]byte(fmt.Sprintf("k/%02d", i)), bytes.Clone(b.Get([]byte(fmt.Sprintf("k/%02d", i))))); err != nil {
					return err
				}
			}
			return b.Put([]byte("k/07"), v)
		}, 0, "none is missing"},
		"the summary": {func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("summary")).Delete([]byte("summary"))
		}, 0, ""},
		"a bucket": {func(tx *bbolt.Tx) error {
			if err := tx.DeleteBucket([]byte("pieces")); err != nil {
				return err
			}
			_, err := tx.CreateBucket([]byte("pieces"))
			return err
		}, 0, "none is missing"},
		"a transaction that is not ours": {func(tx *bbolt.Tx) error {
			return tx.Bucket([]byte("header")).Put([]byte("other"), []byte("x"))
		}, 0, "none is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "catalog.bolt")
			c := openCatalog(t, path)
			want := make(map[string]storage.Item)
			for i := range 40 {
				item := storage.Item{Key: fmt.Sprintf("k/%02d", i), Value: bytes.Repeat([]byte{byte(i)}, i*60)}
				var err error
				if item.Revision, err = c.Put(t.Context(), item.Key, item.Value, storage.Any); err != nil {
					t.Fatal(err)
				}
				want[item.Key] = item
			}
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, path, test.edit)
			c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if d := c.Damage(); len(d) != 1 || !strings.Contains(d[0].String(), test.text) {
				t.Errorf("reported: %v, want one with %q", d, test.text)
			}
			if gone, err := compareCatalog(t, c, want); err != nil || gone != test.gone {
				t.Errorf("%d items are gone, want %d: %v", gone, test.gone, err)
			}
			r, err := c.Put(t.Context(), "new", nil, storage.Absent)
			if err != nil || r <= 40 {
				t.Errorf("put after the rescue: revision %d, %v", r, err)
			}
		})
	}
}

func TestDeletedItemsDoNotComeBack(t *testing.T) {
	dir := fastDir(t)
	path := filepath.Join(dir, "sound.bolt")
	c := openCatalog(t, path)
	for i := range 60 {
		if _, err := c.Put(t.Context(), fmt.Sprintf("token/%02d", i), make([]byte, 200), storage.Any); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < 60; i += 2 {
		if err := c.Delete(t.Context(), fmt.Sprintf("token/%02d", i), storage.Any); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	image := readFile(t, path)
	for page := 2; page < len(image)/4096; page++ {
		damaged := slices.Clone(image)
		clear(damaged[page*4096 : (page+1)*4096])
		path := filepath.Join(dir, fmt.Sprintf("%d.bolt", page))
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{})
		if err != nil {
			t.Fatalf("page %d: %v", page, err)
		}
		missing := 0
		for i := range 60 {
			_, _, err := c.Get(t.Context(), fmt.Sprintf("token/%02d", i))
			if i%2 == 0 && !errors.Is(err, storage.ErrNotFound) {
				t.Errorf("page %d: deleted token %d: %v", page, i, err)
			}
			if i%2 == 1 && err != nil {
				missing++
			}
		}
		if missing > 0 && len(c.Damage()) == 0 {
			t.Errorf("page %d: %d tokens are missing and nothing was reported", page, missing)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMissingItemsAreNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.bolt")
	c := openCatalog(t, path)
	var items []storage.Item
	for i := range 200 {
		items = append(items, storage.Item{Key: fmt.Sprintf("device/%03d", i), Value: make([]byte, 500)})
	}
	if err := c.PutAll(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	image := readFile(t, path)
	at := bytes.Index(image, []byte("device/100")) // in the only leaf that has it, or in the branch above
	for page := at / 4096; ; page++ {
		if image[page*4096+8] == 2 && bytes.Contains(image[page*4096:(page+1)*4096], []byte("device/100")) {
			clear(image[page*4096 : (page+1)*4096])
			break
		}
	}
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var first, after string // the missing keys are from first to before after
	for i := range 200 {
		key := fmt.Sprintf("device/%03d", i)
		_, _, err := c.Get(t.Context(), key)
		if err != nil && first == "" {
			first = key
		}
		if err == nil && first != "" && after == "" {
			after = key
		}
	}
	want := fmt.Sprintf("(from %q to before %q)", first, after)
	if d := c.Damage(); len(d) != 1 || first == "" || !strings.Contains(d[0].Action, want) {
		t.Errorf("reported: %v, want %s", d, want)
	}
}

// A value that is lost stays an error until it is replaced: it must never look like a key that was not there.
func TestLostValueIsAnErrorUntilItIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "catalog.bolt")
	c := openCatalog(t, path)
	for _, key := range []string{"a", "b", "c"} {
		if _, err := c.Put(t.Context(), key, []byte("value of "+key), storage.Any); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	image := bytes.ReplaceAll(readFile(t, path), []byte("value of b"), []byte("value of d"))
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(c.Damage()); n != 1-round {
			t.Errorf("round %d: %d damages reported", round, n)
		}
		if _, _, err := c.Get(t.Context(), "b"); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("get: %v", err)
		}
		var keys []string
		err = c.List(t.Context(), "", func(i storage.Item) bool { keys = append(keys, i.Key); return true })
		if !errors.Is(err, storage.ErrCorrupt) || !slices.Equal(keys, []string{"a", "c"}) {
			t.Errorf("list: %v, %v", keys, err)
		}
		if _, err := c.Put(t.Context(), "b", nil, storage.Absent); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("put that expects nothing there: %v", err)
		}
		if round == 1 {
			if _, err := c.Put(t.Context(), "b", []byte("again"), storage.Any); err != nil {
				t.Error(err)
			}
			if v, _, err := c.Get(t.Context(), "b"); err != nil || string(v) != "again" {
				t.Errorf("get: %q, %v", v, err)
			}
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	openCatalog(t, path).Close()
}

func TestCoarseDamageOfTheCatalog(t *testing.T) {
	dir := fastDir(t)
	path := filepath.Join(dir, "sound.bolt")
	want := buildCatalog(t, path)
	image := readFile(t, path)
	damages := map[string][]byte{}
	for page := 0; page < len(image)/4096; page += 1 + page/12 {
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
	for name, b := range damages {
		path := filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".bolt")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if outcome, err := tryCatalog(t, path, want); err != nil && outcome != "refused" {
			t.Errorf("%s: %v", name, err)
		} else if outcome == "refused" && !bytes.Equal(readFile(t, path), b) {
			t.Errorf("%s: refused, but changed", name)
		}
	}
}

func TestWhatIsNotACatalogIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign.bolt")
	edit(t, foreign, func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("items"))
		if err != nil {
			return err
		}
		return b.Put([]byte("key"), []byte("of another program"))
	})
	newer := filepath.Join(dir, "newer.bolt")
	openCatalog(t, newer).Close()
	setVersion(t, newer, "catalog", 2)
	slice := filepath.Join(dir, "1.bolt")
	chunks := openChunks(t, dir, bolt.ChunksOptions{})
	if err := errors.Join(chunks.Write(t.Context(), 1, 1, nil), chunks.Close()); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(dir, "text.bolt")
	if err := os.WriteFile(text, []byte(strings.Repeat("not a database\n", 5000)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{foreign: nil, newer: storage.ErrNewerFormat, slice: nil, text: nil} {
		before := readFile(t, path)
		c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{})
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: got %v, %v", filepath.Base(path), c, err)
		}
		if !bytes.Equal(readFile(t, path), before) {
			t.Errorf("%s was changed", filepath.Base(path))
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 4 {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func TestCatalogOnAFullDiskPausesAndGoesOn(t *testing.T) {
	disk := smallDisk(t, 2<<20)
	path, other := filepath.Join(disk, "catalog.bolt"), filepath.Join(disk, "other")
	if err := os.WriteFile(other, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := openCatalog(t, path)
	stored := make(map[string]storage.Item)
	fill := func(round int) {
		for i := 0; ; i++ {
			item := storage.Item{Key: fmt.Sprintf("%d/%03d", round, i), Value: bytes.Repeat([]byte{byte(i)}, 9000)}
			rev, err := c.Put(t.Context(), item.Key, item.Value, storage.Absent)
			if errors.Is(err, storage.ErrFull) && i > 0 {
				return
			}
			if err != nil || i > 300 {
				t.Fatalf("round %d, put %d: %v", round, i, err)
			}
			item.Revision = rev
			stored[item.Key] = item
		}
	}
	fill(0)
	if gone, err := compareCatalog(t, c, stored); err != nil || gone > 0 {
		t.Errorf("on the full disk: %d gone, %v", gone, err)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	fill(1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	c = openCatalog(t, path)
	defer c.Close()
	if gone, err := compareCatalog(t, c, stored); err != nil || gone > 0 {
		t.Errorf("after reopening: %d gone, %v", gone, err)
	}
}

// setVersion makes a file look as if it was written by a newer version of the program.
func setVersion(t testing.TB, path, format string, version byte) {
	t.Helper()
	edit(t, path, func(tx *bbolt.Tx) error {
		b := append([]byte{byte(len(format))}, format...)
		b = append(b, 0, 0, 0, version)
		return tx.Bucket([]byte("header")).Put([]byte("format"), append(b, crc32c(b)...))
	})
}

func crc32c(b []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}
