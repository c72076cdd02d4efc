package live_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
	"telemetryhub/hub/live"
	"telemetryhub/hub/ws"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a hub over stores in memory, at an address that outlives it.
type rig struct {
	t      *testing.T
	stores hub.Stores
	server *httptest.Server
	front  atomic.Pointer[http.Handler] // what is in between; nil lets everything pass
	api    atomic.Pointer[api.API]      // nil while the hub is away
	hub    *hub.Hub
	access *access.Registry
	stop   func()

	mu      sync.Mutex // guards the fields below
	conns   []net.Conn // all since the last cut
	opened  int        // how many there ever were
	sockets ws.Metrics
}

// keeping is a log that keeps what it has, as one on disk does with the file that it writes to.
type keeping struct{ storage.Log }

func (keeping) Trim(context.Context, storage.Position) error { return nil }

func newRig(t *testing.T) *rig {
	r := &rig{t: t, stores: hub.Stores{Log: keeping{mem.NewLog()}, Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}}
	r.server = httptest.NewUnstartedServer(http.HandlerFunc(r.serve))
	r.server.Config.ConnState = func(c net.Conn, s http.ConnState) {
		if s == http.StateNew {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.conns = append(r.conns, c)
			r.opened++
		}
	}
	r.server.Start()
	r.start()
	t.Cleanup(func() {
		r.stop()
		r.cut()
		r.server.Close()
	})
	return r
}

// cut breaks all connections, also those that were upgraded.
func (r *rig) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close() // most are closed already
	}
	r.conns = nil
}

func (r *rig) serve(w http.ResponseWriter, req *http.Request) {
	a := r.api.Load()
	if a == nil {
		panic(http.ErrAbortHandler) // the hub is away
	}
	if front := r.front.Load(); front != nil {
		(*front).ServeHTTP(w, req)
		return
	}
	a.ServeHTTP(w, req)
}

// between puts a handler before the hub. It calls pass for what it lets through.
func (r *rig) between(h func(w http.ResponseWriter, req *http.Request, pass http.HandlerFunc)) {
	pass := func(w http.ResponseWriter, req *http.Request) {
		if a := r.api.Load(); a != nil {
			a.ServeHTTP(w, req)
		}
	}
	var front http.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { h(w, req, pass) })
	r.front.Store(&front)
}

func (r *rig) start() {
	r.t.Helper()
	h, err := hub.Open(context.Background(), r.stores, hub.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	reg, err := access.Open(context.Background(), r.stores.Catalog, access.Options{Hash: access.HashCost{KiB: 8, Passes: 1}})
	if err != nil {
		r.t.Fatal(err)
	}
	a, err := api.New(api.Options{Hub: h, Access: reg})
	if err != nil {
		r.t.Fatal(err)
	}
	viewers, err := ws.NewViewers(h.Subscribe, auth{a, reg}, ws.Options{CloseTimeout: 100 * time.Millisecond, Metrics: &r.sockets})
	if err != nil {
		r.t.Fatal(err)
	}
	a.Mount(http.NotFoundHandler(), viewers)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	r.hub, r.access = h, reg
	r.api.Store(a)
	r.stop = sync.OnceFunc(func() {
		r.api.Store(nil)
		r.cut() // a poll would be told to come again after seconds
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("the hub stopped with %v", err)
		}
		if err := viewers.Shutdown(context.Background()); err != nil {
			r.t.Errorf("viewers: %v", err)
		}
		if err := a.Shutdown(context.Background()); err != nil {
			r.t.Errorf("event streams: %v", err)
		}
	})
}

func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	r.start()
}

type auth struct {
	*api.API
	reg *access.Registry
}

func (a auth) Watch(id access.Identity, ended func(access.Reason)) (stop func()) {
	return a.reg.Watch(id, ended)
}

func (r *rig) viewer() (token, id string) {
	r.t.Helper()
	made, err := r.access.CreateToken(context.Background(), access.Local(), access.TokenSpec{Role: access.Viewer})
	if err != nil {
		r.t.Fatal(err)
	}
	return made.Secret.Reveal(), made.ID
}

func (r *rig) device(id device.ID) string {
	r.t.Helper()
	if _, err := r.hub.AddDevice(context.Background(), id, hub.DeviceAttrs{}); err != nil {
		r.t.Fatal(err)
	}
	made, err := r.access.CreateDeviceToken(context.Background(), access.Local(), id, access.TokenSpec{})
	if err != nil {
		r.t.Fatal(err)
	}
	return made.Secret.Reveal()
}

// send has a reading stored.
func (r *rig) send(id, token, body string) {
	r.t.Helper()
	req := httptest.NewRequest("POST", "/api/v1/devices/"+id+"/readings", strings.NewReader(body))
	req.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}}
	rec := httptest.NewRecorder()
	r.api.Load().ServeHTTP(rec, req)
	if rec.Code != http.StatusNoContent {
		r.t.Errorf("the reading is answered %d %s", rec.Code, rec.Body)
	}
}

// options are those of a client of the rig that does not wait long.
func (r *rig) options(token string, t ...live.Transport) live.Options {
	return live.Options{
		URL: r.server.URL, Token: token, Transports: t, Tick: -1, MinRetry: time.Millisecond, MaxRetry: 20 * time.Millisecond,
	}
}

// client is a Follow in a goroutine, whose frames the test takes one by one.
type client struct {
	t      *testing.T
	frames chan live.Frame
	status chan live.Status // the latest few
	ended  chan error
	cancel context.CancelFunc
}

var errTaken = errors.New("the test takes no more")

func follow(t *testing.T, o live.Options) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	c := &client{t: t, frames: make(chan live.Frame), status: make(chan live.Status, 1000), ended: make(chan error, 1), cancel: cancel}
	o.Status = func(s live.Status) { c.status <- s }
	go func() {
		c.ended <- live.Follow(ctx, o, func(f live.Frame) error {
			select {
			case c.frames <- f:
				return nil
			case <-ctx.Done():
				return errTaken
			}
		})
		close(c.frames)
	}()
	t.Cleanup(func() {
		cancel()
		for range c.frames {
		}
	})
	return c
}

func (c *client) next() live.Frame {
	c.t.Helper()
	f, ok := <-c.frames
	if !ok {
		c.t.Fatalf("the feed ended: %v", <-c.ended)
	}
	return f
}

// until returns the next frame of that type and passes over others.
func until[F live.Frame](c *client) F {
	c.t.Helper()
	for {
		if f, ok := c.next().(F); ok {
			return f
		}
	}
}

// numbers are the readings of mode all, one after the other.
type numbers struct {
	c    *client
	have []live.Reading
}

func (n *numbers) next() (int, error) {
	for len(n.have) == 0 {
		switch f := n.c.next().(type) {
		case *live.Readings:
			n.have = f.Readings
		case *live.Reset:
			return 0, fmt.Errorf("reset: %s", f.Reason)
		}
	}
	r := n.have[0]
	n.have = n.have[1:]
	return int(r.Value.Float()), nil
}
