package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device/wire"
)

// WatchFloor is the least that a server must do to tell watchers of changes, in the way that such servers are written: it takes
// a publisher and hands on what comes, to everybody, and remembers nothing but the last.
type WatchFloor struct {
	broadcast
	ln     net.Listener
	server http.Server

	mu      sync.Mutex // guards the fields below
	n       uint64
	body    []byte
	changed chan struct{} // closed when n has grown
}

// ListenWatchFloor listens on a loopback port.
func ListenWatchFloor() (*WatchFloor, net.Addr, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	f := &WatchFloor{broadcast: broadcast{joined: make(chan *gws.Conn, 16384)}, ln: ln, changed: make(chan struct{})}
	up := gws.NewUpgrader(f, &gws.ServerOption{ReadMaxPayloadSize: wire.MaxFrame, ReadBufferSize: 1024})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /device/v1", func(w http.ResponseWriter, r *http.Request) {
		if c, err := up.Upgrade(w, r); err == nil {
			go c.ReadLoop()
		}
	})
	for _, path := range []string{"GET /api/v1/live", "GET /socket.io/"} { // there is nothing simpler to compare Socket.IO with
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if c, err := up.Upgrade(w, r); err == nil {
				f.joined <- c
				go c.ReadLoop()
			}
		})
	}
	mux.HandleFunc("GET /api/v1/live/poll", f.poll)
	mux.HandleFunc("GET /api/v1/live/sse", f.events)
	f.server.Handler = mux
	return f, ln.Addr(), nil
}

// Run serves until ctx ends.
func (f *WatchFloor) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = f.server.Close() }) // nobody is to be served any more
	defer stop()
	if err := f.server.Serve(f.ln); ctx.Err() == nil {
		return err
	}
	return nil
}

// OnMessage takes a reading of the publisher. Those who watch send texts that are no arrays.
func (f *WatchFloor) OnMessage(c *gws.Conn, m *gws.Message) {
	if b := m.Bytes(); len(b) == 0 || b[0] != '[' {
		_ = m.Close() // it only gives its memory back
		return
	}
	f.mu.Lock()
	f.n++
	f.body = append([]byte(nil), m.Bytes()...)
	close(f.changed)
	f.changed = make(chan struct{})
	f.mu.Unlock()
	f.broadcast.OnMessage(c, m)
}

// now returns the last reading, and what is closed at the next.
func (f *WatchFloor) now() (n uint64, body []byte, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n, f.body, f.changed
}

// poll answers a poll, and a long one that waits up to 25 s.
func (f *WatchFloor) poll(w http.ResponseWriter, r *http.Request) {
	known, _ := strconv.ParseUint(strings.Trim(r.Header.Get("If-None-Match"), `"`), 10, 64) // without one everything is news
	n, body, changed := f.now()
	if n == known && r.FormValue("wait") != "0" {
		over := time.NewTimer(25 * time.Second)
		defer over.Stop()
		select {
		case <-changed:
			n, body, _ = f.now()
		case <-over.C:
		case <-r.Context().Done():
			return
		}
	}
	if n == known {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Etag", fmt.Sprintf(`"%d"`, n))
	_, _ = w.Write(body) // the generator sees what does not come
}

func (f *WatchFloor) events(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	flush := http.NewResponseController(w)
	for known := uint64(0); ; {
		n, body, changed := f.now()
		if n > known {
			known = n
			_, _ = io.WriteString(w, "data: "+string(body)+"\n\n") // Flush reports it
			if flush.Flush() != nil {
				return
			}
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}
