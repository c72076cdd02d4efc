package hub_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/storage"
)

// TestViewsShowWhatTheModelShows has viewers of many kinds read, lag, leave, come back and change what they see while readings
// and names come in, and compares what they were shown with a list. To see one run again: -run name/seed.
func TestViewsShowWhatTheModelShows(t *testing.T) {
	for seed := range uint64(16) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(24 * time.Hour) // to where times are accepted
				w := newViewWorld(t, seed)
				for range 200 {
					w.step()
				}
				w.settle()
				w.end()
			})
		})
	}
}

// fact is one reading, whose value is its place in the list.
type fact struct {
	device device.ID
	metric string
}

// viewWorld is a hub, those who watch it, and what they should see.
type viewWorld struct {
	*rig
	*rand.Rand
	facts   []fact
	names   map[device.ID]int
	gone    map[device.ID]bool
	devices []device.ID
	crowded bool
	small   bool // viewers may be too slow
	viewers []*witness
}

func newViewWorld(t *testing.T, seed uint64) *viewWorld {
	random := rand.New(rand.NewPCG(seed, 1))
	o := hub.Options{CommitInterval: time.Microsecond, TailBytes: 256 << 20}
	small := random.IntN(4) == 0
	if small {
		o.TailBytes = 32 << 10
	}
	w := &viewWorld{rig: newRig(t, o), Rand: random, small: small, names: map[device.ID]int{}, gone: map[device.ID]bool{}}
	for _, id := range []device.ID{"a", "b", "c1", "c2", "c3"} {
		w.add(id)
		w.devices = append(w.devices, id)
	}
	synctest.Wait()
	return w
}

// witness is a viewer that notes what it is shown.
type witness struct {
	w      *viewWorld
	sub    hub.Subscription
	see    func(fact) bool
	v      *hub.Viewer
	p      *peer
	once   bool // it looks once, and comes back to look again
	again  bool // Next has not returned false since the last wake-up
	token  string
	most   int // mode all: how many facts there were when it began
	next   int // mode all: the fact that is next is this or, if it has seen none, at most most; -1 if it has seen none
	state  map[string]int
	gone   map[string]bool
	before []string
}

func (w *viewWorld) subscription() (hub.Subscription, func(fact) bool) {
	s := hub.Subscription{Mode: hub.Mode(w.IntN(2)), Tick: []time.Duration{-1, -1, 0, time.Hour}[w.IntN(4)], Once: w.IntN(4) == 0}
	only := func(fact) bool { return true }
	switch w.IntN(4) {
	case 0:
		s.Devices = []string{"a"}
		only = func(f fact) bool { return f.device == "a" }
	case 1:
		s.Metrics = []string{"hum*", "none"}
		only = func(f fact) bool { return strings.HasPrefix(f.metric, "hum") }
	}
	s.Packing = []hub.Packing{nil, nil, squeeze{40}, squeeze{1 << 20}}[w.IntN(4)]
	if w.IntN(5) == 0 {
		s.Scope = func(id device.ID) bool { return id != "b" }
	}
	return s, func(f fact) bool { return only(f) && (s.Scope == nil || s.Scope(f.device)) }
}

func (x *witness) begin() {
	x.w.t.Helper()
	x.p = newPeer()
	v, err := x.w.hub.Subscribe(x.w.t.Context(), x.sub, x.p)
	if errors.Is(err, hub.ErrResume) && x.forgotten() {
		x.sub.After = ""
		v, err = x.w.hub.Subscribe(x.w.t.Context(), x.sub, x.p)
	}
	if err != nil {
		x.w.t.Fatalf("subscribe after %q: %v", x.sub.After, err)
	}
	x.v, x.once, x.again = v, x.sub.Once, true
	if x.sub.After == "" {
		x.fresh()
	}
}

// forgotten reports whether the log no longer holds what comes after the token.
func (x *witness) forgotten() bool {
	_, place, _ := strings.Cut(x.token, "-")
	place, _, _ = strings.Cut(place, "-")
	pos, err := strconv.ParseUint(place, 36, 64)
	return x.sub.Mode == hub.All && err == nil && storage.Position(pos) < x.w.stores.Log.First()
}

