package ws_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

// fakeHub gives every device a session that acks each frame with an echo. Tests replace what they are about.
type fakeHub struct {
	receive   func(ctx context.Context, s *fakeSession, f wire.Format, frame []byte) error
	connected chan *fakeSession // gets every session
	connect   func(id device.ID) error
}

func newFakeHub() *fakeHub { return &fakeHub{connected: make(chan *fakeSession, 10_000)} }

func (h *fakeHub) Connect(_ context.Context, id device.ID, p hub.Peer, o hub.ConnectOptions) (*fakeSession, error) {
	if h.connect != nil {
		if err := h.connect(id); err != nil {
			return nil, err
		}
	}
	s := &fakeSession{hub: h, id: id, peer: p, options: o, ended: make(chan struct{}), signs: make(chan struct{}, 1000)}
	h.connected <- s
	return s, nil
}

type frame struct {
	format wire.Format
	body   string
}

type fakeSession struct {
	hub     *fakeHub
	id      device.ID
	peer    hub.Peer
	options hub.ConnectOptions
	ended   chan struct{}
	signs   chan struct{} // one for each Alive
	nextFn  func(dst []byte) ([]byte, wire.Format, bool)
	endFn   func()
	aliveFn func()

	mu       sync.Mutex // guards the fields below
	received []frame
	out      []frame
}

var errEnough = fmt.Errorf("enough of it: %w", wire.ErrProtocol)

func (s *fakeSession) Receive(ctx context.Context, f wire.Format, body []byte) error {
	select {
	case <-s.ended:
		panic("Receive after End")
	default:
	}
	s.mu.Lock()
	s.received = append(s.received, frame{f, string(body)})
	s.mu.Unlock()
	if s.hub.receive != nil {
		return s.hub.receive(ctx, s, f, body)
	}
	s.send(f, string(body))
	return nil
}

func (s *fakeSession) send(f wire.Format, body string) {
	s.mu.Lock()
	s.out = append(s.out, frame{f, body})
	s.mu.Unlock()
	s.peer.Wake()
}

func (s *fakeSession) Next(dst []byte) ([]byte, wire.Format, bool) {
	if s.nextFn != nil {
		return s.nextFn(dst)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) == 0 {
		return dst, wire.JSON, false
	}
	f := s.out[0]
	s.out = s.out[1:]
	return append(dst, f.body...), f.format, true
}

func (s *fakeSession) Alive() {
	if s.aliveFn != nil {
		s.aliveFn()
	}
	select {
	case s.signs <- struct{}{}:
	default:
	}
}

func (s *fakeSession) End() {
	close(s.ended) // panics when it is called twice
	if s.endFn != nil {
		s.endFn()
	}
}

func (s *fakeSession) got() []frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]frame(nil), s.received...)
}

// fakeAuth knows tokens. Anything about cookies is the business of package access and its caller.
type fakeAuth struct {
	mu      sync.Mutex // guards the fields below
	ids     map[string]access.Identity
	errs    map[string]error
	watched map[string][]func(access.Reason)
	gone    access.Reason // what Watch tells at once, if anything
}

func newFakeAuth() *fakeAuth {
	a := &fakeAuth{ids: map[string]access.Identity{}, errs: map[string]error{}, watched: map[string][]func(access.Reason){}}
	a.ids["viewer"] = access.Identity{Kind: access.KindAPI, Role: access.Viewer, Credential: "viewer"}
	a.ids["scoped"] = access.Identity{Kind: access.KindAPI, Role: access.Viewer, Credential: "scoped", Devices: []string{"cellar-*"}}
	a.ids["person"] = access.Identity{Kind: access.KindPerson, Role: access.Admin, User: "ann", Credential: "person"}
	a.ids["enrol"] = access.Identity{Kind: access.KindEnrolment, Credential: "enrol"}
	a.errs["bad"] = access.ErrUnknownToken
	a.errs["mistyped"] = access.ErrNotToken
	a.errs["old"] = fmt.Errorf("look at the token: %w", access.ErrExpired)
	a.errs["logout"] = access.ErrNoSession
	a.errs["busy"] = access.ErrBusy
	a.errs["throttled"] = &access.ThrottledError{After: 1500e6}
	a.errs["broken"] = errors.New("the disk is on fire")
	return a
}

// Authenticate takes "Bearer dev:ID" for the device ID besides the names above, and refuses pages of others.
func (a *fakeAuth) Authenticate(r *http.Request) (access.Identity, error) {
	if o := r.Header.Get("Origin"); o != "" && r.Header.Get("Cookie") != "" && o != "http://"+r.Host {
		return access.Identity{}, fmt.Errorf("%w: origin %q", access.ErrDenied, o)
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if c, err := r.Cookie("session"); err == nil {
		token = c.Value
	}
	if id, ok := strings.CutPrefix(token, "dev:"); ok {
		return access.Identity{Kind: access.KindDevice, Device: device.ID(id), Credential: token}, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ids[token], a.errs[token]
}

func (a *fakeAuth) Watch(id access.Identity, ended func(access.Reason)) (stop func()) {
	if a.gone != "" {
		ended(a.gone)
		return func() {}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.watched[id.Credential])
	a.watched[id.Credential] = append(a.watched[id.Credential], ended)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.watched[id.Credential][n] = nil
	}
}

// tell ends the identity of the credential and returns how many wanted to know.
func (a *fakeAuth) tell(credential string, why access.Reason) int {
	a.mu.Lock()
	watched := append([]func(access.Reason){}, a.watched[credential]...)
	a.mu.Unlock()
	n := 0
	for _, ended := range watched {
		if ended != nil {
			ended(why)
			n++
		}
	}
	return n
}
