package cmd_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// flipCount is how many bits are turned, TORTURE_FLIPS if that is set.
func flipCount(t *testing.T) int {
	t.Helper()
	if s := os.Getenv("TORTURE_FLIPS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatalf("TORTURE_FLIPS: %v", err)
		}
		return n
	}
	return 500
}

// strata are the bits of a data folder by file and kind of page, so that each kind gets its share however few pages it has.
type strata struct {
	image map[string][]byte
	kinds []string
	pages map[string][]place
}

type place struct {
	file string
	page int
}

func newStrata(image map[string][]byte) *strata {
	s := &strata{image: image, pages: map[string][]place{}}
	for file, b := range image {
		for id := range len(b) / 4096 {
			kind := file[:strings.IndexAny(file, "/.")] + " " + pageKind(b[id*4096:], id)
			s.pages[kind] = append(s.pages[kind], place{file, id})
		}
	}
	s.kinds = slices.Sorted(maps.Keys(s.pages))
	for _, places := range s.pages {
		slices.SortFunc(places, func(a, b place) int {
			return strings.Compare(fmt.Sprintf("%s %6d", a.file, a.page), fmt.Sprintf("%s %6d", b.file, b.page))
		})
	}
	return s
}

// pageKind tells what a page of a bbolt file is. Pages behind the first one of a large element, and those that are free, have
// no header of their own or an old one.
func pageKind(b []byte, id int) string {
	number := 0
	for i := range 8 {
		number |= int(b[i]) << (8 * i)
	}
	if number == id {
		switch b[8] {
		case 1:
			return "branch"
		case 2:
			return "leaf"
		case 4:
			return "meta"
		case 16:
			return "freelist"
		}
	}
	return "overflow or free"
}

// flip is damage to one page.
type flip struct {
	place
	kind string
	bit  int    // of the page
	how  string // "bit turned", or what happened to all around it
	seed uint64
}

func (f flip) String() string {
	return fmt.Sprintf("%s, page %d (%s), byte %d, bit %d, %s, seed %d", f.file, f.page, f.kind, f.bit/8, f.bit%8, f.how, f.seed)
}

// apply damages the page.
func (f flip) apply(page []byte) {
	switch f.how {
	case "bit turned":
		page[f.bit/8] ^= 1 << (f.bit % 8)
	case "sector zeroed":
		clear(page[f.bit/8/512*512:][:512])
	case "page zeroed":
		clear(page)
	case "page of noise":
		r := rand.New(rand.NewPCG(f.seed, 1))
		for i := range page {
			page[i] = byte(r.Uint32())
		}
	}
}

func (s *strata) draw(r *rand.Rand) flip {
	kind := s.kinds[r.IntN(len(s.kinds))]
	f := flip{place: s.pages[kind][r.IntN(len(s.pages[kind]))], kind: kind, bit: r.IntN(4096 * 8), how: "bit turned", seed: r.Uint64()}
	if r.IntN(8) == 0 {
		f.how = []string{"sector zeroed", "page zeroed", "page of noise"}[r.IntN(3)]
	}
	switch {
	case strings.HasSuffix(kind, "meta"):
		f.bit = r.IntN(80 * 8) // nothing is behind it
	case r.IntN(3) == 0:
		f.bit = r.IntN(16 * 8) // the header
	}
	return f
}

// write makes the folder with the damage.
func (s *strata) write(dir string, f flip) error {
	for name, b := range s.image {
		if name == f.file {
			b = slices.Clone(b)
			f.apply(b[f.page*4096:][:4096])
		}
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// ramDir is a folder in memory if there is one: hundreds of data folders are made in it, and none need survive.
func ramDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "flips-*.test")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestFlippedBitsAreFoundOrHarmless turns single bits anywhere in the data folder of a stopped hub, now and then spoils a whole
// sector or page, then starts a hub on it
// (in this process, for speed), reads everything back, lets every device go on, and starts once more. A reading that comes
// back is as it was sent. One that does not is in a gap or was reported. No device is locked out.
func TestFlippedBitsAreFoundOrHarmless(t *testing.T) {
	r := dice(t)
	root := ramDir(t)
	world := buildWorld(t, filepath.Join(root, "world"))
	images := []*strata{newStrata(world.crashed), newStrata(world.closed)}
	if v := world.examine(t, writeFlip(t, root, "sound", images[0], flip{})); v.outcome != "harmless" || len(v.problems) > 0 {
		t.Fatalf("without any damage: %+v", v)
	}
	var (
		mu       sync.Mutex // guards the fields below
		outcomes = map[string]int{}
		todo     = flipCount(t)
		workers  sync.WaitGroup
	)
	next := func() (string, *strata, flip, bool) {
		mu.Lock()
		defer mu.Unlock()
		image := images[r.IntN(2)]
		todo--
		return strconv.Itoa(todo), image, image.draw(r), todo >= 0
	}
	began := time.Now()
	for range 2 {
		workers.Go(func() {
			for {
				name, image, f, more := next()
				if !more {
					return
				}
				dir := writeFlip(t, root, name, image, f)
				v := world.examine(t, dir)
				_ = os.RemoveAll(dir) // only to save space
				mu.Lock()
				outcomes[f.kind+": "+v.outcome]++
				mu.Unlock()
				for _, p := range v.problems {
					t.Errorf("%v (crashed %v): %s", f, image == images[0], p)
				}
			}
		})
	}
	workers.Wait()
	for _, o := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%4d %s", outcomes[o], o)
	}
	t.Logf("%d flips in %v", flipCount(t), time.Since(began).Round(time.Millisecond))
}

func writeFlip(t *testing.T, root, name string, image *strata, f flip) string {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := image.write(dir, f); err != nil {
		t.Error(err)
	}
	return dir
}

// TestHubServesADamagedFolder does the same to a few folders with the program itself.
func TestHubServesADamagedFolder(t *testing.T) {
	r := dice(t)
	root := ramDir(t)
	world := buildWorld(t, filepath.Join(root, "world"))
	image := newStrata(world.crashed)
	for i := range rounds(4, 200) {
		f := image.draw(r)
		s := newServerAt(t, writeFlip(t, root, strconv.Itoa(i), image, f))
		s.launch()
		s.ready(patience)
		viewer := s.token("viewer")
		for _, c := range world.devices {
			a := s.ask(http.MethodGet, "/api/v1/devices/"+string(c.id)+"/readings?format=ndjson", viewer, "")
			rows := strings.Count(a.text, `"level"`)
			if told := strings.Contains(a.text, `"damage"`) || len(s.status(viewer).Damage) > 0; a.code != http.StatusOK || rows != 2*int(c.last) && !told {
				t.Errorf("%v: %s: status %d, %d rows of %d, ...%s", f, c.id, a.code, rows, 2*c.last, tail(a.text, 300))
			}
		}
		s.stop()
	}
}