func (x *witness) fresh() {
	x.token, x.most, x.next = "", len(x.w.facts), -1
	x.state, x.gone = map[string]int{}, map[string]bool{}
}

func (x *witness) log(format string, args ...any) {
	x.before = append(x.before, fmt.Sprintf(format, args...))
}

// read takes at most so many frames, and reports whether there were any.
func (x *witness) read(most int) (any bool) {
	x.w.t.Helper()
	for range most {
		frame, token, ok := x.frame()
		if x.p.code() != 0 {
			if !x.w.small || x.p.code() != wire.CloseSlow && !(x.p.code() == wire.CloseResume && x.forgotten()) {
				x.w.t.Fatalf("closed with %d: %s", x.p.code(), x.p.reason)
			}
			x.leave()
			x.come()
			return true
		}
		if !ok {
			x.again = false
			return any
		}
		any = true
		x.take(frame)
		if token != "" {
			x.token = token
		}
	}
	return any
}

// frame reads one as whoever has agreed on the packing does.
func (x *witness) frame() (frame []byte, token string, ok bool) {
	x.w.t.Helper()
	out, token, packed, ok := x.v.NextPacked([]byte("before"))
	if !bytes.HasPrefix(out, []byte("before")) {
		x.fail("what was there before is %.20q", out)
	}
	if frame = out[len("before"):]; packed {
		frame = x.unsqueeze(frame, token)
	} else if s, packs := x.sub.Packing.(squeeze); ok && packs && len(frame) >= s.least {
		x.fail("a frame of %d bytes was not packed", len(frame))
	}
	return frame, token, ok
}

func (x *witness) leave() {
	x.log("leave")
	if x.w.IntN(2) == 0 {
		x.v.Leave()
		for ok := x.w.IntN(2) == 0; ok; {
			var frame []byte
			var token string
			if frame, token, ok = x.frame(); ok {
				x.take(frame)
			}
			if token != "" {
				x.token = token
			}
		}
	}
	x.v.End()
}

// come comes back after the last token.
func (x *witness) come() {
	x.w.t.Helper()
	x.sub.After = x.token
	x.log("come after %s", x.token)
	x.begin()
}

func (x *witness) fail(format string, args ...any) {
	x.w.t.Helper()
	from := max(0, len(x.before)-12)
	x.w.t.Fatalf("%s\nmode %d tick %v devices %v metrics %v scope %t\n%s", fmt.Sprintf(format, args...), x.sub.Mode, x.sub.Tick, x.sub.Devices,
		x.sub.Metrics, x.sub.Scope != nil, strings.Join(x.before[from:], "\n"))
}

func (x *witness) take(frame []byte) {
	x.w.t.Helper()
	x.log("%.120s … %s", frame, frame[max(0, len(frame)-100):])
	var f struct {
		Readings [][]any
		Devices  []struct {
			ID, Name string
			Gone     bool
			Metrics  map[string]struct{ V any }
		}
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		x.fail("%v: %s", err, frame)
	}
	for _, r := range f.Readings {
		x.reading(index(r[3]))
	}
	for _, d := range f.Devices {
		if d.Gone {
			x.gone[d.ID] = true
		}
		if d.Name != "" {
			x.newer(d.ID+" name", index(d.Name))
		}
		for name, m := range d.Metrics {
			if !x.see(fact{device.ID(d.ID), name}) {
				x.fail("it was shown %s of %s", name, d.ID)
			}
			x.newer(d.ID+" "+name, index(m.V))
		}
	}
}

// index reads a value: a number, or a number with something behind.
func index(v any) int {
	switch v := v.(type) {
	case float64:
		return int(v)
	case string:
		n, _, _ := strings.Cut(v, " ")
		i, _ := strconv.Atoi(n)
		return i
	}
	return -1
}

