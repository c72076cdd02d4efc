package bench

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/lxzan/gws"
	"golang.org/x/sync/errgroup"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/ws"
	"telemetryhub/storage/mem"
)

// feedDevice is the publisher, and the name of its metric is as long as its text makes a reading 180 bytes of JSON.
const feedDevice device.ID = "bench-feed"

// FeedServer is what is measured: it takes a publisher at /device/v1 and viewers at /api/v1/live.
type FeedServer struct {
	ln  net.Listener
	run func(context.Context) error
	mux http.ServeMux
}

// ListenFeed listens on a loopback port. The kind is hub, or floor: gws with its broadcaster and nothing else.
func ListenFeed(ctx context.Context, kind string) (*FeedServer, net.Addr, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	s := &FeedServer{ln: ln}
	switch kind {
	case "hub":
		err = s.hub(ctx)
	case "floor":
		s.floor()
	default:
		err = errors.New("the server is hub or floor")
	}
	return s, ln.Addr(), err
}

// Run serves until ctx ends.
func (s *FeedServer) Run(ctx context.Context) error {
	server := http.Server{Handler: &s.mux, ReadHeaderTimeout: 10 * time.Second}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.run(ctx) })
	g.Go(func() error {
		if err := server.Serve(s.ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return server.Close()
	})
	return g.Wait()
}

func (s *FeedServer) hub(ctx context.Context) error {
	stores := hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}
	h, err := hub.Open(ctx, stores, hub.Options{CommitInterval: time.Microsecond})
	if err != nil {
		return err
	}
	if _, err := h.AddDevice(ctx, feedDevice, hub.DeviceAttrs{}); err != nil {
		return err
	}
	o := ws.Options{SourceConnects: ws.Rate{PerSecond: -1}, Connects: ws.Rate{PerSecond: -1}}
	devices, err := ws.NewDevices(h.Connect, anyone{access.Identity{Kind: access.KindDevice, Device: feedDevice}}, o)
	if err != nil {
		return err
	}
	viewers, err := ws.NewViewers(h.Subscribe, anyone{access.Identity{Kind: access.KindAPI, Role: access.Viewer}}, o)
	if err != nil {
		return err
	}
	sockets, err := sio.New(h.Subscribe, anyone{access.Identity{Kind: access.KindAPI, Role: access.Viewer}}, sio.Options{})
	if err != nil {
		return err
	}
	s.mux.Handle("/socket.io/", sockets)
	s.mux.Handle("/device/v1", devices)
	s.mux.Handle("/api/v1/live", viewers)
	s.run = h.Run
	return nil
}

// anyone is whoever comes.
type anyone struct{ id access.Identity }

func (a anyone) Authenticate(*http.Request) (access.Identity, error) { return a.id, nil }

func (a anyone) Identify(*http.Request) (access.Identity, error) { return a.id, nil }

func (a anyone) Token(string) (access.Identity, error) { return a.id, nil }

func (anyone) Watch(access.Identity, func(access.Reason)) (stop func()) { return func() {} }

// floor hands every message of the publisher on as it is.
func (s *FeedServer) floor() {
	f := &broadcast{joined: make(chan *gws.Conn, 1024)}
	up := gws.NewUpgrader(f, &gws.ServerOption{ReadMaxPayloadSize: wire.MaxFrame, ReadBufferSize: 1024})
	s.mux.HandleFunc("/device/v1", func(w http.ResponseWriter, r *http.Request) {
		if c, err := up.Upgrade(w, r); err == nil {
			go c.ReadLoop()
		}
	})
	s.mux.HandleFunc("/api/v1/live", func(w http.ResponseWriter, r *http.Request) {
		if c, err := up.Upgrade(w, r); err == nil {
			f.joined <- c
			go c.ReadLoop()
		}
	})
	s.run = func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	}
}

// broadcast is the floor. Its publisher sends what viewers are to get.
type broadcast struct {
	gws.BuiltinEventHandler
	joined  chan *gws.Conn
	viewers []*gws.Conn // of the publisher's reader
}

// OnMessage sends what the publisher has sent to everybody. Viewers send nothing that matters.
func (f *broadcast) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	if m.Opcode != gws.OpcodeText {
		return
	}
	for len(f.joined) > 0 {
		f.viewers = append(f.viewers, <-f.joined)
	}
	b := gws.NewBroadcaster(gws.OpcodeText, m.Bytes())
	defer b.Close()
	for _, c := range f.viewers {
		_ = b.Broadcast(c) // the generator sees what does not come
	}
}
