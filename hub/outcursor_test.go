package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/storagetest"
)

func (r *rig) cursor(name string) *hub.Cursor {
	r.t.Helper()
	c, err := r.hub.OpenCursor(context.Background(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// rest reads everything that a cursor has to deliver by now, as text, and the position after it.
func rest(t testing.TB, r *rig, c *hub.Cursor) (got []string, pos storage.Position) {
	t.Helper()
	end := r.hub.Status().Durable
	var buf []hub.Delivery
	for pos < end {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		var err error
		buf, pos, err = c.Next(ctx, buf[:0])
		cancel()
		if err != nil {
			t.Fatalf("next: %v, at %d of %d", err, pos, end)
		}
		for _, d := range buf {
			got = append(got, fmt.Sprintf("%s %s %v", d.Device, d.Metric.Name, show(d.Value)))
		}
	}
	return got, pos
}

func (r *rig) cursorStatus(name string) hub.CursorStatus {
	r.t.Helper()
	all := r.hub.Status().Cursors
	i := slices.IndexFunc(all, func(c hub.CursorStatus) bool { return c.Name == name })
	if i < 0 {
		r.t.Fatalf("there is no cursor %s", name)
	}
	return all[i]
}

// levels ingests the numbers from first to last, a group each.
func (r *rig) levels(id device.ID, first, last int) (want []string) {
	r.t.Helper()
	for i := first; i <= last; i++ {
		r.ingest(id, fmt.Sprintf(`{"level":%d}`, i))
		want = append(want, fmt.Sprintf("%s level %d", id, i))
	}
	return want
}

func TestCursorGoesOnAfterWhatWasCommitted(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	r.levels("a", 1, 3) // before it was opened for the first time
	c := r.cursor("mqtt")
	want := r.levels("a", 4, 6)
	got, pos := rest(t, r, c)
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
	if err := c.Commit(t.Context(), pos); err != nil {
		t.Fatal(err)
	}
	uncommitted := r.levels("a", 7, 9)
	if got, _ := rest(t, r, c); !slices.Equal(got, uncommitted) {
		t.Fatalf("got %q, want %q", got, uncommitted)
	}
	r.restart() // after it was handed on and before it was committed
	if st := r.cursorStatus("mqtt"); st.Open || st.LagGroups != 3 || st.LagBytes == 0 || st.Oldest.IsZero() || st.Position != pos {
		t.Errorf("after the restart: %+v", st)
	}
	c = r.cursor("mqtt")
	want = append(uncommitted, r.levels("a", 10, 11)...)
	got, pos = rest(t, r, c)
	if !slices.Equal(got, want) {
		t.Fatalf("after the restart: got %q, want %q", got, want)
	}
	if err := c.Commit(t.Context(), pos); err != nil {
		t.Fatal(err)
	}
	if err := c.Commit(t.Context(), pos-1); err != nil {
		t.Fatal(err)
	}
	if st := r.cursorStatus("mqtt"); st.Position != pos || st.LagGroups != 0 || st.LagBytes != 0 || !st.Oldest.IsZero() || !st.Open {
		t.Errorf("caught up: %+v, want position %d", st, pos)
	}
	if err := c.Commit(t.Context(), pos+1); err == nil {
		t.Error("a position beyond the end of the log was committed")
	}
}

func TestCursorTellsAllAboutAReading(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	cur := r.cursor("x")
	c := r.connect("a")
	c.hello("st", 1, 1)
	before := time.Now().UnixMilli()
	c.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,99.5,1],[3,7,"open"],[2,7,40.1]]}`, t0)
	c.ack(1)
	got, pos, err := cur.Next(t.Context(), nil)
	if err != nil || len(got) != 3 || pos != r.hub.Status().Durable {
		t.Fatalf("got %v up to %d, %v", got, pos, err)
	}
	d := got[0]
	if d.Metric.Unit != "Cel" || d.TimeMS != t0 || d.ArrivalMS < before || d.Quality != device.Suspect|device.OutOfRange || d.Position != pos {
		t.Errorf("got %+v", d)
	}
	if d = got[1]; d.Metric.Kind != device.State || d.Value.Text() != "open" || d.TimeMS != t0+7 {
		t.Errorf("got %+v", d)
	}
}

func TestCursorIsOpenOnce(t *testing.T) {
	r := newRig(t, hub.Options{})
	c := r.cursor("mqtt")
	if _, err := r.hub.OpenCursor(t.Context(), "mqtt"); err == nil {
		t.Fatal("it could be opened twice")
	}
	if err := r.hub.DropCursor(t.Context(), "mqtt"); err == nil {
		t.Fatal("it could be dropped while open")
	}
	c.Close()
	if _, _, err := c.Next(t.Context(), nil); err == nil {
		t.Error("a closed cursor delivers")
	}
	r.cursor("mqtt").Close()
	if err := r.hub.DropCursor(t.Context(), "mqtt"); err != nil || len(r.hub.Status().Cursors) != 0 {
		t.Errorf("drop: %v, %v", err, r.hub.Status().Cursors)
	}
	r.restart()
	if n := len(r.hub.Status().Cursors); n != 0 {
		t.Errorf("%d cursors after a restart", n)
	}
	var bad *hub.BadInput
	for _, name := range []string{"", "a/b", "a b", strings.Repeat("a", 65)} {
		if _, err := r.hub.OpenCursor(t.Context(), name); !errors.As(err, &bad) {
			t.Errorf("%q: %v, want *BadInput", name, err)
		}
	}
}

func TestCursorLeavesOutDeletedDevices(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	r.add("b")
	c := r.cursor("mqtt")
	r.levels("a", 1, 2)
	want := r.levels("b", 1, 2)
	if err := r.hub.DeleteDevice(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got, _ := rest(t, r, c); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestCursorThatIsFarBehindReadsTheStore(t *testing.T) {
	r := newRig(t, hub.Options{TailBytes: 1})
	r.add("a")
	c := r.cursor("mqtt")
	want := r.levels("a", 1, 500)
	if err := r.hub.FlushHistory(t.Context()); err != nil { // does not take it away
		t.Fatal(err)
	}
	want = append(want, r.levels("a", 501, 600)...)
	if got, _ := rest(t, r, c); !slices.Equal(got, want) {
		t.Errorf("got %d readings, want %d", len(got), len(want))
	}
}

func TestCursorDeliversLargeGroupsInParts(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	cur := r.cursor("mqtt")
	c := r.connect("a")
	c.hello("st", 1, 1)
	const n = 2500
	rows := make([]string, n)
	for i := range rows {
		rows[i] = fmt.Sprintf("[1,%d,%d]", i, i)
	}
	began := r.hub.Status().Durable
	c.send(`{"m":"data","s":1,"t":%d,"r":[%s]}`, t0, strings.Join(rows, ","))
	c.ack(1)
	var seen int
	for part := 0; seen < n; part++ {
		got, pos, err := cur.Next(t.Context(), nil)
		if err != nil || len(got) > 1024 {
			t.Fatalf("part %d: %d readings, %v", part, len(got), err)
		}
		for _, d := range got {
			if d.Value.Float() != float64(seen) {
				t.Fatalf("got %v, want %d", d.Value.Float(), seen)
			}
			seen++
		}
		if whole := seen == n; whole != (pos > began) {
			t.Fatalf("after %d readings the position is %d", seen, pos)
		}
	}
}

func TestCursorWaitsWithoutPolling(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.add("a")
		c := r.cursor("mqtt")
		arrived := make(chan time.Time)
		go func() {
			_, _, err := c.Next(r.t.Context(), nil)
			if err != nil {
				r.t.Error(err)
			}
			arrived <- time.Now()
		}()
		time.Sleep(time.Hour)
		sent := time.Now()
		r.ingest("a", `{"level":1}`)
		if late := (<-arrived).Sub(sent); late > 10*time.Millisecond {
			r.t.Errorf("told %v late", late)
		}
		ctx, cancel := context.WithCancel(r.t.Context())
		time.AfterFunc(time.Minute, cancel)
		if _, _, err := c.Next(ctx, nil); !errors.Is(err, context.Canceled) {
			r.t.Errorf("got %v, want the end of the context", err)
		}
	})
}

func TestCursorPassesOverDamage(t *testing.T) {
	r := newRig(t, hub.Options{TailBytes: 1})
	r.add("a")
	c := r.cursor("mqtt")
	want := r.levels("a", 1, 5)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	r.stores.Log = &torn{Log: r.stores.Log, at: 3}
	r.start()
	c = r.cursor("mqtt")
	want = append(slices.Delete(want, 2, 3), r.levels("a", 6, 7)...)
	if got, _ := rest(t, r, c); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// torn is a log whose nth group is damaged beyond reading.
type torn struct {
	storage.Log
	at int
}

func (l *torn) Read(ctx context.Context, after storage.Position, yield func(storage.Entry) bool) error {
	return l.Log.Read(ctx, after, func(e storage.Entry) bool {
		if e.Position == storage.Position(3*l.at) { // as package mem counts
			e.Group, e.Damaged = nil, true
		}
		return yield(e)
	})
}

func TestCursorBeyondItsLimitSkipsAndSaysSo(t *testing.T) {
	r := newRig(t, hub.Options{OutboxBytes: 1000, TailBytes: 1})
	r.add("a")
	c := r.cursor("mqtt")
	r.add("b")
	began := r.hub.Status().Durable
	r.levels("a", 1, 10)
	if err := r.hub.FlushHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := r.cursorStatus("mqtt"); st.Skipped.Ranges != 0 {
		t.Fatalf("skips below the limit: %+v", st)
	}
	r.levels("a", 11, 100)
	for range 2 {
		if err := r.hub.FlushHistory(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	st := r.cursorStatus("mqtt")
	s := st.Skipped
	if s.Ranges != 1 || s.Groups == 0 || s.Bytes == 0 || s.Last.From != began || s.Last.To != st.Position || s.Last.Cause != hub.SkipLimit ||
		s.Last.FromMS == 0 || s.Last.ToMS < s.Last.FromMS || st.LagBytes > 1000 || st.LagBytes < 700 || st.LagGroups+s.Groups != 100 {
		t.Fatalf("got %+v", st)
	}
	left := int(st.LagGroups)
	r.restart()
	if again := r.cursorStatus("mqtt"); again.Skipped != s || again.Position != st.Position {
		t.Errorf("after a restart: %+v, want %+v", again, st)
	}
	c.Close()
	c = r.cursor("mqtt")
	got, pos := rest(t, r, c)
	if len(got) != left || got[len(got)-1] != "a level 100" {
		t.Errorf("got %d readings, want the last %d", len(got), left)
	}
	if err := c.Commit(t.Context(), pos); err != nil {
		t.Fatal(err)
	}
}

// small is a log with a limit.
type small struct {
	storage.Log
	most  int64
	plugs atomic.Int64
}

func (l *small) Append(ctx context.Context, group []byte, last storage.Position) (storage.Position, error) {
	if l.Size()+int64(len(group)) > l.most {
		l.plugs.Add(1)
		return 0, fmt.Errorf("append: %w", storage.ErrFull)
	}
	return l.Log.Append(ctx, group, last)
}

func TestCursorNeverMakesIngestPause(t *testing.T) {
	r := newRig(t, hub.Options{TailBytes: 1})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	log := &small{Log: r.stores.Log, most: 3000}
	r.stores.Log = log
	r.start()
	r.add("a")
	c := r.cursor("mqtt")
	for i := range 20 { // four times what the log takes
		r.levels("a", 20*i+1, 20*i+20) // fails if ingest pauses
		if err := r.hub.FlushHistory(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	st := r.cursorStatus("mqtt")
	if log.plugs.Load() == 0 || st.Skipped.Ranges == 0 || st.Skipped.Last.Cause != hub.SkipFull {
		t.Fatalf("the log was never full: %+v", st)
	}
	got, _ := rest(t, r, c)
	if len(got) != int(st.LagGroups) || got[len(got)-1] != "a level 400" {
		t.Errorf("got %d readings, want %d", len(got), st.LagGroups)
	}
}

func TestCursorThatCannotBeSavedGoesOn(t *testing.T) {
	r := newRig(t, hub.Options{})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	whole := r.stores.Catalog
	f := storagetest.NewFaults(storagetest.Plan{})
	r.stores.Catalog = f.Catalog(whole)
	r.start()
	r.add("a")
	c := r.cursor("mqtt")
	r.levels("a", 1, 1)
	_, first := rest(t, r, c)
	f.Break(storage.ErrFull)
	if err := c.Commit(t.Context(), first); !errors.Is(err, storage.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	f.Heal()
	want := r.levels("a", 2, 2)
	got, second := rest(t, r, c)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if err := c.Commit(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if st := r.cursorStatus("mqtt"); st.Position != second || st.LagGroups != 0 {
		t.Errorf("got %+v", st)
	}
}

// TestEveryReadingIsDeliveredOrSkipped does at random what can happen to a cursor and holds what came of it against what was
// ingested.
func TestEveryReadingIsDeliveredOrSkipped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &rig{t: &testing.T{}, opts: hub.Options{
			OutboxBytes: rapid.SampledFrom([]int64{-1, 200, 1000, 1 << 30}).Draw(t, "limit"),
			TailBytes:   rapid.SampledFrom([]int{1, 300, 1 << 20}).Draw(t, "tail"),
		}, stores: hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}}
		r.start()
		defer func() { _ = r.stop() }() // the test is over
		if _, err := r.hub.AddDevice(context.Background(), "a", hub.DeviceAttrs{}); err != nil {
			t.Fatal(err)
		}
		open := func() *hub.Cursor {
			c, err := r.hub.OpenCursor(context.Background(), "x")
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := open()
		at := map[storage.Position]int{} // what each group holds
		sent := 0
		var skips []hub.SkipRange
		delivered := map[int]bool{}
		last := 0 // of this opening of the cursor
		var pos storage.Position
		read := func() {
			for pos < r.hub.Status().Durable {
				var got []hub.Delivery
				var err error
				if got, pos, err = c.Next(context.Background(), nil); err != nil {
					t.Fatal(err)
				}
				for _, d := range got {
					n := int(d.Value.Float())
					if n <= last || at[d.Position] != n {
						t.Fatalf("reading %d of group %d after %d", n, d.Position, last)
					}
					last, delivered[n] = n, true
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"ingest": func(t *rapid.T) {
				sent++
				if _, err := r.hub.Ingest(context.Background(), "a", wire.JSON, fmt.Appendf(nil, `{"level":%d}`, sent)); err != nil {
					t.Fatal(err)
				}
				at[r.hub.Status().Durable] = sent
			},
			"read": func(*rapid.T) { read() },
			"commit": func(t *rapid.T) {
				if err := c.Commit(context.Background(), pos); err != nil {
					t.Fatal(err)
				}
			},
			"flush": func(t *rapid.T) {
				if err := r.hub.FlushHistory(context.Background()); err != nil {
					t.Fatal(err)
				}
			},
			"restart": func(t *rapid.T) {
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				r.start()
				c = open()
				pos, last = r.hub.Status().Cursors[0].Position, 0
			},
			"": func(*rapid.T) { skips = append(skips, r.hub.Status().Cursors[0].Skipped.Last) },
		})
		read()
		st := r.hub.Status().Cursors[0]
		skipped := 0
		for p, n := range at {
			if delivered[n] {
				continue
			}
			skipped++
			if !slices.ContainsFunc(skips, func(s hub.SkipRange) bool { return s.From < p && p <= s.To }) {
				t.Fatalf("reading %d was neither delivered nor skipped: %+v", n, st)
			}
		}
		if uint64(skipped) > st.Skipped.Groups {
			t.Fatalf("%d readings were skipped, the cursor says %d", skipped, st.Skipped.Groups)
		}
	})
}

func TestPresenceIsWatched(t *testing.T) {
	inBubble(t, func(r *rig) {
		for _, id := range []device.ID{"a", "b", "gone"} {
			r.add(id)
		}
		if err := r.hub.DeleteDevice(r.t.Context(), "gone"); err != nil {
			r.t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(r.t.Context())
		state := map[device.ID]hub.PresenceChange{}
		told, done := 0, make(chan error)
		go func() {
			done <- r.hub.WatchPresence(ctx, func(c hub.PresenceChange) error {
				told++
				state[c.Device] = c
				return nil
			})
		}()
		want := func(what string, a, b hub.Presence) {
			r.t.Helper()
			time.Sleep(time.Second)
			synctest.Wait()
			if state["a"].Presence != a || state["b"].Presence != b || !state["gone"].Deleted {
				r.t.Errorf("%s: got %v", what, state)
			}
		}
		want("at first", hub.NeverSeen, hub.NeverSeen)
		c := r.connect("a")
		c.hello("st", 1, 1)
		c.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,1]]}`, time.Now().UnixMilli())
		want("a sends", hub.Live, hub.NeverSeen)
		before := told
		for i := range 100 {
			c.send(`{"m":"data","s":%d,"t":%d,"r":[[1,0,1]]}`, i+2, time.Now().UnixMilli())
			time.Sleep(time.Second)
		}
		if told != before {
			r.t.Errorf("told %d times that nothing changed", told-before)
		}
		c.Close(1000, "")
		time.Sleep(time.Minute)
		want("a has left", hub.Offline, hub.NeverSeen)
		r.ingest("b", `{"level":1}`)
		want("b sends", hub.Offline, hub.Live)
		if err := r.hub.DeleteDevice(r.t.Context(), "b"); err != nil {
			r.t.Fatal(err)
		}
		want("b is gone", hub.Offline, hub.Live)
		if !state["b"].Deleted {
			r.t.Error("nobody was told that b is gone")
		}
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
		boom := errors.New("boom")
		if err := r.hub.WatchPresence(r.t.Context(), func(hub.PresenceChange) error { return boom }); err != boom {
			r.t.Errorf("got %v, want the error of tell", err)
		}
	})
}
