package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
)

// reader is a viewer that reads now and then, leaves, and comes back with the token of its last frame.
type reader struct {
	hub  *hub.Hub
	sub  hub.Subscription
	last int // the last value of the temperature that it knows
	all  []int
}

// values returns the temperatures in a frame, in order.
func values(t *testing.T, frame []byte) (list []int) {
	var f struct {
		Type     string
		Readings [][]any
		Devices  []struct {
			ID      string
			Metrics map[string]struct{ V any }
		}
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		t.Errorf("%v: %s", err, frame)
	}
	for _, r := range f.Readings {
		if r[1] == "temperature" {
			list = append(list, int(r[3].(float64)))
		}
	}
	for _, d := range f.Devices {
		if m, ok := d.Metrics["temperature"]; ok {
			list = append(list, int(m.V.(float64)))
		}
	}
	return list
}

// run reads until it has seen the value end.
func (v *reader) run(t *testing.T, random *rand.Rand, end int) {
	p := newPeer()
	viewer, err := v.hub.Subscribe(t.Context(), v.sub, p)
	if err != nil {
		t.Errorf("subscribe after %q: %v", v.sub.After, err)
		return
	}
	defer func() { viewer.End() }()
	for v.last < end {
		frame, token, ok := viewer.Next(nil)
		switch {
		case !ok:
			select {
			case <-p.wake:
			case <-p.gone:
				t.Errorf("closed with %d at %d of %d", p.code(), v.last, end)
				return
			case <-time.After(20 * time.Second):
				t.Errorf("no frame in 20 s at %d of %d", v.last, end)
				return
			}
			continue
		case !bytes.HasPrefix(frame, []byte(`{"type":"snapshot"`)) || v.sub.Mode == hub.Latest:
			for _, n := range values(t, frame) {
				v.all = append(v.all, n)
				v.last = n
			}
		default:
			for _, n := range values(t, frame) {
				v.last = n
			}
		}
		if token != "" && random.IntN(20) == 0 {
			viewer.End()
			v.sub.After = token
			p = newPeer()
			if viewer, err = v.hub.Subscribe(t.Context(), v.sub, p); err != nil {
				t.Errorf("come back after %q: %v", token, err)
				return
			}
		}
		if random.IntN(10) == 0 {
			time.Sleep(time.Duration(random.IntN(3000)) * time.Microsecond) // back-off
		}
	}
}