func (x *witness) newer(key string, n int) {
	x.w.t.Helper()
	if old, ok := x.state[key]; ok && n < old && x.sub.Mode == hub.Latest {
		x.fail("%s went back from %d to %d", key, old, n)
	}
	x.state[key] = max(x.state[key], n)
}

// following returns the first fact from n on that the viewer sees.
func (x *witness) following(n int) int {
	for n < len(x.w.facts) && (!x.see(x.w.facts[n]) || x.w.gone[x.w.facts[n].device]) {
		n++
	}
	return n
}

func (x *witness) reading(n int) {
	x.w.t.Helper()
	switch {
	case x.next < 0 && n > x.following(x.most):
		x.fail("the first reading is %d of %d at the beginning", n, x.most)
	case x.next >= 0 && strings.HasPrefix(string(x.w.facts[n].device), "c"): // may be deleted
		if n < x.next {
			x.fail("reading %d after %d", n, x.next-1)
		}
	case x.next >= 0:
		want := x.next
		for want = x.following(want); strings.HasPrefix(string(x.w.facts[want].device), "c") && want != n; want = x.following(want + 1) {
		}
		if n != want {
			x.fail("reading %d, want %d", n, want)
		}
	}
	x.next = n + 1
}

// step does one thing.
func (w *viewWorld) step() {
	switch k := w.IntN(24); {
	case k < 5:
		w.ingestSome(1+w.IntN(3), 0)
	case k == 5:
		w.ingestSome(1+w.IntN(250), 4000) // some together are more than a ring
	case k == 6:
		id := w.devices[w.IntN(len(w.devices))]
		if !w.gone[id] {
			w.names[id]++
			name := fmt.Sprint(w.names[id], " name")
			if _, err := w.hub.UpdateDevice(w.t.Context(), id, hub.DevicePatch{Name: &name}); err != nil {
				w.t.Fatal(err)
			}
		}
	case k == 7 && w.IntN(6) == 0:
		id := device.ID(fmt.Sprint("c", 1+w.IntN(3)))
		if !w.gone[id] {
			if err := w.hub.DeleteDevice(w.t.Context(), id); err != nil {
				w.t.Fatal(err)
			}
			w.gone[id] = true
		}
	case k == 8 && w.IntN(3) == 0:
		w.crowded = !w.crowded
		w.hub.Crowd(w.crowded)
	case k == 9:
		time.Sleep([]time.Duration{time.Millisecond, 60 * time.Millisecond, 200 * time.Millisecond, time.Second}[w.IntN(4)])
		if w.IntN(10) == 0 {
			time.Sleep(time.Hour)
		}
	case k < 12 && len(w.viewers) < 12:
		x := &witness{w: w}
		x.sub, x.see = w.subscription()
		if n := len(w.viewers); n > 0 && w.IntN(3) > 0 { // one that sees the same
			other := w.viewers[w.IntN(n)]
			x.sub, x.see = other.sub, other.see
			x.sub.After, x.sub.Once = "", w.IntN(4) == 0
		}
		x.begin()
		w.viewers = append(w.viewers, x)
	case len(w.viewers) == 0:
	case k == 12:
		i := w.IntN(len(w.viewers))
		w.viewers[i].v.End()
		w.viewers = append(w.viewers[:i], w.viewers[i+1:]...)
	case k == 13:
		x := w.viewers[w.IntN(len(w.viewers))]
		x.leave()
		x.come()
	case k == 14 && w.IntN(2) == 0:
		x := w.viewers[w.IntN(len(w.viewers))]
		x.sub.Packing = []hub.Packing{nil, squeeze{40}}[w.IntN(2)]
		x.log("set packing %v", x.sub.Packing)
		x.v.SetPacking(x.sub.Packing)
		x.again = true
	case k == 14:
		x := w.viewers[w.IntN(len(w.viewers))]
		x.sub, x.see = w.subscription()
		x.sub.Once = x.once
		x.log("change")
		if err := x.v.Change(x.sub); err != nil {
			w.t.Fatal(err)
		}
		x.fresh()
		x.again = true
	default:
		x := w.viewers[w.IntN(len(w.viewers))]
		x.look()
		if x.again {
			x.read([]int{1, 2, 1000}[w.IntN(3)])
		}
	}
	if w.IntN(3) > 0 {
		synctest.Wait()
	}
	if n := w.hub.Status().Viewers; n != len(w.viewers) {
		w.t.Fatalf("%d viewers are counted, want %d", n, len(w.viewers))
	}
}

