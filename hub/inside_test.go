package hub

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

// deaf is a peer that notes only why it was closed.
type deaf struct{ closed chan wire.CloseCode }

func newDeaf() *deaf { return &deaf{make(chan wire.CloseCode, 16)} }

func (p *deaf) Wake()                               { /* nobody writes */ }
func (p *deaf) Close(code wire.CloseCode, _ string) { p.closed <- code }

// still is a hub with one device, a, that does not run.
func still(t *testing.T) (*Hub, *entity) {
	t.Helper()
	h, err := Open(t.Context(), Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.history.Close(); err != nil {
			t.Error(err)
		}
	})
	if _, err := h.AddDevice(t.Context(), "a", DeviceAttrs{}); err != nil {
		t.Fatal(err)
	}
	return h, h.registry.lookup("a")
}

func (h *Hub) mustConnect(t *testing.T, id device.ID) *Session {
	t.Helper()
	s, err := h.Connect(t.Context(), id, newDeaf(), ConnectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func until(t *testing.T, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !true(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in 10 s", what)
		}
	}
}

// TestDeviceThatIsBackStaysConnectedWhileItsLastSessionEnds holds up the end of a session until the next has begun.
func TestDeviceThatIsBackStaysConnectedWhileItsLastSessionEnds(t *testing.T) {
	h, e := still(t)
	old := h.mustConnect(t, "a")
	old.setStream(&stream{refs: 1})
	h.queue.mu.Lock()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		old.End()
	}()
	until(t, "the session lets go of the device", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.session == nil
	})
	back := h.mustConnect(t, "a")
	h.queue.mu.Unlock()
	<-ended
	if e.live.sessions == 0 {
		t.Error("a device with a session counts as gone")
	}
	back.End()
	if e.live.sessions != 0 {
		t.Error("a device without a session counts as there")
	}
}

// TestWhoConnectsTooLateGetsNoSession holds up a connection until those who end sessions have passed by.
func TestWhoConnectsTooLateGetsNoSession(t *testing.T) {
	for want, change := range map[error]func(*Hub, *entity){
		ErrUnknownDevice: func(_ *Hub, e *entity) { e.deleted.Store(true) },
		ErrDraining:      func(h *Hub, _ *entity) { h.draining.Store(true) },
	} {
		h, e := still(t)
		result := make(chan error, 1)
		e.mu.Lock()
		go func() {
			_, err := h.Connect(context.WithoutCancel(t.Context()), "a", newDeaf(), ConnectOptions{})
			result <- err
		}()
		until(t, "the device was found", func() bool { return h.sessions.Load() == 1 })
		change(h, e)
		e.mu.Unlock()
		if err := <-result; !errors.Is(err, want) || h.sessions.Load() != 0 {
			t.Errorf("got %v and %d sessions, want %v and none", err, h.sessions.Load(), want)
		}
	}
}

// TestWhoSubscribesTooLateSeesNothing holds up a viewer until those who close viewers have passed by.
func TestWhoSubscribesTooLateSeesNothing(t *testing.T) {
	h, _ := still(t)
	result := make(chan error, 1)
	h.viewersMu.Lock()
	go func() {
		_, err := h.Subscribe(context.WithoutCancel(t.Context()), Subscription{}, newDeaf())
		result <- err
	}()
	until(t, "the viewer has begun", func() bool {
		h.views.mu.Lock()
		defer h.views.mu.Unlock()
		return len(h.views.byKey) == 1
	})
	h.draining.Store(true)
	h.viewersMu.Unlock()
	if err := <-result; !errors.Is(err, ErrDraining) || h.viewers.Load() != 0 || len(h.viewerSet) != 0 || len(h.views.byKey) != 0 {
		t.Errorf("got %v, %d viewers and %d views, want %v and none", err, h.viewers.Load(), len(h.views.byKey), ErrDraining)
	}
}

// TestTokensHoldNothingThatAHubDoesNotWrite has tokens that are taken back to where they came from, inside JSON and headers.
func TestTokensHoldNothingThatAHubDoesNotWrite(t *testing.T) {
	h, _ := still(t)
	for token, good := range map[string]bool{
		h.epoch + "-0":                true,
		h.epoch + "-0.another.1":      true,
		h.epoch + "-0.\"},{\".1":      false,
		h.epoch + "-0.a\r\nb.1":       false,
		h.epoch + "-0.a.1.\u00e4":     false,
		h.epoch + "-0." + h.run + ".": false,
	} {
		for _, mode := range []Mode{Latest, All} {
			v, err := h.Subscribe(t.Context(), Subscription{Mode: mode, After: token}, newDeaf())
			if good != (err == nil) || err != nil && !errors.Is(err, ErrResume) {
				t.Errorf("mode %d, %q: %v", mode, token, err)
			}
			if err == nil {
				v.End()
			}
		}
	}
}

