package sio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/sio/socket"
)

// Viewer is what the adapter needs of one subscription; *hub.Viewer is one.
type Viewer interface {
	NextPacked(dst []byte) (frame []byte, token string, packed, ok bool)
	SetPacking(hub.Packing)
	Change(hub.Subscription) error
	End()
}

var _ Viewer = (*hub.Viewer)(nil)

// Server answers what comes to /socket.io/. It is safe for concurrent use.
type Server struct {
	Options
	auth      Auth
	subscribe func(context.Context, hub.Subscription, hub.Peer) (Viewer, error)
	sockets   *socket.Server
	space     *socket.Namespace
	devices   *roster
	people    *people
	client    map[string]file
	started   time.Time
}

// New returns a server whose subscriptions subscribe begins, as hub.Hub.Subscribe does. It starts nothing.
func New[V Viewer](subscribe func(context.Context, hub.Subscription, hub.Peer) (V, error), auth Auth, o Options) (*Server, error) {
	o.fill()
	s := &Server{
		Options: o, auth: auth, devices: newRoster(), started: time.Now(),
		subscribe: func(ctx context.Context, sub hub.Subscription, p hub.Peer) (Viewer, error) {
			return subscribe(ctx, sub, p)
		},
	}
	var err error
	if s.client, err = readClient(o.Client); err != nil {
		return nil, err
	}
	below := o.Socket
	below.Engine.Identify = auth.Identify
	s.sockets, err = socket.New(map[string]socket.Handler{"/": {
		Recover: true, Connect: s.connect, Connected: s.connected, Event: s.event, Disconnected: s.disconnected,
		Next: func(at *socket.Socket, dst []byte) (packet []byte, deflated, ok bool) {
			return followerOf(at).next(dst)
		},
		Mark: func(at *socket.Socket, dst []byte) []byte { return followerOf(at).appendMark(dst) },
	}}, below)
	if err != nil {
		return nil, err
	}
	s.space = s.sockets.Of("/")
	s.people = &people{space: s.space}
	return s, nil
}

// ServeHTTP answers the requests of Socket.IO clients, and hands out the client itself.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if name := clientName(r.URL.Path); name != "" {
		s.serveClient(w, r, name)
		return
	}
	s.sockets.ServeHTTP(w, r)
}

// Run tells clients of changes of devices until ctx ends. Connections go on then: see Shutdown.
func (s *Server) Run(ctx context.Context) error { return s.watchDevices(ctx) }

// Drain makes the server refuse new clients with 503 and Retry-After.
func (s *Server) Drain() { s.sockets.Drain() }

// Shutdown ends all connections, telling their clients to come back later, and returns when nothing is left of them; what is
// left when ctx ends is cut, and Shutdown returns an error that says so.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.sockets.Shutdown(ctx)
	s.people.stop()
	return err
}

// connect decides about a client that wants to connect, and begins its subscription.
func (s *Server) connect(at *socket.Socket, raw json.RawMessage) error {
	auth, err := readPayload(raw)
	if err != nil {
		return err
	}
	id, err := s.identify(at, auth)
	if err != nil {
		return err
	}
	f := &follower{srv: s, socket: at, id: id}
	at.State = f
	before, recovered := at.Recovered(ownerOf(id))
	sub, err := auth.Subscribe.read()
	if err != nil {
		return refuseSubscription(err)
	}
	sub.Scope = id.Scope(access.ReadLive)
	mark := at.Presented()
	if mark == "" && auth.Subscribe != nil {
		mark = socket.ReadOffset(auth.Subscribe.After)
	}
	if recovered {
		old := before.(*follower)
		sub, f.seenDevices = old.left()
		f.lobby.Store(old.lobby.Load())
	}
	if err := f.begin(sub, mark, recovered); err != nil {
		return refuseSubscription(err)
	}
	f.unwatch = s.watch(at, id)
	return nil
}

// begin begins the subscription, after the mark if it is of one like it.
func (f *follower) begin(sub hub.Subscription, mark string, recovered bool) (err error) {
	s := f.srv
	f.print = fingerprint(sub, f.id)
	sub.After, f.deflates = f.after(mark), f.socket.Deflates()
	sub.Packing = f.packing()
	version := s.devices.version.Load()
	// The subscription ends by End. No context of a request lives as long.
	f.viewer, err = s.subscribe(context.Background(), sub, f)
	if errors.Is(err, hub.ErrResume) {
		sub.After = ""
		f.viewer, err = s.subscribe(context.Background(), sub, f)
	}
	if err != nil {
		return err
	}
	if f.resumed = sub.After != ""; f.resumed {
		f.mark = []byte(mark)
		s.Metrics.Resumed.Add(1)
	}
	if !recovered && !(f.resumed && sub.Mode == hub.All) {
		f.seenDevices = version // the first frame says it all; otherwise every device is told again
	}
	f.sub = sub
	f.sub.After = ""
	return nil
}

// connected greets the client.
func (s *Server) connected(at *socket.Socket) {
	f := followerOf(at)
	welcome, err := socket.Values(hub.Welcome, struct {
		ID      string      `json:"id"`
		Version string      `json:"version"`
		Started int64       `json:"started"`
		Name    string      `json:"name"`
		Role    access.Role `json:"role"`
		Resumed bool        `json:"resumed"`
	}{at.ID(), s.Version, s.started.UnixMilli(), f.id.Name(), f.id.Role, f.resumed})
	if err != nil {
		panic(fmt.Sprintf("the welcome cannot be encoded: %v", err))
	}
	at.Emit("welcome", welcome)
	s.people.changed()
	s.Logger.Debug("client connected", "remote", at.Remote(), "identity", f.id.Name(), "resumed", f.resumed)
}

func (s *Server) disconnected(at *socket.Socket) {
	f := followerOf(at)
	f.end()
	s.people.changed()
	s.Logger.Debug("client disconnected", "remote", at.Remote(), "identity", f.id.Name())
}
