package history_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
	"telemetryhub/storage/history"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/record"
	"telemetryhub/storage/storagetest"
)

// schemas answers for every device with the same schemas, by number.
type schemas map[uint32]*device.Schema

func (s schemas) Schema(_ context.Context, _, num uint32) (*device.Schema, error) {
	if schema := s[num]; schema != nil {
		return schema, nil
	}
	return nil, fmt.Errorf("schema %d: %w", num, storage.ErrNotFound)
}

// metric numbers of the test schemas: 1 to 5; number 6 is another version of 3.
func testSchemas() schemas {
	metrics := func(nums ...uint32) []device.Metric {
		var list []device.Metric
		for _, n := range nums {
			m := device.NewMetric(fmt.Sprintf("m%d", n))
			m.Num, m.Exp = n, -2
			list = append(list, m)
		}
		return list
	}
	return schemas{
		// Metric 1 comes from both sets and alone, so that readings of one time compete.
		1: {Num: 1, Metrics: metrics(1, 2, 3, 4), Sets: []device.Set{{Num: 1, Metrics: []int{0, 1}}, {Num: 2, Metrics: []int{2, 0}}}},
		2: {Num: 2, Metrics: metrics(4, 1, 2, 6, 5), Sets: []device.Set{{Num: 3, Metrics: []int{3, 1, 0}}, {Num: 1, Metrics: []int{1, 2}}}},
	}
}

// reading is what the model knows of one reading.
type reading struct {
	history.Point
	arrivalMS int64
	pos       storage.Position
}

type metricKey struct{ device, metric uint32 }

// model is the history as a map.
type model struct {
	points  map[metricKey]map[int64]reading
	latest  map[metricKey]reading
	gaps    map[uint32][]history.Gap
	dropped map[uint32]bool
}

func newModel() *model {
	return &model{
		points: map[metricKey]map[int64]reading{}, latest: map[metricKey]reading{},
		gaps: map[uint32][]history.Gap{}, dropped: map[uint32]bool{},
	}
}

func (m *model) add(dev uint32, r reading) {
	key := metricKey{dev, r.Metric}
	if m.points[key] == nil {
		m.points[key] = map[int64]reading{}
	}
	m.points[key][r.TimeMS] = r
	if have, ok := m.latest[key]; !ok || r.TimeMS >= have.TimeMS {
		m.latest[key] = r
	}
}

// query answers like the store.
func (m *model) query(q history.Query) []history.Point {
	var list []history.Point
	for key, points := range m.points {
		if key.device != q.Device || m.dropped[key.device] || q.Metrics != nil && !slices.Contains(q.Metrics, key.metric) {
			continue
		}
		for ms, r := range points {
			if q.FromMS <= ms && ms < q.ToMS {
				list = append(list, r.Point)
			}
		}
	}
	slices.SortFunc(list, func(a, b history.Point) int {
		return cmp.Or(cmp.Compare(a.TimeMS, b.TimeMS), cmp.Compare(a.Metric, b.Metric))
	})
	if q.Limit > 0 {
		list = list[:min(q.Limit, len(list))]
	}
	return list
}

func samePoint(a, b history.Point) bool {
	return a.TimeMS == b.TimeMS && a.OriginalMS == b.OriginalMS && a.Replaced == b.Replaced && a.Metric == b.Metric &&
		a.Quality == b.Quality && a.Value.Equal(b.Value)
}

// tester is what *testing.T, *testing.B and *rapid.T have in common.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

// world is a store over stores in memory, and the model of what must be in it.
type world struct {
	t       tester
	log     *mem.Log
	chunks  *mem.Chunks
	catalog *mem.Catalog
	schemas schemas
	faults  *storagetest.Faults
	store   *history.Store
	options history.Options
	model   *model
	rows    int  // written to the log
	hasty   bool // flush after every group that is applied at a start
	group   record.Group
}

func newWorld(t tester) *world {
	w := &world{
		t: t, log: mem.NewLog(), chunks: mem.NewChunks(), catalog: mem.NewCatalog(), schemas: testSchemas(), model: newModel(),
		options: history.Options{IndexBytes: 2000}, // so little that directories are thrown out all the time
	}
	w.open(storagetest.Plan{})
	return w
}

// open opens the store with faults, and applies the log from its checkpoint on.
func (w *world) open(plan storagetest.Plan) {
	w.t.Helper()
	if err := w.tryOpen(plan); err != nil {
		w.t.Fatalf("open: %v", err)
	}
}