// TestViewersOfOneViewMissNothing has many viewers that share frames, lag, leave and come back.
func TestViewersOfOneViewMissNothing(t *testing.T) {
	r := newRig(t, hub.Options{CommitInterval: time.Microsecond, TailBytes: 64 << 20})
	r.add("a")
	r.add("b")
	a, b := r.connect("a"), r.connect("b")
	a.hello("st", 1, 1)
	b.hello("st", 1, 1)
	a.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,0]]}`, t0)
	a.ack(1)
	r.watch(hub.Subscription{}).until(`"v":0`)
	const end = 1500
	subs := []hub.Subscription{
		{Mode: hub.All, Tick: -1},
		{Mode: hub.All, Tick: time.Millisecond, Devices: []string{"a"}},
		{Mode: hub.Latest, Tick: -1},
		{Mode: hub.Latest, Tick: 2 * time.Millisecond, Devices: []string{"a"}, Metrics: []string{"temp*"}},
	}
	var readers []*reader
	var wg sync.WaitGroup
	for i := range 40 {
		v := &reader{hub: r.hub, sub: subs[i%len(subs)], last: -1}
		readers = append(readers, v)
		random := rand.New(rand.NewPCG(uint64(i), 7))
		// The first token, so that nothing that is sent below comes before it.
		first, err := r.hub.Subscribe(t.Context(), v.sub, newPeer())
		if err != nil {
			t.Fatal(err)
		}
		_, v.sub.After, _ = first.Next(nil)
		first.End()
		wg.Go(func() { v.run(t, random, end) })
	}
	seq := uint64(1)
	for n := 1; n <= end; n++ {
		seq++
		a.send(`{"m":"data","s":%d,"t":%d,"r":[[1,%d,%d]]}`, seq, t0, n, n)
		if n%3 == 0 {
			b.send(`{"m":"data","s":%d,"t":%d,"r":[[2,%d,50]]}`, n/3, t0, n)
			b.ack(uint64(n / 3))
		}
		if n%7 == 0 {
			a.ack(seq)
		}
	}
	wg.Wait()
	for i, v := range readers {
		for k, n := range v.all {
			if v.sub.Mode == hub.All && n != k+1 {
				t.Fatalf("viewer %d: reading %d has the value %d: one was missed or came twice", i, k+1, n)
			}
			if k > 0 && n < v.all[k-1] {
				t.Fatalf("viewer %d: %d after %d: the newest value went back", i, n, v.all[k-1])
			}
		}
		if v.last != end {
			t.Errorf("viewer %d ended at %d", i, v.last)
		}
	}
}

// TestCBORFramesSayTheSame compares each frame in both formats.
func TestCBORFramesSayTheSame(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	a := r.connect("a")
	a.hello("st", 1, 1)
	for _, mode := range []hub.Mode{hub.Latest, hub.All} {
		p, q := newPeer(), newPeer()
		text, err := r.hub.Subscribe(t.Context(), hub.Subscription{Mode: mode, Tick: -1, Greet: true}, p)
		if err != nil {
			t.Fatal(err)
		}
		binary, err := r.hub.Subscribe(t.Context(), hub.Subscription{Mode: mode, Tick: -1, Greet: true, Format: wire.CBOR}, q)
		if err != nil {
			t.Fatal(err)
		}
		seq := uint64(mode)*10 + 1
		compare := func(v *hub.Viewer, p *peer, w *hub.Viewer, q *peer) {
			t.Helper()
			want := decode(t, json.Unmarshal, take(t, v, p))
			got := decode(t, unmarshalCBOR, take(t, w, q))
			delete(want, "now")
			delete(got, "now")
			if !reflect.DeepEqual(want, got) {
				t.Errorf("JSON\n%v\nCBOR\n%v", want, got)
			}
		}
		compare(text, p, binary, q) // welcome
		compare(text, p, binary, q) // snapshot
		for _, row := range []string{
			`[1,0,21.37]`, `[1,1,-0.0]`, `[1,2,0.5]`, `[1,3,1e300]`, `[1,4,70000]`, `[1,5,-70000]`, `[1,6,4294967296]`, `[1,7,99]`,
			`[3,8,"` + strings.Repeat("ä", 200) + `"]`, `[3,9,true]`,
		} {
			a.send(`{"m":"data","s":%d,"t":%d,"r":[%s]}`, seq, t0, row)
			a.ack(seq)
			seq++
			compare(text, p, binary, q)
		}
		text.End()
		binary.End()
	}
}

func take(t *testing.T, v *hub.Viewer, p *peer) []byte {
	t.Helper()
	for {
		if frame, _, ok := v.Next(nil); ok {
			return frame
		}
		select {
		case <-p.wake:
		case <-time.After(10 * time.Second):
			t.Fatal("no frame in 10 s")
		}
	}
}

func unmarshalCBOR(b []byte, v any) error { return cbor.Unmarshal(b, v) }

// decode makes both formats alike: JSON has only one kind of number.
func decode(t *testing.T, unmarshal func([]byte, any) error, frame []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := unmarshal(frame, &m); err != nil {
		t.Fatalf("%v: %q", err, frame)
	}
	return alike(m).(map[string]any)
}

func alike(v any) any {
	switch v := v.(type) {
	case uint64:
		return float64(v)
	case int64:
		return float64(v)
	case float32:
		return float64(v)
	case []any:
		for i := range v {
			v[i] = alike(v[i])
		}
		return v
	case map[any]any:
		m := map[string]any{}
		for k, x := range v {
			m[fmt.Sprint(k)] = alike(x)
		}
		return m
	case map[string]any:
		for k := range v {
			v[k] = alike(v[k])
		}
		return v
	}
	return v
}

// TestSlowViewerOfSharedFramesGetsTheLastState stops reading while others go on.
func TestSlowViewerOfSharedFramesGetsTheLastState(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	a := r.connect("a")
	a.hello("st", 1, 1)
	slow, quick := r.watch(hub.Subscription{}), r.watch(hub.Subscription{})
	slow.next()
	slow.v.Next(nil) // arms it
	for seq := uint64(1); seq <= 20; seq++ {
		a.send(`{"m":"data","s":%d,"t":%d,"r":[[%d,0,%d]]}`, seq, t0, 1+seq%2, seq)
		a.ack(seq)
		quick.until(fmt.Sprintf(`"v":%d`, seq))
	}
	frames := 0
	for text := ""; !strings.Contains(text, `"v":20`) || !strings.Contains(text, `"v":19`); frames++ {
		var f string
		f, _ = slow.next()
		text += f
	}
	if frames > 2 {
		t.Errorf("a slow viewer got %d frames, want its changes conflated", frames)
	}
}

// TestWhoComesBackSeesNothingOlderThanItsSnapshot has a viewer that read its snapshot late, and so knows more than its token says.
func TestWhoComesBackSeesNothingOlderThanItsSnapshot(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.add("a")
		s := hub.Subscription{Tick: time.Hour}
		watch := func() (*hub.Viewer, func() (string, string)) {
			v, err := r.hub.Subscribe(t.Context(), s, newPeer())
			if err != nil {
				t.Fatal(err)
			}
			return v, func() (string, string) {
				synctest.Wait()
				frame, token, _ := v.Next(nil)
				return string(frame), token
			}
		}
		prompt, next := watch()
		defer prompt.End()
		next()
		next() // nothing: it waits
		late, nextLate := watch()
		r.ingest("a", `{"temperature":1}`)
		if frame, _ := next(); !strings.Contains(frame, `"v":1}`) {
			t.Fatalf("the prompt viewer got %s", frame)
		}
		r.ingest("a", `{"temperature":2}`)
		frame, token := nextLate()
		if !strings.Contains(frame, `"v":2}`) {
			t.Fatalf("the snapshot is %s", frame)
		}
		late.End()
		s.After = token
		late, nextLate = watch()
		defer late.End()
		if frame, _ = nextLate(); strings.Contains(frame, `"v":1}`) {
			t.Errorf("what was 2 before is 1 again: %s", frame)
		}
	})
}

// TestCrowdedViewsKeepLittle has a viewer that never reads beside one that does.
func TestCrowdedViewsKeepLittle(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.add("a")
		for _, mode := range []hub.Mode{hub.Latest, hub.All} {
			s := hub.Subscription{Mode: mode, Tick: -1}
			stuck, err := r.hub.Subscribe(t.Context(), s, newPeer())
			if err != nil {
				t.Fatal(err)
			}
			w := r.watch(s)
			w.next()
			r.hub.Crowd(true)
			_, before, _ := r.hub.Views()
			for range 100 {
				w.v.Next(nil)
				r.ingest("a", fmt.Sprintf(`{"note":%q}`, strings.Repeat("x", 3000)))
				synctest.Wait()
				if frame, _ := w.next(); !strings.Contains(frame, "note") {
					t.Fatalf("got %s", frame)
				}
				if _, now, _ := r.hub.Views(); now-before > 8<<10 {
					t.Fatalf("mode %d: %d bytes are kept for a viewer that does not read", mode, now-before)
				}
			}
			r.hub.Crowd(false)
			w.v.End()
			stuck.End()
		}
	})
}

// TestTickHoldsForSharedViewers counts frames.
func TestTickHoldsForSharedViewers(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	a := r.connect("a")
	a.hello("st", 1, 1)
	const tick = 150 * time.Millisecond
	p := newPeer()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	v, err := r.hub.Subscribe(ctx, hub.Subscription{Tick: tick}, p)
	if err != nil {
		t.Fatal(err)
	}
	defer v.End()
	take(t, v, p)
	began, frames, value := time.Now(), 0, 0
	for seq := uint64(1); value < 100; seq++ {
		if seq <= 100 {
			a.send(`{"m":"data","s":%d,"t":%d,"r":[[1,%d,%d]]}`, seq, t0, seq, seq)
			a.ack(seq)
			continue
		}
		for _, n := range values(t, take(t, v, p)) {
			value = n
		}
		frames++
	}
	if most := 2 + int(time.Since(began)/tick); frames > most {
		t.Errorf("%d frames in %v, want at most %d", frames, time.Since(began), most)
	}
}

// TestManyViewersAreWokenInPortions has so many viewers of one view that to write to all of them at once would take long.
func TestManyViewersAreWokenInPortions(t *testing.T) {
	const many = 2000
	for tick, spread := range map[time.Duration]time.Duration{100 * time.Millisecond: 50 * time.Millisecond, -1: 0} {
		inBubble(t, func(r *rig) {
			r.add("a")
			type viewer struct {
				*hub.Viewer
				*peer
			}
			var list []viewer
			for range many {
				p := newPeer()
				v, err := r.hub.Subscribe(t.Context(), hub.Subscription{Tick: tick}, p)
				if err != nil {
					t.Fatal(err)
				}
				defer v.End()
				list = append(list, viewer{v, p})
			}
			// look returns how many were woken, and lets them read everything.
			look := func() (n int) {
				synctest.Wait()
				for _, v := range list {
					select {
					case <-v.wake:
						n++
					default:
						continue
					}
					for ok := true; ok; {
						_, _, ok = v.Next(nil)
					}
				}
				return n
			}
			look()                    // the snapshots
			<-time.After(time.Second) // the tick is over
			r.ingest("a", `{"temperature":1}`)
			if n := look(); n != many {
				t.Errorf("with a tick of %v %d of %d were woken at once by a change that came alone", tick, n, many)
			}
			r.ingest("a", `{"temperature":2}`)
			woken := 0
			for began := time.Now(); time.Since(began) <= max(tick, 0)+spread; <-time.After(time.Millisecond) {
				n := look()
				if woken += n; spread > 0 && n > many/25 {
					t.Errorf("with a tick of %v %d were woken at once by one of many changes", tick, n)
				}
			}
			if woken != many {
				t.Errorf("with a tick of %v %d of %d were woken within %v", tick, woken, many, spread)
			}
		})
	}
}
