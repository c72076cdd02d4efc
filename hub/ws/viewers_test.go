package ws_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/ws"
)

// fakeFeed gives every viewer a frame that says what it subscribed to.
type fakeFeed struct {
	viewers chan *fakeViewer
	err     error // of Subscribe
	next    func(dst []byte) ([]byte, bool)
	woken   func() // runs when Subscribe has called Wake
}

func newFakeFeed() *fakeFeed { return &fakeFeed{viewers: make(chan *fakeViewer, 1000)} }

type fakeViewer struct {
	feed  *fakeFeed
	peer  hub.Peer
	ended chan struct{}
	sent  atomic.Int64

	mu   sync.Mutex // guards the fields below
	subs []hub.Subscription
	out  []string
}

func (f *fakeFeed) Subscribe(_ context.Context, s hub.Subscription, p hub.Peer) (*fakeViewer, error) {
	if f.err != nil {
		return nil, f.err
	}
	v := &fakeViewer{feed: f, peer: p, ended: make(chan struct{})}
	_ = v.Change(s)
	if f.woken != nil {
		f.woken()
	}
	f.viewers <- v
	return v, nil
}

func (v *fakeViewer) Change(s hub.Subscription) error {
	if len(s.Devices) > 0 && s.Devices[0] == "bad" {
		return &hub.BadInput{Text: "a bad pattern"}
	}
	v.mu.Lock()
	v.subs = append(v.subs, s)
	v.out = append(v.out, fmt.Sprintf("%v %v %d %q %v", s.Devices, s.Metrics, s.Mode, s.After, s.Tick))
	v.mu.Unlock()
	v.peer.Wake()
	return nil
}

// NextPacked packs as the subscription says.
func (v *fakeViewer) NextPacked(dst []byte) (frame []byte, token string, packed, ok bool) {
	v.sent.Add(1)
	if v.feed.next != nil {
		frame, ok := v.feed.next(dst)
		return frame, "", false, ok
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.out) == 0 {
		return dst, "", false, false
	}
	text := []byte(v.out[0])
	v.out = v.out[1:]
	if p := v.subs[len(v.subs)-1].Packing; p != nil {
		if frame, packed = p.Pack(dst, text, "token"); packed {
			return frame, "token", true, true
		}
	}
	return append(dst, text...), "token", false, true
}

func (v *fakeViewer) End() { close(v.ended) }

// viewers serves a Viewers on f.
func viewers(t testing.TB, f *fakeFeed, o ws.Options) (*site, *fakeAuth) {
	t.Helper()
	if o.Metrics == nil {
		o.Metrics = new(ws.Metrics)
	}
	auth := newFakeAuth()
	v, err := ws.NewViewers(f.Subscribe, auth, o)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, v, o.Metrics), auth
}

func TestSubscriptionReachesTheHub(t *testing.T) {
	for name, c := range map[string]struct{ message, want string }{
		"everything": {`{"subscribe":{}}`, `[] [] 0 "" 0s`},
		"all fields": {`{"subscribe":{"devices":["a","b*"],"metrics":["*"],"mode":"all","after":"x-1","tick":250}}`, `[a b*] [*] 1 "x-1" 250ms`},
		"at once":    {`{"subscribe":{"mode":"latest","tick":-1}}`, `[] [] 0 "" -1ms`},
		"never":      {`{"subscribe":{"tick":1e300}}`, `[] [] 0 "" 1h0m0s`},
		"unknown":    {`{"subscribe":{"colour":"red"},"id":7}`, `[] [] 0 "" 0s`},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := viewers(t, newFakeFeed(), ws.Options{})
			v := dial(t, s.addr, "viewer")
			v.put(masked(fin|opText, c.message))
			v.want(opText, c.want)
		})
	}
}

func TestOnlyTheFirstSubscriptionIsGreeted(t *testing.T) {
	f := newFakeFeed()
	s, _ := viewers(t, f, ws.Options{})
	c := dial(t, s.addr, "viewer")
	for range 2 {
		c.put(masked(fin|opText, `{"subscribe":{}}`))
		c.want(opText, `[] [] 0 "" 0s`)
	}
	v := <-f.viewers
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.subs) != 2 || !v.subs[0].Greet || v.subs[1].Greet {
		t.Errorf("the subscriptions are %+v", v.subs)
	}
}

func TestBadSubscriptionIsRefusedWithAReason(t *testing.T) {
	for name, c := range map[string]struct {
		op      byte
		message string
		code    uint16
		reason  string
	}{
		"not JSON":    {opText, `subscribe`, 4500, "not a subscription"},
		"other thing": {opText, `{"temperature":21}`, 4500, `{"subscribe":`},
		"wrong type":  {opText, `{"subscribe":{"devices":"a"}}`, 4500, "not a subscription"},
		"mode":        {opText, `{"subscribe":{"mode":"some"}}`, 4500, "use latest or all"},
		"binary":      {opBinary, `{"subscribe":{}}`, 4500, "text frames"},
		"pattern":     {opText, `{"subscribe":{"devices":["bad"]}}`, 4500, "a bad pattern"},
		"too large":   {opText, `{"subscribe":{"after":"` + strings.Repeat("x", 4<<10) + `"}}`, 4513, "too big"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeFeed()
			s, _ := viewers(t, f, ws.Options{})
			v := dial(t, s.addr, "viewer")
			if name == "pattern" { // the fake looks at it in Change only
				v.put(masked(fin|opText, `{"subscribe":{}}`))
			}
			v.put(masked(fin|c.op, c.message))
			if got := v.wantClose(c.code); !strings.Contains(got, c.reason) {
				t.Errorf("closed with %q, want something with %q", got, c.reason)
			}
		})
	}
}

