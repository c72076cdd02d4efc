package hub_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/storage/mem"
)

// rig is a hub over stores in memory that survive its restarts.
type rig struct {
	t      *testing.T
	stores hub.Stores
	opts   hub.Options
	hub    *hub.Hub
	stop   func() error
}

func newRig(t *testing.T, o hub.Options) *rig {
	r := &rig{t: t, opts: o, stores: hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}}
	r.start()
	t.Cleanup(func() {
		if r.stop != nil {
			if err := r.stop(); err != nil {
				t.Errorf("run: %v", err)
			}
		}
	})
	return r
}

func (r *rig) start() {
	r.t.Helper()
	h, err := hub.Open(context.Background(), r.stores, r.opts)
	if err != nil {
		r.t.Fatalf("open: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	r.hub = h
	r.stop = func() error {
		cancel()
		r.stop = nil
		return <-done
	}
}

func (r *rig) restart() {
	r.t.Helper()
	if err := r.stop(); err != nil {
		r.t.Fatalf("run: %v", err)
	}
	r.start()
}

func (r *rig) add(id device.ID) {
	r.t.Helper()
	if _, err := r.hub.AddDevice(context.Background(), id, hub.DeviceAttrs{}); err != nil {
		r.t.Fatalf("add %s: %v", id, err)
	}
}

// readings returns everything stored of a device as text, by time.
func (r *rig) readings(id device.ID) []string {
	r.t.Helper()
	var got []string
	var info hub.HistoryInfo
	err := r.hub.Readings(context.Background(), hub.HistoryQuery{Device: id, FromMS: math.MinInt64, ToMS: math.MaxInt64}, &info, func(x hub.Reading) bool {
		got = append(got, fmt.Sprintf("%d %s %v", x.TimeMS, x.Metric.Name, show(x.Value)))
		return true
	})
	if err != nil {
		r.t.Fatalf("readings of %s: %v", id, err)
	}
	return got
}

func show(v device.Value) any {
	switch v.Type {
	case device.Number:
		return v.Float()
	case device.Bool:
		return v.Float() != 0
	case device.String:
		return v.Text()
	}
	return nil
}

// peer is a connection in memory.
type peer struct {
	wake chan struct{} // has room for one
	last func()        // reads what is still to be sent before the close, if set

	mu     sync.Mutex // guards the fields below
	closed wire.CloseCode
	reason string
	gone   chan struct{}
}

func newPeer() *peer { return &peer{wake: make(chan struct{}, 1), gone: make(chan struct{})} }

func (p *peer) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *peer) Close(code wire.CloseCode, reason string) {
	if p.last != nil && p.code() == 0 {
		p.last()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed == 0 {
		p.closed, p.reason = code, reason
		close(p.gone)
	}
}

func (p *peer) code() wire.CloseCode {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

// client is a device by hand: it sends JSON frames and reads what the hub answers.
type client struct {
	*peer
	t *testing.T
	s *hub.Session
}

func (r *rig) connect(id device.ID) *client {
	r.t.Helper()
	p := newPeer()
	s, err := r.hub.Connect(context.Background(), id, p, hub.ConnectOptions{Format: wire.JSON})
	if err != nil {
		r.t.Fatalf("connect %s: %v", id, err)
	}
	c := &client{peer: p, t: r.t, s: s}
	go func() { // what an adapter does when the hub closes
		<-p.gone
		s.End()
	}()
	r.t.Cleanup(func() { p.Close(1000, "test over") })
	return c
}

func (c *client) send(frame string, args ...any) {
	c.t.Helper()
	if err := c.try(frame, args...); err != nil {
		c.t.Fatalf("send %s: %v", frame, err)
	}
}

func (c *client) try(frame string, args ...any) error {
	return c.s.Receive(context.Background(), wire.JSON, fmt.Appendf(nil, frame, args...))
}

// next waits for the next frame.
func (c *client) next() string {
	c.t.Helper()
	for {
		if frame, _, ok := c.s.Next(nil); ok {
			return string(frame)
		}
		select {
		case <-c.wake:
		case <-c.gone:
			c.t.Fatalf("closed with %d %s while waiting for a frame", c.closed, c.reason)
		}
	}
}

// ack waits until everything up to seq is acked.
func (c *client) ack(seq uint64) {
	c.t.Helper()
	for {
		frame := c.next()
		a, err := wire.DecodeAck(wire.JSON, []byte(frame))
		if err != nil {
			c.t.Fatalf("got %s while waiting for ack %d", frame, seq)
		}
		if a.Seq >= seq {
			return
		}
	}
}

const birth = `{"m":"birth","id":"s1","metrics":[{"a":1,"n":"temperature","u":"Cel","x":-2,"k":"gauge","lo":-40,"hi":85},{"a":2,"n":"humidity","u":"%%RH","x":-1,"k":"gauge"},{"a":3,"n":"door","u":"/","k":"state"}],"sets":[{"i":1,"a":[1,2]}]}`

// hello begins a stream and declares the schema.
func (c *client) hello(stream string, next, have uint64) wire.Welcome {
	c.t.Helper()
	c.send(`{"m":"hello","st":%q,"next":%d,"have":%d,"schema":"s1","tq":2}`, stream, next, have)
	w, err := wire.DecodeWelcome(wire.JSON, []byte(c.next()))
	if err != nil {
		c.t.Fatal(err)
	}
	if w.Schema == wire.SchemaNeed {
		c.send(birth)
	}
	return w
}
