package eio_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/frames"
	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/siotest"
)

// rig is a server whose streams send back what they receive, and do what some texts say.
type rig struct {
	*siotest.Site
	server  *eio.Server
	metrics *eio.Metrics
	opened  chan *echo   // gets every stream
	gets    atomic.Int64 // how many GET got here
}

func serve(t *testing.T, o eio.Options) *rig {
	t.Helper()
	r := &rig{metrics: new(eio.Metrics), opened: make(chan *echo, 10_000)}
	o.Metrics = r.metrics
	server, err := eio.New(func(s *eio.Session) eio.Stream {
		e := &echo{Session: s, t: t, ended: make(chan struct{})}
		r.opened <- e
		return e
	}, o)
	if err != nil {
		t.Fatal(err)
	}
	r.server = server
	r.Site = siotest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet {
			r.gets.Add(1)
		}
		server.ServeHTTP(w, req)
	}))
	t.Cleanup(func() {
		_ = server.Shutdown(done()) // it says how many it had to cut, which is how many clients the test left
		if n := r.metrics.Open.Load(); n != 0 {
			t.Errorf("%d sessions are open after the end", n)
		}
		if n := r.metrics.Strangers.Load(); n != 0 {
			t.Errorf("%d strangers are counted after the end", n)
		}
	})
	return r
}

// done returns a context that is over.
func done() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// stream returns the stream of the session that was opened last.
func (r *rig) stream(t *testing.T) *echo {
	t.Helper()
	select {
	case e := <-r.opened:
		return e
	case <-time.After(siotest.Patience):
		t.Fatal("no session was opened")
		return nil
	}
}

type message struct {
	text bool
	data string
}

type echo struct {
	*eio.Session
	t     *testing.T
	ended chan struct{}

	mu    sync.Mutex // guards the fields below
	queue []message
	busy  bool
}

// enter notices calls that must not overlap.
func (e *echo) enter() {
	select {
	case <-e.ended:
		e.t.Error("the stream is used after End")
	default:
	}
}

func (e *echo) Receive(text bool, data []byte) error {
	e.enter()
	e.mu.Lock()
	if e.busy {
		e.t.Error("two Receive at a time")
	}
	e.busy = true
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.busy = false
		e.mu.Unlock()
	}()
	switch string(data) {
	case "admit":
		e.Admit()
	case "dismiss":
		e.Dismiss()
	case "bad":
		return errors.New("bad message")
	case "panic":
		panic("asked for")
	case "end":
		e.push(message{true, "last words"})
		e.Close(4001, "asked for")
		return nil
	case "transport":
		e.push(message{true, e.Transport()})
		e.Wake()
		return nil
	}
	e.send(message{text, string(data)})
	return nil
}

func (e *echo) push(m ...message) {
	e.mu.Lock()
	e.queue = append(e.queue, m...)
	e.mu.Unlock()
}

func (e *echo) send(m ...message) {
	e.push(m...)
	e.Wake()
}

func (e *echo) Next(dst []byte) ([]byte, frames.Form, bool) {
	e.enter()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return dst, frames.Text, false
	}
	m := e.queue[0]
	e.queue = e.queue[1:]
	if m.data == "panic in Next" {
		panic("asked for")
	}
	form := frames.Binary
	if m.text {
		form = frames.Text
	}
	return append(dst, m.data...), form, true
}

func (e *echo) End() { close(e.ended) } // panics when it is called twice

func (e *echo) wait(t *testing.T) {
	t.Helper()
	select {
	case <-e.ended:
	case <-time.After(siotest.Patience):
		t.Fatal("the stream was not ended")
	}
}

// identify knows two tokens and a cookie, whose Origin must be ours on what is no plain GET.
func identify(r *http.Request) (access.Identity, error) {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		if token == "bad" {
			return access.Identity{}, access.ErrUnknownToken
		}
		return access.Identity{Kind: access.KindAPI, Role: access.Viewer, Credential: token}, nil
	}
	if _, err := r.Cookie("session"); err == nil {
		upgrade := r.Header.Get("Upgrade") != ""
		rule := access.OriginRequest{Method: r.Method, Upgrade: upgrade, Origin: r.Header.Values("Origin"), Host: r.Host}
		if err := (access.Origins{}).CheckSession(rule); err != nil {
			return access.Identity{}, err
		}
		return access.Identity{Kind: access.KindPerson, Role: access.Viewer, Credential: "cookie"}, nil
	}
	return access.Identity{}, nil
}
