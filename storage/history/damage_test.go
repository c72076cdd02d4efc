package history_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
	"telemetryhub/storage/history"
	"telemetryhub/storage/record"
	"telemetryhub/storage/storagetest"
)

// damagedChunks answers for some blocks with an error, or with other bytes.
type damagedChunks struct {
	storage.Chunks
	broken func(slice storage.Slice, key storage.BlockKey, p []byte) ([]byte, error)
}

func (c damagedChunks) Block(ctx context.Context, slice storage.Slice, key storage.BlockKey) ([]byte, error) {
	p, err := c.Chunks.Block(ctx, slice, key)
	if err != nil {
		return nil, err
	}
	return c.broken(slice, key, p)
}

// damagedCatalog answers for some keys with an error.
type damagedCatalog struct {
	storage.Catalog
	broken func(key string) bool
}

func (c damagedCatalog) Get(ctx context.Context, key string) ([]byte, storage.Revision, error) {
	if c.broken(key) {
		return nil, 0, fmt.Errorf("%s: %w", key, storage.ErrCorrupt)
	}
	return c.Catalog.Get(ctx, key)
}

func (c damagedCatalog) List(ctx context.Context, prefix string, yield func(storage.Item) bool) error {
	damaged := false
	err := c.Catalog.List(ctx, prefix, func(i storage.Item) bool {
		if c.broken(i.Key) {
			damaged = true
			return true
		}
		return yield(i)
	})
	if err == nil && damaged {
		err = storage.ErrCorrupt
	}
	return err
}

// simple returns an item with one reading of metrics 1 and 2 for each time.
func (w *world) simple(dev uint32, value float64, times ...int64) item {
	it := item{header: record.Header{Kind: record.Data, Device: dev, Stream: 1, ArrivalMS: times[len(times)-1] + 10}, schema: w.schemas[1]}
	for i, t := range times {
		v := device.NumberValue(value + float64(i))
		it.rows = append(it.rows, device.Row{Ref: device.SetRef(0), TimeMS: t, Values: []device.Value{v, v}})
	}
	return it
}

func (w *world) flush() {
	w.t.Helper()
	if err := w.store.Flush(w.t.Context()); err != nil {
		w.t.Fatalf("flush: %v", err)
	}
}

// reopen opens the store again over wrapped stores.
func (w *world) reopen(chunks storage.Chunks, catalog storage.Catalog) {
	w.t.Helper()
	if err := w.store.Close(); err != nil {
		w.t.Fatalf("close: %v", err)
	}
	s, err := history.Open(w.t.Context(), chunks, catalog, w.schemas, w.options)
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	w.store = s
	if err := w.replay(); err != nil {
		w.t.Fatalf("replay: %v", err)
	}
}

// threeFlushes returns a world with two devices and three flushes into one slice, at 0, 1 and 2 hours.
func threeFlushes(t *testing.T) *world {
	w := newWorld(t)
	for i := range int64(3) {
		at := int64(baseMS) + i*3_600_000
		w.append(w.simple(1, 10, at, at+1000, at+2000), w.simple(2, 20, at, at+1000))
		w.flush()
	}
	return w
}

func TestDamageIsReportedAndTheRestIsServed(t *testing.T) {
	day := storage.Slice(testDay)
	hour := int64(baseMS) + 3_600_000
	flip := func(at int) func([]byte) ([]byte, error) {
		return func(p []byte) ([]byte, error) { p[(len(p)+at)%len(p)] ^= 1; return p, nil }
	}
	corrupt := func([]byte) ([]byte, error) { return nil, storage.ErrCorrupt }
	gone := func([]byte) ([]byte, error) { return nil, storage.ErrNotFound }
	for name, c := range map[string]struct {
		index   uint32
		broken  func(p []byte) ([]byte, error)
		lost    int // readings
		anybody bool
		gap     [2]int64
	}{
		"block is corrupt":        {1, corrupt, 6, false, [2]int64{hour, hour + 2000}},
		"block is gone":           {1, gone, 6, false, [2]int64{hour, hour + 2000}},
		"block is short":          {1, func(p []byte) ([]byte, error) { return p[:3], nil }, 6, false, [2]int64{hour, hour + 2000}},
		"chunk is flipped":        {1, flip(20), 6, false, [2]int64{hour, hour + 2000}},
		"chunk of another device": {1, flip(-1), 0, false, [2]int64{}},
		"directory is corrupt":    {0, corrupt, 0, false, [2]int64{}},
		"directory is flipped":    {0, flip(8), 0, false, [2]int64{}},
	} {
		t.Run(name, func(t *testing.T) {
			w := threeFlushes(t)
			w.reopen(damagedChunks{w.chunks, func(s storage.Slice, key storage.BlockKey, p []byte) ([]byte, error) {
				if s == day && key == (storage.BlockKey{Flush: 2, Index: c.index}) {
					return c.broken(p)
				}
				return p, nil
			}}, w.catalog)
			got, err := w.points(history.Query{Device: 1, FromMS: baseMS, ToMS: baseMS + chunk.SliceMS})
			want := w.model.query(history.Query{Device: 1, FromMS: baseMS, ToMS: baseMS + chunk.SliceMS})
			if c.lost == 0 {
				if err != nil || !slices.EqualFunc(got, want, samePoint) {
					t.Fatalf("got %d readings and %v, want all %d", len(got), err, len(want))
				}
				return
			}
			rest := slices.DeleteFunc(want, func(p history.Point) bool { return p.TimeMS >= c.gap[0] && p.TimeMS <= c.gap[1] })
			if !slices.EqualFunc(got, rest, samePoint) {
				t.Fatalf("got %+v, want %+v", got, rest)
			}
			var damage *history.DamageError
			if !errors.As(err, &damage) || !errors.Is(err, storage.ErrCorrupt) || len(damage.Gaps) != 1 {
				t.Fatalf("got %v, want a DamageError with one range", err)
			}
			g := damage.Gaps[0]
			if g.FromMS != c.gap[0] || g.ToMS != c.gap[1] || g.Cause != device.CauseDamaged || g.Anybody != c.anybody {
				t.Errorf("got gap %+v, want [%d, %d]", g, c.gap[0], c.gap[1])
			}
		})
	}
}