func TestTokenThatIsTooOldClosesWith4010(t *testing.T) {
	f := newFakeFeed()
	f.err = fmt.Errorf("look: %w", hub.ErrResume)
	s, _ := viewers(t, f, ws.Options{})
	v := dial(t, s.addr, "viewer")
	v.put(masked(fin|opText, `{"subscribe":{"after":"old"}}`))
	v.wantClose(4010)
}

func TestLaterMessageChangesTheSubscription(t *testing.T) {
	f := newFakeFeed()
	s, _ := viewers(t, f, ws.Options{})
	c := dial(t, s.addr, "viewer")
	c.put(masked(fin|opText, `{"subscribe":{"devices":["a"]}}`))
	c.want(opText, `[a] [] 0 "" 0s`)
	c.put(masked(fin|opText, `{"subscribe":{"devices":["b"],"mode":"all"}}`))
	c.want(opText, `[b] [] 1 "" 0s`)
	v := wait(t, f.viewers, "the viewer")
	c.put(closeFrame(1000, ""))
	wait(t, v.ended, "the end of the subscription")
	if len(f.viewers) != 0 {
		t.Error("the change began a second subscription")
	}
}

func TestViewerSeesOnlyItsScope(t *testing.T) {
	for token, want := range map[string]map[device.ID]bool{
		"viewer": nil,
		"scoped": {"cellar-1": true, "cellar-": true, "attic": false},
	} {
		f := newFakeFeed()
		s, _ := viewers(t, f, ws.Options{})
		c := dial(t, s.addr, token)
		c.put(masked(fin|opText, `{"subscribe":{"devices":["*"]}}`), masked(fin|opText, `{"subscribe":{}}`))
		v := wait(t, f.viewers, "the viewer")
		for range 2 {
			if _, _, err := c.read(); err != nil {
				t.Fatal(err)
			}
		}
		v.mu.Lock()
		for i, sub := range v.subs {
			if (sub.Scope == nil) != (want == nil) {
				t.Fatalf("%s, subscription %d: scope is nil: %v", token, i, sub.Scope == nil)
			}
			got := map[device.ID]bool{}
			for id := range want {
				got[id] = sub.Scope(id)
			}
			if want != nil && !reflect.DeepEqual(got, want) {
				t.Errorf("%s, subscription %d: sees %v, want %v", token, i, got, want)
			}
		}
		v.mu.Unlock()
	}
}

func TestViewerThatChangesTooOftenIsClosed(t *testing.T) {
	f := newFakeFeed()
	s, _ := viewers(t, f, ws.Options{})
	c := dial(t, s.addr, "viewer")
	for range 30 {
		c.put(masked(fin|opText, `{"subscribe":{}}`))
	}
	c.wantClose(4029)
	v := wait(t, f.viewers, "the viewer")
	wait(t, v.ended, "the end of the subscription")
	if n := len(v.subs); n > 15 {
		t.Errorf("%d subscriptions got through", n)
	}
}

func TestViewerThatNeverReadsIsCut(t *testing.T) {
	f := newFakeFeed()
	big := strings.Repeat("x", 300<<10)
	f.next = func(dst []byte) ([]byte, bool) { return append(dst, big...), true }
	s, _ := viewers(t, f, ws.Options{WriteTimeout: 200 * time.Millisecond, CloseTimeout: 50 * time.Millisecond})
	stuck := dial(t, s.addr, "viewer")
	stuck.put(masked(fin|opText, `{"subscribe":{}}`))
	v := wait(t, f.viewers, "the viewer")
	wait(t, v.ended, "the end of the viewer that does not read")
	if sent := v.sent.Load() * int64(len(big)); sent > 64<<20 {
		t.Errorf("%d bytes were pulled for it", sent)
	}
	if err := s.Shutdown(t.Context()); err != nil { // nothing of it is left
		t.Error(err)
	}
}

func TestRoleChangeMakesTheViewerStartOver(t *testing.T) {
	f := newFakeFeed()
	s, auth := viewers(t, f, ws.Options{})
	c := dial(t, s.addr, "viewer")
	c.put(masked(fin|opText, `{"subscribe":{}}`))
	wait(t, f.viewers, "the viewer")
	auth.tell("viewer", access.Changed)
	c.wantClose(4010)
}

func TestSilentViewerIsClosed(t *testing.T) {
	s, _ := viewers(t, newFakeFeed(), ws.Options{FirstFrame: 50 * time.Millisecond})
	c := dial(t, s.addr, "viewer")
	c.wantClose(4001)
}