func (w *world) tryOpen(plan storagetest.Plan) error {
	w.faults = storagetest.NewFaults(plan)
	s, err := history.Open(w.t.Context(), w.faults.Chunks(w.chunks), w.faults.Catalog(w.catalog), w.schemas, w.options)
	if err != nil {
		return err
	}
	w.store = s
	return w.replay()
}

func (w *world) replay() error {
	var failed error
	err := w.log.Read(w.t.Context(), max(w.store.Checkpoint(), w.log.First()), func(e storage.Entry) bool {
		failed = w.store.ApplyEntry(w.t.Context(), e)
		if failed == nil && w.hasty {
			failed = w.store.Flush(w.t.Context())
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// crash forgets everything that is not durable. It leaves the store to be opened.
func (w *world) crash() {
	w.t.Helper()
	if err := w.store.Close(); err != nil {
		w.t.Fatalf("close: %v", err)
	}
	w.log, w.chunks, w.catalog = w.log.Reopen(), w.chunks.Reopen(), w.catalog.Reopen()
}

// item is one record to be: a batch or a gap.
type item struct {
	header record.Header
	schema *device.Schema
	rows   []device.Row
	gap    device.Gap
}

// append appends a group to the log and to the model and applies it.
func (w *world) append(items ...item) {
	w.t.Helper()
	e := w.write(items...)
	if err := w.store.Apply(w.t.Context(), e.Position, e.Group); err != nil {
		w.t.Fatalf("apply %d: %v", e.Position, err)
	}
}

func (w *world) write(items ...item) storage.Entry {
	w.t.Helper()
	w.group.Reset(baseMS)
	for i := range items {
		it := &items[i]
		if it.header.Kind == record.Gap {
			w.group.Append(&it.header, record.AppendGap(nil, &it.gap))
			continue
		}
		w.group.Append(&it.header, record.AppendRows(nil, it.schema, it.header.ArrivalMS, baseMS, it.rows))
	}
	group := slices.Clone(w.group.Bytes())
	pos, err := w.log.Append(w.t.Context(), group, w.log.Last())
	if err != nil {
		w.t.Fatalf("append: %v", err)
	}
	for i := range items {
		w.know(pos, &items[i])
	}
	return storage.Entry{Position: pos, Group: group}
}

// know adds an item to the model.
func (w *world) know(pos storage.Position, it *item) {
	dev, arrival := it.header.Device, it.header.ArrivalMS
	if it.header.Kind == record.Gap {
		w.model.gaps[dev] = append(w.model.gaps[dev], history.Gap{FromMS: it.gap.FromMS, ToMS: it.gap.ToMS, Cause: it.gap.Cause})
		return
	}
	w.rows += len(it.rows)
	for i := range it.rows {
		row := &it.rows[i]
		filed, own := device.Filed(row.TimeMS, arrival)
		for c, v := range row.Values {
			if v.Type == device.Absent {
				continue
			}
			w.model.add(dev, reading{history.Point{
				TimeMS: filed, Value: v, OriginalMS: row.TimeMS, Metric: it.schema.Column(row.Ref, c).Num,
				Quality: row.Quality, Replaced: !own,
			}, arrival, pos})
		}
	}
}

func (w *world) points(q history.Query) ([]history.Point, error) {
	var list []history.Point
	err := w.store.Points(w.t.Context(), q, func(p history.Point) bool {
		list = append(list, p)
		return true
	})
	return list, err
}

// checkStoredOnce checks that the chunks hold each row that was ever written to the log once: the log must be flushed.
func (w *world) checkStoredOnce() {
	w.t.Helper()
	stored := 0
	all, err := w.chunks.Slices(w.t.Context())
	for _, slice := range all {
		err = errors.Join(err, w.chunks.Blocks(w.t.Context(), slice, func(key storage.BlockKey, _ int) bool {
			p, err := w.chunks.Block(w.t.Context(), slice, key)
			if err != nil {
				w.t.Fatalf("block %v: %v", key, err)
			}
			if p[1] != 2 {
				return true // a directory
			}
			for f := chunk.NewFields(p[2:]); f.Len() > 0; {
				c, err := chunk.Read(f.Section(), slice)
				if err != nil {
					w.t.Fatalf("block %v: %v", key, err)
				}
				stored += c.Rows
			}
			return true
		}))
	}
	if err != nil || stored != w.rows {
		w.t.Fatalf("the chunks hold %d rows (%v), the log has brought %d", stored, err, w.rows)
	}
}

// checkQuery compares an answer with the model.
func (w *world) checkQuery(q history.Query) {
	w.t.Helper()
	got, err := w.points(q)
	if err != nil {
		w.t.Fatalf("points %+v: %v", q, err)
	}
	want := w.model.query(q)
	if !slices.EqualFunc(got, want, samePoint) {
		w.t.Fatalf("points %+v:\ngot  %+v\nwant %+v", q, got, want)
	}
}

// check compares everything with the model.
func (w *world) check() {
	w.t.Helper()
	for dev := uint32(1); dev <= 3; dev++ {
		w.checkQuery(history.Query{Device: dev, FromMS: 0, ToMS: 1 << 50})
	}
	w.checkLatest()
}

func (w *world) checkLatest() {
	w.t.Helper()
	want := map[metricKey]reading{}
	for key, r := range w.model.latest {
		if !w.model.dropped[key.device] {
			want[key] = r
		}
	}
	got, last := map[metricKey]reading{}, uint32(0)
	seen := map[uint32]bool{}
	err := w.store.Latest(w.t.Context(), func(dev uint32, p history.Point, arrivalMS int64, pos storage.Position) bool {
		if dev != last && seen[dev] {
			w.t.Fatalf("the newest readings of device %d do not follow each other", dev)
		}
		last, seen[dev] = dev, true
		got[metricKey{dev, p.Metric}] = reading{p, arrivalMS, pos}
		return true
	})
	if err != nil {
		w.t.Fatalf("latest: %v", err)
	}
	same := maps.EqualFunc(got, want, func(a, b reading) bool {
		return samePoint(a.Point, b.Point) && a.arrivalMS == b.arrivalMS && a.pos == b.pos
	})
	if !same {
		w.t.Fatalf("newest readings:\ngot  %+v\nwant %+v", got, want)
	}
}

const (
	testDay = 20_000
	baseMS  = testDay * chunk.SliceMS
)

// drawTime draws one of few times, so that readings of one time and late ones are common; some are not acceptable.
func drawTime(t *rapid.T) int64 {
	return rapid.OneOf(
		rapid.Custom(func(t *rapid.T) int64 { return baseMS + rapid.Int64Range(-12, 12).Draw(t, "sixth")*chunk.SliceMS/6 }),
		rapid.Custom(func(t *rapid.T) int64 { return baseMS + rapid.Int64Range(0, 5).Draw(t, "ms") }),
		rapid.SampledFrom([]int64{baseMS - 20*chunk.SliceMS, 0, baseMS + 1000*chunk.SliceMS}),
	).Draw(t, "time")
}

func drawValue(t *rapid.T) device.Value {
	switch rapid.IntRange(0, 9).Draw(t, "type") {
	case 0, 1:
		return device.Value{}
	case 2:
		return device.BoolValue(rapid.Bool().Draw(t, "bool"))
	case 3:
		return device.TextValue(rapid.SampledFrom([]string{"", "open", "closed", longString}).Draw(t, "text"))
	case 4:
		return device.NumberValue(rapid.Float64().Draw(t, "float"))
	default:
		f, _ := device.Unscale(rapid.Int64Range(-1000, 1000).Draw(t, "int"), -2)
		return device.NumberValue(f)
	}
}

const longString = "a text that is too long to be kept with the newest readings of its device"

func drawItem(t *rapid.T, w *world) item {
	it := item{header: record.Header{
		Kind: record.Data, Device: rapid.Uint32Range(1, 3).Draw(t, "device"), Stream: 1,
		ArrivalMS: baseMS + rapid.Int64Range(0, 2*chunk.SliceMS).Draw(t, "arrival"), TimeQuality: device.ClockHub,
	}}
	it.schema = w.schemas[rapid.Uint32Range(1, 2).Draw(t, "schema")]
	for range rapid.IntRange(1, 6).Draw(t, "rows") {
		row := device.Row{TimeMS: drawTime(t)}
		if rapid.IntRange(0, 3).Draw(t, "flagged") == 0 {
			row.Quality = device.Quality(rapid.Byte().Draw(t, "quality"))
		}
		row.Ref = device.SetRef(rapid.IntRange(0, len(it.schema.Sets)-1).Draw(t, "set"))
		if rapid.IntRange(0, 2).Draw(t, "alone") == 0 {
			row.Ref = device.SingleRef(rapid.IntRange(0, len(it.schema.Metrics)-1).Draw(t, "metric"))
		}
		for range it.schema.Width(row.Ref) {
			row.Values = append(row.Values, drawValue(t))
		}
		it.rows = append(it.rows, row)
	}
	return it
}

var errBoom = fmt.Errorf("boom: %w", storage.ErrUnknown)
