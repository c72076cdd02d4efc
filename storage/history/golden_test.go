package history_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/history"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/record"
	"telemetryhub/storage/storagetest"
)

var update = flag.Bool("update", false, "write the golden files")

// golden is everything that a history has stored, and what it must answer.
type golden struct {
	Catalog map[string][]byte
	Blocks  []goldenFlush
	Points  []goldenPoint
	Latest  int
	Gaps    []history.Gap
}

type goldenFlush struct {
	Slice  storage.Slice
	Flush  uint64
	Blocks [][]byte
}

type goldenPoint struct {
	TimeMS, OriginalMS int64
	Metric             uint32
	Quality            device.Quality
	Replaced           bool
	Type               device.Type
	Number             float64
	Text               string
}

// TestStoredHistoryStaysReadable reads what earlier versions have stored. A file that exists is never written again: a
// new format gets a new file.
func TestStoredHistoryStaysReadable(t *testing.T) {
	name := filepath.Join("testdata", "v1.json")
	if _, err := os.Stat(name); os.IsNotExist(err) && *update {
		writeGolden(t, name)
	}
	p, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var want golden
	if err := json.Unmarshal(p, &want); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, log: mem.NewLog(), chunks: mem.NewChunks(), catalog: mem.NewCatalog(), schemas: testSchemas(), model: newModel()}
	for key, value := range want.Catalog {
		if _, err := w.catalog.Put(t.Context(), key, value, storage.Absent); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range want.Blocks {
		if err := w.chunks.Write(t.Context(), f.Slice, f.Flush, f.Blocks); err != nil {
			t.Fatal(err)
		}
	}
	w.open(storagetest.Plan{})
	if got := answers(t, w); !slices.Equal(got.Points, want.Points) || !slices.Equal(got.Gaps, want.Gaps) || got.Latest != want.Latest {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// answers returns what the store answers.
func answers(t *testing.T, w *world) golden {
	t.Helper()
	var g golden
	points, err := w.points(history.Query{Device: 1, FromMS: 0, ToMS: 1 << 50})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		g.Points = append(g.Points, goldenPoint{
			p.TimeMS, p.OriginalMS, p.Metric, p.Quality, p.Replaced, p.Value.Type, p.Value.Float(), p.Value.Text(),
		})
	}
	if g.Gaps, err = w.store.Gaps(t.Context(), 1, 0, 1<<50); err != nil {
		t.Fatal(err)
	}
	err = w.store.Latest(t.Context(), func(uint32, history.Point, int64, storage.Position) bool {
		g.Latest++
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func writeGolden(t *testing.T, name string) {
	t.Helper()
	w := newWorld(t)
	values := []device.Value{
		device.NumberValue(21.37), device.NumberValue(1.0 / 3), device.NumberValue(float64(float32(0.1))), device.BoolValue(true),
		device.TextValue("open"), device.TextValue(longString), {}, device.NumberValue(-5),
	}
	for flush := range int64(2) {
		for i, v := range values {
			it := w.simple(1, 1, baseMS+flush*86_400_000+int64(i)*1000)
			it.rows[0].Values = []device.Value{v, device.NumberValue(float64(i) / 10)}
			it.rows[0].Quality = device.Quality(i % 3)
			if i == 3 {
				it.rows[0].TimeMS = 5 // not acceptable
			}
			single := it
			single.rows = []device.Row{{Ref: device.SingleRef(0), TimeMS: it.rows[0].TimeMS, Values: []device.Value{device.NumberValue(float64(i))}}}
			w.append(it, single, w.simple(2, 7, baseMS+int64(i)))
		}
		w.append(gapItem(1, 1, device.Gap{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSpoolFull, FromSeq: 3, ToSeq: 4, Count: 4}))
		w.append(item{header: record.Header{Kind: record.Gap, Device: 1, ArrivalMS: baseMS + 99}, gap: device.Gap{Cause: device.CauseJump}})
		w.flush()
	}
	g := answers(t, w)
	g.Catalog = map[string][]byte{}
	err := w.catalog.List(t.Context(), "", func(i storage.Item) bool {
		g.Catalog[i.Key] = i.Value
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	all, err := w.chunks.Slices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, slice := range all {
		err := w.chunks.Blocks(t.Context(), slice, func(key storage.BlockKey, _ int) bool {
			n := len(g.Blocks) - 1
			if n < 0 || g.Blocks[n].Slice != slice || g.Blocks[n].Flush != key.Flush {
				g.Blocks = append(g.Blocks, goldenFlush{Slice: slice, Flush: key.Flush})
				n++
			}
			p, err := w.chunks.Block(t.Context(), slice, key)
			if err != nil {
				t.Fatal(err)
			}
			g.Blocks[n].Blocks = append(g.Blocks[n].Blocks, p)
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	p, err := json.MarshalIndent(g, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(p, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
