package sio_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/siotest"
)

// fakeFeed gives viewers what tests push. It refuses tokens that begin with "old".
type fakeFeed struct {
	viewers chan *fakeViewer // gets every viewer but the watch over devices
	watch   chan *fakeViewer // gets that
	err     func(hub.Subscription) error
}

func newFakeFeed() *fakeFeed {
	return &fakeFeed{viewers: make(chan *fakeViewer, 1000), watch: make(chan *fakeViewer, 10)}
}

func (f *fakeFeed) Subscribe(_ context.Context, sub hub.Subscription, p hub.Peer) (*fakeViewer, error) {
	if f.err != nil {
		if err := f.err(sub); err != nil {
			return nil, err
		}
	}
	v := &fakeViewer{peer: p, ended: make(chan struct{})}
	if err := v.Change(sub); err != nil {
		return nil, err
	}
	if len(sub.Metrics) == 1 && sub.Metrics[0] == "\x00" {
		f.watch <- v
	} else {
		f.viewers <- v
	}
	return v, nil
}

type pushed struct{ frame, token string }

type fakeViewer struct {
	peer  hub.Peer
	ended chan struct{}

	mu    sync.Mutex // guards the fields below
	subs  []hub.Subscription
	queue []pushed
}

func (v *fakeViewer) Change(sub hub.Subscription) error {
	if strings.HasPrefix(sub.After, "old") {
		return hub.ErrResume
	}
	if len(sub.Devices) == 1 && sub.Devices[0] == "" {
		return &hub.BadInput{Text: "bad pattern"}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.subs = append(v.subs, sub)
	return nil
}

func (v *fakeViewer) SetPacking(hub.Packing) {}

func (v *fakeViewer) NextPacked(dst []byte) (frame []byte, token string, packed, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.queue) == 0 {
		return dst, "", false, false
	}
	p := v.queue[0]
	v.queue = v.queue[1:]
	return append(dst, p.frame...), p.token, false, true
}

func (v *fakeViewer) End() { close(v.ended) } // panics when it is called twice

func (v *fakeViewer) push(frame, token string) {
	v.mu.Lock()
	v.queue = append(v.queue, pushed{frame, token})
	v.mu.Unlock()
	v.peer.Wake()
}

// sub returns the newest subscription.
func (v *fakeViewer) sub() hub.Subscription {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.subs[len(v.subs)-1]
}

// fakeAuth knows tokens, which are also what the session cookie may hold.
type fakeAuth struct {
	ids  map[string]access.Identity
	errs map[string]error

	mu      sync.Mutex // guards the fields below
	watched map[string][]func(access.Reason)
	gone    access.Reason // what Watch tells at once, if anything
}

func newFakeAuth() *fakeAuth {
	api := func(name string, role access.Role, devices ...string) access.Identity {
		return access.Identity{Kind: access.KindAPI, Role: role, Credential: name, Devices: devices}
	}
	return &fakeAuth{
		ids: map[string]access.Identity{
			"viewer": api("viewer", access.Viewer), "operator": api("operator", access.Operator), "admin": api("admin", access.Admin),
			"scoped": api("scoped", access.Viewer, "cellar-*"),
			"ann":    {Kind: access.KindPerson, Role: access.Admin, User: "ann", Credential: "s1"},
			"device": {Kind: access.KindDevice, Device: "d1", Credential: "device"},
			"enrol":  {Kind: access.KindEnrolment, Credential: "enrol"},
		},
		errs: map[string]error{
			"old": access.ErrExpired, "busy": access.ErrBusy, "denied": access.ErrDenied, "broken": fmt.Errorf("the disk is on fire"),
		},
		watched: map[string][]func(access.Reason){},
	}
}

func (a *fakeAuth) Token(token string) (access.Identity, error) {
	if err := a.errs[token]; err != nil {
		return access.Identity{}, err
	}
	id, ok := a.ids[token]
	if !ok {
		return id, access.ErrUnknownToken
	}
	return id, nil
}

func (a *fakeAuth) Identify(r *http.Request) (access.Identity, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		return a.Token(token)
	}
	c, err := r.Cookie("session")
	if err != nil {
		return access.Identity{}, nil
	}
	rule := access.OriginRequest{Method: r.Method, Upgrade: r.Header.Get("Upgrade") != "", Origin: r.Header.Values("Origin"), Host: r.Host}
	if err := (access.Origins{}).CheckSession(rule); err != nil {
		return access.Identity{}, err
	}
	return a.Token(c.Value)
}

