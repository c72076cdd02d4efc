package history_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/history"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/record"
	"telemetryhub/storage/storagetest"
)

func wantGaps(t *testing.T, w *world, dev uint32, want ...history.Gap) {
	t.Helper()
	got, err := w.store.Gaps(t.Context(), dev, 0, 1<<50)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("gaps of device %d: %v\ngot  %+v\nwant %+v", dev, err, got, want)
	}
}

func TestUnknownSchemaIsAGapAndTheRestIsTaken(t *testing.T) {
	w := newWorld(t)
	lost := w.simple(1, 1, baseMS+1000)
	lost.header.Seq = 7
	unknown := *lost.schema
	unknown.Num = 99
	lost.schema = &unknown
	w.append(lost, w.simple(2, 2, baseMS+1000))
	w.model.points[metricKey{1, 1}], w.model.points[metricKey{1, 2}] = nil, nil
	delete(w.model.latest, metricKey{1, 1})
	delete(w.model.latest, metricKey{1, 2})
	w.check()
	gap := history.Gap{FromMS: baseMS + 1010, ToMS: baseMS + 1010, Cause: device.CauseDamaged, Stream: 1, FromSeq: 7, ToSeq: 7}
	wantGaps(t, w, 1, gap)
	wantGaps(t, w, 2)
	if n := w.store.Stats().Lost; n != 1 {
		t.Errorf("%d lost, want 1", n)
	}
	w.flush()
	wantGaps(t, w, 1, gap)
}

