package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/storage"
)

// watcher is a viewer by hand.
type watcher struct {
	*peer
	t *testing.T
	v *hub.Viewer
}

func (r *rig) watch(s hub.Subscription) *watcher {
	r.t.Helper()
	s.Tick = -1
	p := newPeer()
	v, err := r.hub.Subscribe(context.Background(), s, p)
	if err != nil {
		r.t.Fatalf("subscribe: %v", err)
	}
	r.t.Cleanup(v.End)
	return &watcher{p, r.t, v}
}

// next waits for the next frame.
func (w *watcher) next() (frame, token string) {
	w.t.Helper()
	for {
		if f, token, ok := w.v.Next(nil); ok {
			if !json.Valid(f) {
				w.t.Fatalf("not JSON: %s", f)
			}
			return string(f), token
		}
		select {
		case <-w.wake:
		case <-w.gone:
			w.t.Fatalf("closed with %d while waiting for a frame", w.code())
		case <-time.After(10 * time.Second):
			w.t.Fatal("no frame in 10 s")
		}
	}
}

// until waits for a frame that holds text.
func (w *watcher) until(text string) (token string) {
	w.t.Helper()
	for {
		f, token := w.next()
		if strings.Contains(f, text) {
			return token
		}
	}
}

func TestResumeFindsWhatLiesBehindMuchThatTheViewerDoesNotSee(t *testing.T) {
	r := newRig(t, hub.Options{TailBytes: 1})
	r.add("a")
	r.add("b")
	a, b := r.connect("a"), r.connect("b")
	a.hello("st", 1, 1)
	b.hello("st", 1, 1)
	a.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,1]]}`, t0)
	a.ack(1)
	w := r.watch(hub.Subscription{Mode: hub.All})
	_, token := w.next()
	w.v.End()
	note := bytes.Repeat([]byte{'x'}, 4000)
	for seq := uint64(1); seq <= 120; seq++ {
		b.send(`{"m":"data","s":%d,"t":%d,"r":[[3,0,"%s"],[3,1,"%s"],[3,2,"%s"]]}`, seq, t0, note, note, note)
		b.ack(seq)
	}
	a.send(`{"m":"data","s":2,"t":%d,"r":[[1,0,42]]}`, t0)
	a.ack(2)
	b.send(`{"m":"data","s":121,"t":%d,"r":[[1,0,43]]}`, t0)
	b.ack(121)
	r.watch(hub.Subscription{}).until(`"v":43`) // the live cursor has come so far
	w = r.watch(hub.Subscription{Mode: hub.All, Devices: []string{"a"}, After: token})
	w.until(`["a","temperature",1766000000000,42]`)
}

// counted is a log that counts how often it is read.
type counted struct {
	storage.Log
	reads atomic.Int64
}

func (l *counted) Read(ctx context.Context, after storage.Position, yield func(storage.Entry) bool) error {
	l.reads.Add(1)
	return l.Log.Read(ctx, after, yield)
}

// TestWhoFindsNothingLetsOthersHaveTheirTurn resumes behind much that the viewer does not see: who asks writes to others too.
func TestWhoFindsNothingLetsOthersHaveTheirTurn(t *testing.T) {
	for name, tail := range map[string]int{"log": 1, "tail": 64 << 20} {
		r := newRig(t, hub.Options{TailBytes: tail})
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		log := &counted{Log: r.stores.Log}
		r.stores.Log = log
		r.start()
		r.add("a")
		r.add("b")
		b := r.connect("b")
		b.hello("st", 1, 1)
		w := r.watch(hub.Subscription{Mode: hub.All})
		_, token := w.next()
		w.v.End()
		note := bytes.Repeat([]byte{'x'}, 4000)
		for seq := uint64(1); seq <= 120; seq++ {
			b.send(`{"m":"data","s":%d,"t":%d,"r":[[3,0,"%s"],[3,1,"%s"],[3,2,"%s"]]}`, seq, t0, note, note, note)
			b.ack(seq)
		}
		b.send(`{"m":"data","s":121,"t":%d,"r":[[1,0,43]]}`, t0)
		b.ack(121)
		r.watch(hub.Subscription{}).until(`"v":43`) // the live cursor has come so far
		w = r.watch(hub.Subscription{Mode: hub.All, Devices: []string{"a"}, After: token})
		turns := 0
		for woken := true; woken; turns++ {
			select {
			case <-w.wake:
			default:
				woken = false
				continue
			}
			before := log.reads.Load()
			if f, _, ok := w.v.Next(nil); ok {
				t.Errorf("%s: there is %s", name, f)
			}
			if n := log.reads.Load() - before; n > 1 {
				t.Errorf("%s: %d reads without letting others have their turn", name, n)
			}
		}
		if turns < 5 {
			t.Errorf("%s: 1.4 MB were looked through in %d turns", name, turns)
		}
	}
}

// holed is a log in which the group after a position is damaged, once that is said.
type holed struct {
	storage.Log
	before  storage.Position
	damaged atomic.Bool
}

func (l *holed) Read(ctx context.Context, after storage.Position, yield func(storage.Entry) bool) error {
	damaged := l.damaged.Load() && after == l.before
	return l.Log.Read(ctx, after, func(e storage.Entry) bool {
		if damaged {
			damaged = false
			e.Damaged, e.Group = true, make([]byte, storage.MaxGroup)
		}
		return yield(e)
	})
}

func TestResumePassesOverADamagedGroup(t *testing.T) {
	r := newRig(t, hub.Options{TailBytes: 1})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	log := &holed{Log: r.stores.Log}
	r.stores.Log = log
	r.start()
	r.add("a")
	c := r.connect("a")
	c.hello("st", 1, 1)
	w := r.watch(hub.Subscription{Mode: hub.All})
	_, token := w.next()
	w.v.End()
	log.before = log.Last()
	for seq := 1; seq <= 3; seq++ {
		c.send(`{"m":"data","s":%d,"t":%d,"r":[[1,0,%d]]}`, seq, t0, seq)
		c.ack(uint64(seq))
	}
	r.watch(hub.Subscription{}).until(`"v":3`)
	log.damaged.Store(true)
	r.watch(hub.Subscription{Mode: hub.All, After: token}).until(`["a","temperature",1766000000000,2]`)
}

// TestViewerThatLeavesAmidASnapshotMissesNothing resumes after each frame of a snapshot.
func TestViewerThatLeavesAmidASnapshotMissesNothing(t *testing.T) {
	r := newRig(t, hub.Options{CommitInterval: time.Microsecond})
	const n = 500
	for i := range n {
		id := device.ID(fmt.Sprintf("d%03d", i))
		if _, err := r.hub.AddDevice(t.Context(), id, hub.DeviceAttrs{Name: strings.Repeat("n", 200)}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.hub.Ingest(t.Context(), id, wire.JSON, []byte(`{"x":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	r.restart() // the live cursor is at the end
	for leave := 1; leave <= 3; leave++ {
		seen := map[string]bool{}
		token := ""
		read := func(w *watcher) (more bool) {
			frame, tok := w.next()
			var f struct {
				More    bool
				Token   string
				Devices []struct {
					ID      string
					Metrics map[string]any
				}
			}
			if err := json.Unmarshal([]byte(frame), &f); err != nil {
				t.Fatal(err)
			}
			if f.Token != tok {
				t.Errorf("the frame says %q, Next %q", f.Token, tok)
			}
			if tok != "" {
				token = tok
			}
			for _, d := range f.Devices {
				seen[d.ID] = seen[d.ID] || len(d.Metrics) > 0
			}
			return f.More
		}
		w := r.watch(hub.Subscription{})
		for range leave {
			read(w)
		}
		w.v.End()
		if token == "" { // else it was whole
			w = r.watch(hub.Subscription{})
			for read(w) {
			}
		}
		missed := 0
		for _, complete := range seen {
			if !complete {
				missed++
			}
		}
		if len(seen) != n || missed > 0 {
			t.Errorf("left after %d frames: %d devices, %d of them without their value, want %d", leave, len(seen), missed, n)
		}
	}
}