func (a *fakeAuth) Watch(id access.Identity, ended func(access.Reason)) (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.gone != "" {
		ended(a.gone)
		return func() {}
	}
	n := len(a.watched[id.Credential])
	a.watched[id.Credential] = append(a.watched[id.Credential], ended)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.watched[id.Credential][n] = nil
	}
}

// tell ends the identity of the credential and returns how many wanted to know.
func (a *fakeAuth) tell(credential string, why access.Reason) (n int) {
	a.mu.Lock()
	watched := append([]func(access.Reason){}, a.watched[credential]...)
	a.mu.Unlock()
	for _, ended := range watched {
		if ended != nil {
			ended(why)
			n++
		}
	}
	return n
}

// rig is a server over a fake feed.
type rig struct {
	*siotest.Site
	t       *testing.T
	feed    *fakeFeed
	auth    *fakeAuth
	metrics *sio.Metrics
	server  *sio.Server
	logs    *lockedText
}

type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func serve(t *testing.T, o sio.Options) *rig {
	t.Helper()
	r := &rig{t: t, feed: newFakeFeed(), auth: newFakeAuth(), metrics: new(sio.Metrics), logs: new(lockedText)}
	o.Metrics, o.Version = r.metrics, "1.2.3"
	o.Logger = slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.server, err = sio.New(r.feed.Subscribe, r.auth, o); err != nil {
		t.Fatal(err)
	}
	r.Site = siotest.Serve(t, r.server)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.server.Shutdown(ctx) // it says how many it had to cut, which is how many clients the test left
	})
	return r
}

// run runs the watch over devices until the test ends, and returns its viewer.
func (r *rig) run() *fakeViewer {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.server.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("run: %v", err)
		}
	})
	return <-r.feed.watch
}

// user is a connected client.
type user struct {
	*siotest.Socket
	t       *testing.T
	id, pid string
	welcome map[string]any
	view    *fakeViewer
	early   []string // what came while an answer was waited for
}

var hello = regexp.MustCompile(`^40\{"sid":"([-_A-Za-z0-9]{20})","pid":"([-_A-Za-z0-9]{20})"\}$`)

// connect connects with an auth payload, and whatever header the request is to have.
func (r *rig) connect(auth string, headers ...string) *user {
	r.t.Helper()
	c, _ := r.Open(headers...)
	c.Say("40" + auth)
	u := &user{Socket: c, t: r.t}
	first := c.Text()
	got := hello.FindStringSubmatch(first)
	if got == nil {
		r.t.Fatalf("connect %s: %s", auth, first)
	}
	u.id, u.pid = got[1], got[2]
	select {
	case u.view = <-r.feed.viewers:
	case <-time.After(siotest.Patience):
		r.t.Fatal("nobody subscribed")
	}
	args := u.event("welcome")
	if len(args) != 2 || args[0] != "web Socket Works" {
		r.t.Fatalf("welcomed with %v", args)
	}
	u.welcome = args[1].(map[string]any)
	return u
}

// event reads the next event, which must have the name, and returns its arguments.
func (u *user) event(name string) []any {
	u.t.Helper()
	text := u.Text()
	var args []any
	if json.Unmarshal([]byte(strings.TrimPrefix(text, "42")), &args) != nil || len(args) == 0 || args[0] != name {
		u.t.Fatalf("got %.200s, want the event %s", text, name)
	}
	return args[1:]
}

// ask emits an event and returns the one argument of the ack as JSON. What else comes meanwhile, as a list of people does when
// it is due, is kept for Text.
func (u *user) ask(args string) string {
	u.t.Helper()
	u.Say("427" + args)
	for {
		text := u.Socket.Text()
		if got, found := strings.CutPrefix(text, "437["); found {
			return strings.TrimSuffix(got, "]")
		}
		if !strings.HasPrefix(text, `42["`) {
			u.t.Fatalf("%s was answered %s", args, text)
		}
		u.early = append(u.early, text)
	}
}

// Text returns the next packet.
func (u *user) Text() string {
	u.t.Helper()
	if len(u.early) > 0 {
		text := u.early[0]
		u.early = u.early[1:]
		return text
	}
	return u.Socket.Text()
}

// Want takes packets and compares.
func (u *user) Want(texts ...string) {
	u.t.Helper()
	for _, want := range texts {
		if got := u.Text(); got != want {
			u.t.Fatalf("got %.200q, want %.200q", got, want)
		}
	}
}

// refused connects and returns why that was refused.
func (r *rig) refused(auth string, headers ...string) string {
	r.t.Helper()
	c, _ := r.Open(headers...)
	c.Say("40" + auth)
	return c.Text()
}