func TestRowsThatCannotBeKeptAreAGap(t *testing.T) {
	w := newWorld(t)
	w.append(w.simple(1, 1, baseMS))
	// The number of a set that is known with other metrics.
	other := *w.schemas[1]
	other.Num, other.Sets = 3, []device.Set{{Num: 1, Metrics: []int{2, 3}}}
	w.schemas[3] = &other
	contrary := w.simple(1, 1, baseMS+1000)
	contrary.schema = &other
	long := w.simple(2, 1, baseMS+2000)
	long.rows[0].Values[0] = device.TextValue(strings.Repeat("x", device.MaxTextLen+1))
	bare := w.simple(3, 1, baseMS+3000)
	unregistered := *w.schemas[1]
	unregistered.Num, unregistered.Sets = 4, []device.Set{{Metrics: []int{0, 1}}}
	w.schemas[4], bare.schema = &unregistered, &unregistered
	for _, it := range []item{contrary, long, bare} {
		e := w.write(it)
		if err := w.store.ApplyEntry(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	for dev := uint32(1); dev <= 3; dev++ {
		got, err := w.store.Gaps(t.Context(), dev, 0, 1<<50)
		if err != nil || len(got) != 1 || got[0].Cause != device.CauseDamaged {
			t.Errorf("gaps of device %d: %+v, %v, want one", dev, got, err)
		}
	}
	w.flush()
	for q, want := range map[uint32]int{1: 2, 2: 1, 3: 0} {
		got, err := w.points(history.Query{Device: q, FromMS: 0, ToMS: 1 << 50})
		if err != nil || len(got) != want {
			t.Errorf("device %d: got %+v, %v, want %d readings", q, got, err, want)
		}
	}
}

func TestDamagedGroupGivesWhatIsIntactAndAGapForEverybody(t *testing.T) {
	w := newWorld(t)
	w.append(w.simple(1, 1, baseMS+1000))
	e := w.write(w.simple(1, 2, baseMS+2000), w.simple(2, 3, baseMS+3000))
	delete(w.model.points[metricKey{2, 1}], baseMS+3000)
	delete(w.model.points[metricKey{2, 2}], baseMS+3000)
	delete(w.model.latest, metricKey{2, 1})
	delete(w.model.latest, metricKey{2, 2})
	e.Group[len(e.Group)-1] ^= 1
	// A group whose damage the store did not see is treated like one that it reports as damaged.
	if err := w.store.Apply(t.Context(), e.Position, e.Group); err != nil {
		t.Fatal(err)
	}
	if err := w.store.ApplyEntry(t.Context(), storage.Entry{Position: e.Position + 1, Damaged: true}); err != nil {
		t.Fatal(err)
	}
	w.check()
	// What is missing arrived between the records before and after it.
	last := storage.Entry{Position: e.Position + 2, Group: w.write(w.simple(1, 4, baseMS+9000)).Group}
	if err := w.store.ApplyEntry(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	wantGaps(t, w, 3, history.Gap{FromMS: baseMS + 2010, ToMS: baseMS + 9010, Cause: device.CauseDamaged, Anybody: true})
}

func TestGroupsAreTakenOnceAndNewerOnesRefused(t *testing.T) {
	w := newWorld(t)
	e := w.write(w.simple(1, 1, baseMS))
	for range 3 {
		if err := w.store.ApplyEntry(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.store.Stats().LogBytes; n != int64(len(e.Group)) {
		t.Errorf("%d bytes of log were applied, want %d", n, len(e.Group))
	}
	e.Group[0]++
	e.Position++
	if err := w.store.ApplyEntry(t.Context(), e); !errors.Is(err, storage.ErrNewerFormat) {
		t.Errorf("got %v, want ErrNewerFormat", err)
	}
	w.check()
}

// flakySchemas fails once for each device.
type flakySchemas struct {
	schemas
	asked map[uint32]bool
}

func (s flakySchemas) Schema(ctx context.Context, dev, num uint32) (*device.Schema, error) {
	if !s.asked[dev] {
		s.asked[dev] = true
		return nil, errors.New("not now")
	}
	return s.schemas.Schema(ctx, dev, num)
}

func TestGroupThatFailedInItsMiddleIsFinishedLater(t *testing.T) {
	w := newWorld(t)
	s, err := history.Open(t.Context(), w.chunks, w.catalog, flakySchemas{w.schemas, map[uint32]bool{}}, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w.store = s
	e := w.write(w.simple(1, 1, baseMS), w.simple(2, 2, baseMS))
	if err := s.ApplyEntry(t.Context(), e); err == nil {
		t.Fatal("applied without a schema")
	}
	if err := s.Flush(t.Context()); err != nil {
		t.Fatalf("nothing of the group was applied: got %v", err)
	}
	if err := s.ApplyEntry(t.Context(), e); err == nil {
		t.Fatal("applied without a schema")
	}
	if err := s.Flush(t.Context()); err == nil {
		t.Fatal("a flush divided a group")
	}
	if err := s.ApplyEntry(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	w.flush()
	w.check()
	if s.Checkpoint() != e.Position {
		t.Errorf("checkpoint at %d, want %d", s.Checkpoint(), e.Position)
	}
}

func TestFullHeadsRefuseAndGoOnAfterAFlush(t *testing.T) {
	w := newWorld(t)
	w.options = history.Options{HeadBytes: 4096, MaxBytes: 8192}
	w.crash()
	w.open(storagetest.Plan{})
	w.faults.Break(storage.ErrFull)
	var e storage.Entry
	for i := int64(0); ; i++ {
		e = w.write(w.simple(1, 1, baseMS+i))
		if err := w.store.ApplyEntry(t.Context(), e); err != nil {
			if !errors.Is(err, storage.ErrFull) {
				t.Fatal(err)
			}
			break
		}
		if w.store.Due() {
			if err := w.store.Flush(t.Context()); !errors.Is(err, storage.ErrFull) {
				t.Fatalf("flush: got %v, want ErrFull", err)
			}
		}
		if i > 10_000 {
			t.Fatal("the heads never fill up")
		}
	}
	if p := w.store.Pressure(); p < 1 || p > 1.1 {
		t.Errorf("pressure is %.2f, want about 1", p)
	}
	w.faults.Heal()
	w.flush()
	if p := w.store.Pressure(); p != 0 || w.store.Due() {
		t.Errorf("after a flush: pressure %.2f, due %v", p, w.store.Due())
	}
	if err := w.store.ApplyEntry(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	w.check()
}

func TestFlushIsDueByAgeAndBySizeOfTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.options = history.Options{MaxAge: time.Minute, LogBytes: 1000}
		w.crash()
		w.open(storagetest.Plan{})
		time.Sleep(time.Hour)
		if w.store.Due() {
			t.Fatal("due without a row")
		}
		w.append(w.simple(1, 1, baseMS))
		if time.Sleep(time.Minute - 1); w.store.Due() {
			t.Fatal("due before its time")
		}
		if time.Sleep(time.Nanosecond); !w.store.Due() {
			t.Fatal("not due by age")
		}
		w.flush()
		if w.store.Due() {
			t.Fatal("due after a flush")
		}
		for range 100 {
			w.append(w.simple(1, 1, baseMS))
		}
		if !w.store.Due() {
			t.Fatal("not due by the size of the log")
		}
	})
}

func TestRowsThatAreLargerThanABlockAreDivided(t *testing.T) {
	const columns = 256
	s := &device.Schema{Num: 1, Sets: []device.Set{{Num: 1}}}
	for i := range columns {
		m := device.NewMetric(fmt.Sprint(i))
		m.Num = uint32(i + 1)
		s.Metrics = append(s.Metrics, m)
		s.Sets[0].Metrics = append(s.Sets[0].Metrics, i)
	}
	w := newWorld(t)
	w.schemas[1] = s
	// 480 KiB in one row, of six random bits a byte, beside rows of floats that do not compress at all.
	noise := uint64(1)
	random := func() uint64 { noise = noise*6364136223846793005 + 1442695040888963407; return noise >> 11 }
	text := func() string {
		var b strings.Builder
		for b.Len() < 1900 {
			b.WriteByte(byte('0' + random()%64))
		}
		return b.String()
	}
	row := device.Row{Ref: device.SetRef(0), TimeMS: baseMS}
	for range columns {
		row.Values = append(row.Values, device.TextValue(text()))
	}
	head := record.Header{Kind: record.Data, Device: 1, ArrivalMS: baseMS}
	w.append(item{header: head, schema: s, rows: []device.Row{row}})
	for i := range 400 {
		row := device.Row{Ref: device.SetRef(0), TimeMS: baseMS + int64(i+1)}
		for range columns {
			row.Values = append(row.Values, device.NumberValue(float64(random())/3))
		}
		w.append(item{header: head, schema: s, rows: []device.Row{row}})
	}
	w.flush()
	w.check()
}

// TestNewestReadingsOfVeryManyMetricsAreThoseHeardLast lets a device declare more metrics than it may have at a time.
func TestNewestReadingsOfVeryManyMetricsAreThoseHeardLast(t *testing.T) {
	w := newWorld(t)
	const all = 300
	for num := uint32(1); num <= all; num++ {
		m := device.NewMetric("m")
		m.Num = num
		s := &device.Schema{Num: 100 + num, Metrics: []device.Metric{m}}
		w.schemas[s.Num] = s
		row := device.Row{Ref: device.SingleRef(0), TimeMS: baseMS + int64(num), Values: []device.Value{device.NumberValue(1)}}
		head := record.Header{Kind: record.Data, Device: 1, ArrivalMS: baseMS + all}
		w.append(item{header: head, schema: s, rows: []device.Row{row}})
	}
	w.checkLatest()
	w.flush()
	for num := range uint32(all - device.MaxMetrics) {
		delete(w.model.latest, metricKey{1, num + 1})
	}
	w.checkLatest()
}

func TestManyDevicesShareBlocksAndTheDirectoryGoesOn(t *testing.T) {
	w := newWorld(t)
	for group := range 30 {
		var items []item
		for i := range 800 {
			items = append(items, w.simple(uint32(group*800+i+1), float64(i), baseMS+int64(i)*60_000))
		}
		w.append(items...)
	}
	w.flush()
	blocks, directories := 0, 0
	err := w.chunks.Blocks(t.Context(), testDay, func(key storage.BlockKey, size int) bool {
		p, err := w.chunks.Block(t.Context(), testDay, key)
		if err != nil || size > storage.MaxBlock {
			t.Fatalf("block of %d bytes: %v", size, err)
		}
		if p[1] == 1 {
			directories++
		}
		blocks++
		return true
	})
	if err != nil || blocks-directories != 24_000/32 || directories < 2 {
		t.Fatalf("%d blocks, %d of them directories, %v; want %d and at least 2", blocks, directories, err, 24_000/32)
	}
	for _, dev := range []uint32{1, 2, 32, 33, 16_000, 23_999, 24_000, 24_001} {
		w.checkQuery(history.Query{Device: dev, FromMS: 0, ToMS: 1 << 50})
	}
	w.checkLatest()
	w.crash()
	w.open(storagetest.Plan{})
	w.checkLatest()
}

// TestEverybodyAtOnce lets readings be applied, flushed and asked for at the same time: an answer always holds all that
// was applied before the question, once.
func TestEverybodyAtOnce(t *testing.T) {
	w := newWorld(t)
	s, err := history.Open(t.Context(), mem.NewChunks(), mem.NewCatalog(), w.schemas, history.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const rows = 3000
	done := make(chan struct{})
	var all sync.WaitGroup
	var mu sync.Mutex
	applied := 0
	all.Go(func() {
		defer close(done)
		for i := range rows {
			e := w.write(w.simple(1, float64(i), baseMS+int64(i)))
			if err := s.ApplyEntry(t.Context(), e); err != nil {
				t.Errorf("apply: %v", err)
				return
			}
			mu.Lock()
			applied = i + 1
			mu.Unlock()
		}
	})
	until := func(do func()) {
		all.Go(func() {
			for more := true; more; {
				select {
				case <-done:
					more = false
				default:
				}
				do()
			}
		})
	}
	until(func() {
		if err := s.Flush(t.Context()); err != nil {
			t.Errorf("flush: %v", err)
		}
	})
	for range 2 {
		until(func() {
			mu.Lock()
			least := applied
			mu.Unlock()
			next := int64(baseMS)
			err := s.Points(t.Context(), history.Query{Device: 1, Metrics: []uint32{2}, FromMS: 0, ToMS: 1 << 50}, func(p history.Point) bool {
				if p.TimeMS != next || p.Value.Float() != float64(next-baseMS) {
					t.Errorf("got %+v, want the reading of %d", p, next)
					return false
				}
				next++
				return true
			})
			if err != nil || next-baseMS < int64(least) {
				t.Errorf("got %d readings and %v, %d were applied", next-baseMS, err, least)
			}
		})
	}
	until(func() {
		if err := s.Latest(t.Context(), func(uint32, history.Point, int64, storage.Position) bool { return true }); err != nil {
			t.Errorf("latest: %v", err)
		}
	})
	all.Wait()
}

// pausedChunks stops in the first Blocks, when it has read them, until it is told to go on.
type pausedChunks struct {
	storage.Chunks
	paused       atomic.Bool
	listed, goOn chan struct{}
}

func (c *pausedChunks) Blocks(ctx context.Context, slice storage.Slice, yield func(storage.BlockKey, int) bool) error {
	err := c.Chunks.Blocks(ctx, slice, yield)
	if c.paused.CompareAndSwap(false, true) {
		close(c.listed)
		<-c.goOn
	}
	return err
}

// TestListThatIsReadWhileAFlushEndsIsNotKept would miss the blocks of that flush from then on.
func TestListThatIsReadWhileAFlushEndsIsNotKept(t *testing.T) {
	w := threeFlushes(t)
	c := &pausedChunks{Chunks: w.chunks, listed: make(chan struct{}), goOn: make(chan struct{})}
	w.reopen(c, w.catalog)
	w.append(w.simple(1, 30, baseMS+10_000_000))
	asked := make(chan error)
	go func() {
		_, err := w.points(history.Query{Device: 1, FromMS: baseMS, ToMS: baseMS + 1})
		asked <- err
	}()
	<-c.listed
	w.flush()
	close(c.goOn)
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
	w.check()
}

// TestHeadsTakeUpWhatTheySay has many series of few rows, which take up more than their rows.
func TestHeadsTakeUpWhatTheySay(t *testing.T) {
	s := &device.Schema{Num: 9}
	for i := range 100 {
		m := device.NewMetric(fmt.Sprintf("m%d", i))
		m.Num = uint32(i + 1)
		s.Metrics = append(s.Metrics, m)
	}
	used := func() int64 {
		runtime.GC()
		var st runtime.MemStats
		runtime.ReadMemStats(&st)
		return int64(st.HeapAlloc)
	}
	for _, rows := range []int{1, 9} {
		w := newWorld(t)
		w.schemas[9] = s
		before := used()
		for dev := range uint32(300) {
			it := item{header: record.Header{Kind: record.Data, Device: dev + 1, ArrivalMS: baseMS}, schema: s}
			for i := range 100 * rows {
				it.rows = append(it.rows, device.Row{Ref: device.SingleRef(i % 100), TimeMS: baseMS, Values: []device.Value{device.NumberValue(1)}})
			}
			w.group.Reset(baseMS)
			w.group.Append(&it.header, record.AppendRows(nil, s, baseMS, baseMS, it.rows))
			if err := w.store.Apply(t.Context(), storage.Position(dev+1), w.group.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
		if took, told := used()-before, w.store.Stats().ActiveBytes; took > 2*told {
			t.Errorf("%d rows a series: the heads take up %d bytes and say %d", rows, took, told)
		}
		runtime.KeepAlive(w)
	}
}
