package bolt_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// logImage is the folder of a log and what is in it.
type logImage struct {
	files  map[string][]byte
	groups map[storage.Position][]byte
	last   storage.Position
}

// names returns the segments in order.
func (m *logImage) names() []string { return slices.Sorted(maps.Keys(m.files)) }

// write makes a folder with the files, after change has had its way with them.
func (m *logImage) write(t testing.TB, dir string, change func(name string, b []byte) []byte) {
	t.Helper()
	for name, b := range m.files {
		if change != nil {
			b = change(name, slices.Clone(b))
		}
		if b == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// longestGroupIn returns where in a segment the longest of its groups begins. It has pages of its own, which later commits
// leave where they are.
func (m *logImage) longestGroupIn(name string) (offset int) {
	longest := 0
	for _, group := range m.groups {
		at := bytes.Index(m.files[name], group[:min(len(group), 1000)])
		if len(group) > longest && at >= 0 {
			longest, offset = len(group), at
		}
	}
	return offset
}

// snapshot reads the files of a log that nobody is writing to. A crash leaves the same.
func snapshot(t testing.TB, dir string, groups map[storage.Position][]byte) *logImage {
	t.Helper()
	m := &logImage{files: make(map[string][]byte), groups: groups}
	paths, err := filepath.Glob(filepath.Join(dir, "*.bolt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		m.files[filepath.Base(path)] = readFile(t, path)
	}
	for p := range groups {
		m.last = max(m.last, p)
	}
	return m
}

var flipOptions = bolt.LogOptions{SegmentBytes: 160 << 10, FreeBytes: -1}

// buildLog makes a log of a few segments with groups of many sizes, and returns it as a crash and as a clean end leave it.
func buildLog(t testing.TB, seed uint64) (crashed, closed *logImage) {
	t.Helper()
	dir := t.TempDir()
	l, err := bolt.OpenLog(dir, flipOptions)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	groups := make(map[storage.Position][]byte)
	for range 120 {
		n := []int{r.IntN(400), r.IntN(400), r.IntN(5000), r.IntN(20_000)}[r.IntN(4)]
		group := make([]byte, n)
		for i := range group {
			group[i] = byte(r.Uint32())
		}
		p, err := l.Append(t.Context(), group, l.Last())
		if err != nil {
			t.Fatal(err)
		}
		groups[p] = group
	}
	crashed = snapshot(t, dir, groups)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return crashed, snapshot(t, dir, groups)
}

// examine reads a log and says what is lost. The error is a broken promise.
func (m *logImage) examine(t testing.TB, l *bolt.Log) (lost int, err error) {
	t.Helper()
	if l.Last() < m.last {
		return 0, fmt.Errorf("Last() = %d, but %d has been given out", l.Last(), m.last)
	}
	at, marks := l.First(), 0
	wanted := slices.Sorted(maps.Keys(m.groups))
	next := 0
	rerr := l.Read(t.Context(), at, func(e storage.Entry) bool {
		if e.Position <= at || e.Position > l.Last() {
			err = fmt.Errorf("position %d after %d, Last() = %d", e.Position, at, l.Last())
			return false
		}
		at = e.Position
		missing := 0
		for next < len(wanted) && (wanted[next] < at || wanted[next] == at && e.Damaged) {
			missing++
			next++
		}
		lost += missing
		if e.Damaged {
			marks++
			return true
		}
		switch want, ok := m.groups[at]; {
		case missing > 0:
			err = fmt.Errorf("%d groups before %d are missing without a word", missing, at)
		case !ok:
			err = fmt.Errorf("a group at %d, where there was none", at)
		case !bytes.Equal(e.Group, want):
			err = fmt.Errorf("wrong group at %d", at)
		}
		next++
		return err == nil
	})
	switch {
	case err != nil:
		return lost, err
	case rerr != nil:
		return lost, fmt.Errorf("read: %w", rerr)
	case next < len(wanted):
		return lost, fmt.Errorf("groups from %d on are missing without a word", wanted[next])
	case marks > 0 && len(l.Damage()) == 0:
		return lost, fmt.Errorf("damaged groups were read and nothing was reported")
	}
	return lost, nil
}

func wantAll(t *testing.T, l *bolt.Log, m *logImage) {
	t.Helper()
	if lost, err := m.examine(t, l); err != nil || lost > 0 {
		t.Fatalf("%d groups lost, %v", lost, err)
	}
}

// try opens a damaged log, reads it, appends to it, and opens it again.
func (m *logImage) try(t testing.TB, dir string) (outcome string, err error) {
	t.Helper()
	m = &logImage{groups: maps.Clone(m.groups), last: m.last}
	outcome = "harmless"
	for round := range 3 {
		l, err := bolt.OpenLog(dir, flipOptions)
		if err != nil {
			return "", fmt.Errorf("open %d: %w", round, err)
		}
		lost, err := m.examine(t, l)
		if err != nil {
			_ = l.Close()
			return "", fmt.Errorf("round %d: %w\n%v", round, err, l.Damage())
		}
		switch {
		case lost > 0:
			outcome = "groups lost and reported"
		case len(l.Damage()) > 0 && outcome == "harmless":
			outcome = "reported, nothing lost"
		}
		before := l.Last()
		group := []byte(fmt.Sprint("after the damage, round ", round))
		p, err := l.Append(t.Context(), group, before)
		if err != nil {
			_ = l.Close()
			return "", fmt.Errorf("append: %w", err)
		}
		m.groups[p], m.last = group, p
		if _, err := m.examine(t, l); err != nil {
			_ = l.Close()
			return "", fmt.Errorf("round %d after append: %w", round, err)
		}
		if err := l.Close(); err != nil {
			return "", fmt.Errorf("close: %w", err)
		}
	}
	return outcome, nil
}

// fastDir is a temporary folder in memory if there is one: hundreds of logs are made in it, and none need survive.
func fastDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "log-*.test")
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

func TestFlippedBitsInTheLogAreFound(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	crashed, closed := buildLog(t, seed)
	flippers := make(map[string]*flipper)
	for n, m := range []*logImage{crashed, closed} {
		for name, b := range m.files {
			flippers[fmt.Sprint(n, name)] = newFlipper(b, seed+uint64(n))
		}
	}
	outcomes := make(map[string]int)
	root := fastDir(t)
	for i := range (flipCount(t) + 1) / 2 {
		n := r.IntN(2)
		m := []*logImage{crashed, closed}[n]
		names := m.names()
		name := names[r.IntN(len(names))]
		bit, what := flippers[fmt.Sprint(n, name)].draw()
		dir := filepath.Join(root, fmt.Sprint(i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		m.write(t, dir, func(file string, b []byte) []byte {
			if file == name {
				b[bit/8] ^= 1 << (bit % 8)
			}
			return b
		})
		outcome, err := m.try(t, dir)
		if err != nil {
			t.Errorf("%s, crashed %v, bit %d (%s, page %d): %v", name, n == 0, bit, what, bit/8/4096, err)
		}
		outcomes[what+": "+outcome]++
		_ = os.RemoveAll(dir) // only to save space
	}
	for _, o := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%4d %s", outcomes[o], o)
	}
}

func TestCoarseDamageToTheLogIsFound(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	crashed, closed := buildLog(t, seed)
	root := fastDir(t)
	outcomes := make(map[string]int)
	damages := map[string]func(b []byte) []byte{
		"zeroed page":   func(b []byte) []byte { clear(b[r.IntN(len(b)/4096)*4096:][:4096]); return b },
		"noise in page": func(b []byte) []byte { p := b[r.IntN(len(b)/4096)*4096:][:4096]; fill(r, p); return b },
		"page elsewhere": func(b []byte) []byte {
			copy(b[r.IntN(len(b)/4096)*4096:][:4096], b[r.IntN(len(b)/4096)*4096:])
			return b
		},
		"cut":       func(b []byte) []byte { return b[:r.IntN(len(b))] },
		"both meta": func(b []byte) []byte { fill(r, b[20:100]); fill(r, b[4096+20:4096+100]); return b },
		"many bits": func(b []byte) []byte {
			for range 30 {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			return b
		},
	}
	for i := range max(flipCount(t)/50, 1) {
		for what, damage := range damages {
			m := []*logImage{crashed, closed}[r.IntN(2)]
			names := m.names()
			victim := names[r.IntN(len(names))]
			dir := filepath.Join(root, fmt.Sprint(i, what))
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			m.write(t, dir, func(name string, b []byte) []byte {
				if name == victim {
					return damage(b)
				}
				return b
			})
			outcome, err := m.try(t, dir)
			if err != nil && strings.Contains(err.Error(), "move it away") {
				outcome = "refused" // nothing in the file could be told to be ours
			} else if err != nil {
				t.Errorf("%s in %s, crashed %v: %v", what, victim, m == crashed, err)
			}
			outcomes[what+": "+outcome]++
			_ = os.RemoveAll(dir) // only to save space
		}
	}
	for _, o := range slices.Sorted(maps.Keys(outcomes)) {
		t.Logf("%4d %s", outcomes[o], o)
	}
}

func fill(r *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(r.Uint32())
	}
}