// ingestSome takes some readings, with up to this many bytes besides.
func (w *viewWorld) ingestSome(times, size int) {
	for range times {
		f := fact{w.devices[w.IntN(len(w.devices))], []string{"temp", "humid", "hum2"}[w.IntN(3)]}
		if w.gone[f.device] {
			continue
		}
		n := len(w.facts)
		if size > 0 {
			f.metric += "text"
			w.facts = append(w.facts, f)
			w.ingest(f.device, fmt.Sprintf(`[{"n":%q,"vs":"%d %s"}]`, f.metric, n, strings.Repeat("x", 1+w.IntN(size))))
			continue
		}
		w.facts = append(w.facts, f)
		w.ingest(f.device, fmt.Sprintf(`[{"n":%q,"v":%d}]`, f.metric, n))
	}
}

// look takes the wake-up if there is one. Who looks once gets none, and comes back.
func (x *witness) look() {
	x.w.t.Helper()
	select {
	case <-x.p.wake:
		if x.once {
			x.fail("it is woken, and has looked already")
		}
		x.again = true
	default:
		if x.once && !x.again {
			x.leave()
			x.come()
		}
	}
}

// settle lets everybody read all that they are woken for.
func (w *viewWorld) settle() {
	w.t.Helper()
	if w.crowded && w.IntN(2) == 0 {
		w.crowded = false
		w.hub.Crowd(false)
	}
	synctest.Wait()
	for _, x := range w.viewers {
		if x.once { // it waits for nothing, and later the log may have forgotten what it missed
			for range 2 {
				for x.look(); x.again; {
					x.read(1000)
				}
			}
			x.check()
		}
	}
	for idle := 0; idle < 3; idle++ {
		synctest.Wait()
		for _, x := range w.viewers {
			for x.look(); x.again; {
				if x.read(1000) {
					idle = 0
				}
			}
		}
		time.Sleep(time.Hour + time.Second)
	}
	for _, x := range w.viewers {
		x.check()
	}
}

// check compares what was shown with what there is.
func (x *witness) check() {
	x.w.t.Helper()
	newest := map[string]int{}
	last := -1
	for i, f := range x.w.facts {
		if x.see(f) && !x.w.gone[f.device] {
			newest[string(f.device)+" "+f.metric], last = i, i
		}
	}
	for id, n := range x.w.names {
		if x.see(fact{id, "hum"}) && !x.w.gone[id] {
			newest[string(id)+" name"] = n
		}
	}
	if x.sub.Mode == hub.All {
		if x.next >= 0 && x.next <= last || x.next < 0 && last >= x.most && !strings.HasPrefix(string(x.w.facts[last].device), "c") {
			x.fail("the last reading was %d of %d", x.next-1, last)
		}
		return
	}
	for key, n := range newest {
		if x.state[key] != n {
			x.fail("%s is %d, want %d", key, x.state[key], n)
		}
	}
	for id := range x.gone {
		if !x.w.gone[device.ID(id)] {
			x.fail("%s is said to be gone", id)
		}
	}
}

// end lets everybody go and looks whether anything is left.
func (w *viewWorld) end() {
	w.t.Helper()
	for _, x := range w.viewers {
		x.v.End()
	}
	if w.crowded {
		w.hub.Crowd(false)
	}
	synctest.Wait()
	if shared, bytes, armed := w.hub.Views(); shared != 0 || bytes != 0 || armed != 0 {
		w.t.Errorf("%d views with %d bytes, %d of them waiting, after all viewers have left", shared, bytes, armed)
	}
	if n := w.hub.Status().Viewers; n != 0 {
		w.t.Errorf("%d viewers are counted after all have left", n)
	}
}