func TestViewersThatHaveLeftAreForgotten(t *testing.T) {
	h, _ := still(t)
	for range 100 {
		v, err := h.Subscribe(t.Context(), Subscription{Tick: -1}, newDeaf())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			for ok := true; ok; {
				_, _, ok = v.Next(nil)
			}
			if err := v.Change(Subscription{Tick: -1}); err != nil {
				t.Fatal(err)
			}
		}
		v.End()
	}
	if n := len(h.live.armed); n != 0 {
		t.Errorf("%d viewers that have left still wait for a change", n)
	}
}

// faulty is a catalog that makes whoever asks it panic, once that is said.
type faulty struct {
	storage.Catalog
	now bool
}

func (f *faulty) Get(ctx context.Context, key string) ([]byte, storage.Revision, error) {
	if f.now {
		panic("planted")
	}
	return f.Catalog.Get(ctx, key)
}

func (f *faulty) Put(ctx context.Context, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
	if f.now {
		panic("planted")
	}
	return f.Catalog.Put(ctx, key, value, expect)
}

func TestPanicLeavesNoLockBehind(t *testing.T) {
	h, e := still(t)
	defer h.workers.stop()
	catalog := &faulty{Catalog: h.catalog}
	h.catalog, h.registry.catalog, h.streams.catalog = catalog, catalog, catalog
	catalog.now = true
	for _, frame := range []string{
		`{"m":"hello","st":"s","next":1,"have":1}`,
		`{"m":"birth","id":"1","metrics":[{"a":1,"n":"temperature"}]}`,
		`{"temperature":21.4}`,
	} {
		s := h.mustConnect(t, "a")
		if err := s.Receive(t.Context(), wire.JSON, []byte(frame)); !errors.Is(err, errPanic) {
			t.Errorf("%s: %v, want errPanic", frame, err)
		}
		if !e.mu.TryLock() {
			t.Fatalf("%s: the device stays locked for ever", frame)
		}
		e.mu.Unlock()
		s.End()
	}
	func() {
		defer func() { _ = recover() }() // planted: no schema has that place
		h.live.state(e, &device.Schema{}, []device.Row{{Ref: device.SingleRef(7), Values: []device.Value{device.NumberValue(1)}}}, 1)
	}()
	if !h.live.mu.TryLock() {
		t.Fatal("the live state stays locked for ever")
	}
	h.live.mu.Unlock()
	for _, after := range []string{"", h.epoch + "-0"} {
		v, err := h.Subscribe(t.Context(), Subscription{After: after, Tick: -1, Scope: func(device.ID) bool { panic("planted") }}, newDeaf())
		if err != nil {
			t.Fatal(err)
		}
		if after != "" {
			v.snapshot = nil // has been sent
			h.live.deviceChanged(e)
		}
		func() {
			defer func() { _ = recover() }() // planted
			v.Next(nil)
		}()
		if !h.live.mu.TryLock() {
			t.Fatal("the live state stays locked for ever after a viewer")
		}
		h.live.mu.Unlock()
		v.End()
	}
}

func TestFramesInMemoryThatWasMadeForLargerOnesAreBounded(t *testing.T) {
	h, _ := still(t)
	w := &view{hub: h}
	for range 100 {
		body := append(make([]byte, 0, 2*frameBytes), "small"...)
		w.push(sharedFrame{body: &body})
	}
	held := 0
	for _, f := range w.ring {
		held += cap(*f.body)
	}
	if held > 2*ringBytes || len(w.ring) == 0 {
		t.Errorf("%d frames hold %d bytes, want at most %d", len(w.ring), held, 2*ringBytes)
	}
	if w.clear(); w.bytes != 0 || h.views.bytes.Load() != 0 {
		t.Errorf("%d bytes and %d of all are counted for no frames", w.bytes, h.views.bytes.Load())
	}
}

func TestViewsEndWithTheirViewers(t *testing.T) {
	h, e := still(t)
	defer h.workers.stop()
	var viewers []*Viewer
	for i := range 9 {
		s := Subscription{Tick: -1, Mode: Mode(i % 2)}
		if i > 5 {
			s.Scope = func(device.ID) bool { return true }
		}
		v, err := h.Subscribe(t.Context(), s, newDeaf())
		if err != nil {
			t.Fatal(err)
		}
		viewers = append(viewers, v)
	}
	if n := len(h.views.byKey); n != 2 {
		t.Errorf("%d views are shared, want one for each mode", n)
	}
	for v := range 2 {
		for _, _, ok := viewers[v].Next(nil); ok; _, _, ok = viewers[v].Next(nil) {
		}
	}
	h.live.deviceChanged(e) // has its view write a frame, which nobody takes
	for _, v := range viewers {
		v.End()
		v.End()
	}
	if len(h.views.byKey) != 0 || h.views.bytes.Load() != 0 || len(h.live.armed) != 0 {
		t.Errorf("%d views with %d bytes, %d of them waiting, after their viewers have left",
			len(h.views.byKey), h.views.bytes.Load(), len(h.live.armed))
	}
}