func TestDamagedDirectoryAndBlockAreAGapForEverybody(t *testing.T) {
	w := threeFlushes(t)
	w.reopen(damagedChunks{w.chunks, func(_ storage.Slice, key storage.BlockKey, p []byte) ([]byte, error) {
		if key.Flush == 2 {
			return nil, storage.ErrCorrupt
		}
		return p, nil
	}}, w.catalog)
	got, err := w.points(history.Query{Device: 2, FromMS: baseMS, ToMS: baseMS + chunk.SliceMS})
	var damage *history.DamageError
	if !errors.As(err, &damage) || len(damage.Gaps) != 1 || !damage.Gaps[0].Anybody || len(got) != 8 {
		t.Fatalf("got %d readings and %v, want 8 and a range for everybody", len(got), err)
	}
	// A device that nothing is known of may have lost readings all the same.
	if _, err = w.points(history.Query{Device: 3, FromMS: baseMS, ToMS: baseMS + 1}); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatalf("got %v, want ErrCorrupt", err)
	}
	if _, err = w.points(history.Query{Device: 2, FromMS: baseMS + chunk.SliceMS, ToMS: baseMS + 2*chunk.SliceMS}); err != nil {
		t.Fatalf("another slice: got %v", err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	w := threeFlushes(t)
	for _, index := range []uint32{0, 1} {
		w.reopen(damagedChunks{w.chunks, func(_ storage.Slice, key storage.BlockKey, p []byte) ([]byte, error) {
			switch {
			case key.Flush == 2 && key.Index == index && index == 0:
				p[0]++ // the version of the directory
			case key.Flush == 2 && key.Index == index:
				p[3]++ // the version of the first chunk
			}
			return p, nil
		}}, w.catalog)
		_, err := w.points(history.Query{Device: 1, FromMS: baseMS, ToMS: baseMS + chunk.SliceMS})
		if !errors.Is(err, storage.ErrNewerFormat) {
			t.Errorf("block %d: got %v, want ErrNewerFormat", index, err)
		}
	}
	value, _, err := w.catalog.Get(t.Context(), "history/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	value[0]++
	if _, err := w.catalog.Put(t.Context(), "history/checkpoint", value, storage.Any); err != nil {
		t.Fatal(err)
	}
	if err := w.tryOpen(storagetest.Plan{}); !errors.Is(err, storage.ErrNewerFormat) {
		t.Errorf("checkpoint: got %v, want ErrNewerFormat", err)
	}
}

func TestLostCheckpointIsDerivedFromTheChunks(t *testing.T) {
	for name, lose := range map[string]func(w *world) storage.Catalog{
		"damaged": func(w *world) storage.Catalog {
			return damagedCatalog{w.catalog, func(key string) bool { return key == "history/checkpoint" }}
		},
		"missing": func(w *world) storage.Catalog {
			for _, key := range []string{"history/checkpoint", "history/intent"} {
				if err := w.catalog.Delete(t.Context(), key, storage.Any); err != nil {
					t.Fatal(err)
				}
			}
			return w.catalog
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := threeFlushes(t)
			second := w.store.Checkpoint() - 3 // mem.Log counts by threes
			if err := w.log.Trim(t.Context(), second); err != nil {
				t.Fatal(err)
			}
			w.reopen(w.chunks, lose(w))
			if got := w.store.Stats(); got.Flushes != 3 || got.Checkpoint != second {
				t.Fatalf("derived flush %d at %d, want 3 at %d, where it began", got.Flushes, got.Checkpoint, second)
			}
			w.check()
			w.append(w.simple(1, 30, baseMS+5000))
			w.flush()
			w.check()
			w.crash()
			w.open(storagetest.Plan{})
			w.check()
		})
	}
}

func TestDamagedNewestReadingsAreFoundInTheChunks(t *testing.T) {
	w := threeFlushes(t)
	broken := true
	catalog := damagedCatalog{w.catalog, func(key string) bool { return broken && key == "history/latest/00000000" }}
	w.reopen(w.chunks, catalog)
	w.checkLatest()
	w.append(w.simple(1, 30, baseMS+10_000_000))
	w.checkLatest()
	w.flush() // replaces the damaged value
	broken = false
	w.checkLatest()
}

// TestNewestReadingsFromTheChunksAreThoseOfAnswers lets readings of one time compete, while a late row makes the chunk of
// the one that loses look like the later one.
func TestNewestReadingsFromTheChunksAreThoseOfAnswers(t *testing.T) {
	w := newWorld(t)
	row := func(ref device.Ref, ms int64, v ...float64) item {
		r := device.Row{Ref: ref, TimeMS: ms}
		for _, f := range v {
			r.Values = append(r.Values, device.NumberValue(f))
		}
		return item{header: record.Header{Kind: record.Data, Device: 1, Stream: 1, ArrivalMS: baseMS + 1000}, schema: w.schemas[1], rows: []device.Row{r}}
	}
	w.append(row(device.SetRef(0), baseMS+100, 1, 1))
	w.append(row(device.SingleRef(0), baseMS+100, 2))
	w.append(row(device.SetRef(0), baseMS+50, 3, 3))
	w.flush()
	w.reopen(w.chunks, damagedCatalog{w.catalog, func(key string) bool { return key == "history/latest/00000000" }})
	got := map[uint32]float64{}
	err := w.store.Latest(t.Context(), func(_ uint32, p history.Point, _ int64, _ storage.Position) bool {
		got[p.Metric] = p.Value.Float()
		return true
	})
	if err != nil || got[1] != 2 || got[2] != 1 {
		t.Errorf("got %v, %v, want 2 and 1", got, err)
	}
}

func TestDamagedRecordOfGapsIsAGap(t *testing.T) {
	w := newWorld(t)
	gap := device.Gap{FromMS: baseMS + 1000, ToMS: baseMS + 2000, Cause: device.CauseSensor}
	w.append(item{header: record.Header{Kind: record.Gap, Device: 1, ArrivalMS: baseMS + 9000}, gap: gap})
	w.flush()
	broken := true
	w.reopen(w.chunks, damagedCatalog{w.catalog, func(key string) bool { return broken && key == "history/gaps/0000000001" }})
	got, err := w.store.Gaps(t.Context(), 1, baseMS, baseMS+5000)
	if !errors.Is(err, storage.ErrCorrupt) || len(got) != 1 || got[0].FromMS != baseMS || got[0].ToMS != baseMS+4999 || !got[0].Anybody {
		t.Fatalf("got %+v, %v, want the whole range and ErrCorrupt", got, err)
	}
	w.append(item{header: record.Header{Kind: record.Gap, Device: 1, ArrivalMS: baseMS + 9000}, gap: gap})
	w.flush() // replaces the damaged record and keeps that it was lost
	broken = false
	got, err = w.store.Gaps(t.Context(), 1, baseMS, baseMS+5000)
	if err != nil || len(got) != 2 || got[0].Cause != device.CauseDamaged || got[1].Cause != device.CauseSensor {
		t.Fatalf("got %+v, %v, want a damaged gap and the new one", got, err)
	}
}

func TestDamagedMarkOfADroppedDeviceKeepsNobodyOut(t *testing.T) {
	w := threeFlushes(t)
	w.append(w.simple(3, 30, baseMS))
	w.flush()
	for _, num := range []uint32{1, 3} {
		if err := w.store.DropDevice(t.Context(), num); err != nil {
			t.Fatal(err)
		}
		w.model.dropped[num] = true
	}
	w.reopen(w.chunks, damagedCatalog{w.catalog, func(key string) bool { return key == "history/dropped/0000000003" }})
	w.checkLatest()
	for _, num := range []uint32{1, 2} {
		w.checkQuery(history.Query{Device: num, FromMS: 0, ToMS: 1 << 50})
	}
}