func TestResumeShowsAStateThatCameMeanwhile(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	c := r.connect("a")
	c.hello("st", 1, 1)
	c.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,1],[2,0,5]]}`, t0)
	w := r.watch(hub.Subscription{})
	w.until(`"v":1`)
	w.v.End()
	w = r.watch(hub.Subscription{}) // begins when it is there, so that its token says so
	token := w.until(`"v":1`)
	w.v.End()
	c.send(`{"m":"state","t":%d,"r":[[1,1000,7]]}`, t0)
	f, _ := r.watch(hub.Subscription{After: token}).next()
	if !strings.Contains(f, `"temperature":{"t":1766000001000,"v":7,"u":"Cel"}`) || strings.Contains(f, "humidity") {
		t.Errorf("after a resume: %s", f)
	}
}

func TestResumeTellsOfDevicesDeletedMeanwhile(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	r.add("b")
	w := r.watch(hub.Subscription{})
	_, token := w.next()
	w.v.End()
	if err := r.hub.DeleteDevice(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"at once", "after a restart"} {
		f, _ := r.watch(hub.Subscription{After: token}).next()
		if !strings.Contains(f, `{"id":"b","presence":"never","gone":true`) {
			t.Errorf("%s: %s", when, f)
		}
		if f, _ := r.watch(hub.Subscription{}).next(); strings.Contains(f, `"b"`) {
			t.Errorf("%s: a snapshot names a deleted device: %s", when, f)
		}
		r.restart()
	}
}

// TestReadingsThatFillAFrameGoOnAtOnce has more to send at a tick than fits into one frame.
func TestReadingsThatFillAFrameGoOnAtOnce(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	c := r.connect("a")
	c.hello("st", 1, 1)
	first := r.watch(hub.Subscription{})
	_, token := first.next()
	note := bytes.Repeat([]byte{'x'}, 4000)
	for seq := uint64(1); seq <= 20; seq++ {
		c.send(`{"m":"data","s":%d,"t":%d,"r":[[3,0,"%s"],[3,1,"%s"],[1,0,%d]]}`, seq, t0, note, note, seq)
		c.ack(seq)
	}
	first.until(`"v":20`)
	v, err := r.hub.Subscribe(t.Context(), hub.Subscription{Mode: hub.All, After: token, Tick: time.Hour}, newPeer())
	if err != nil {
		t.Fatal(err)
	}
	defer v.End()
	var got []byte
	for {
		f, _, ok := v.Next(nil)
		if !ok {
			break
		}
		got = append(got, f...)
	}
	if !bytes.Contains(got, []byte(`["a","temperature",1766000000000,20]`)) {
		t.Errorf("after %d bytes the rest waits for the next tick", len(got))
	}
}

func TestWhoLooksOnceLeavesNothingBehind(t *testing.T) {
	r := newRig(t, hub.Options{MaxViewers: 1})
	r.add("pump")
	for _, mode := range []hub.Mode{hub.Latest, hub.All} {
		p := newPeer()
		v, err := r.hub.Subscribe(t.Context(), hub.Subscription{Mode: mode, Once: true}, p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.hub.Subscribe(t.Context(), hub.Subscription{Once: true}, newPeer()); !errors.Is(err, hub.ErrTooMany) {
			t.Errorf("a second viewer where one is allowed: %v", err)
		}
		for ok := true; ok; {
			_, _, ok = v.Next(nil)
		}
		if shared, bytes, armed := r.hub.Views(); shared != 0 || bytes != 0 || armed != 0 {
			t.Errorf("%d views with %d bytes, %d of them waiting", shared, bytes, armed)
		}
		r.ingest("pump", `{"temperature":1}`)
		v.End()
		v.End()
		if n := r.hub.Status().Viewers; n != 0 || len(p.wake) != 0 {
			t.Errorf("%d viewers after the only one has left, which was woken %d times", n, len(p.wake))
		}
	}
}
