package socket

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"telemetryhub/hub/sio/eio"
)

// Options configures a Server. The zero value works.
type Options struct {
	// SendQueue is the most bytes that wait for a client. One message of any size is taken when nothing waits. Zero means 1 MiB.
	SendQueue int
	// RememberFor, RememberBytes and RememberSockets bound what is kept to recover from broken connections. Zero means 2 min,
	// 64 KiB a socket, and 1,024 sockets whose clients are away.
	RememberFor     time.Duration
	RememberBytes   int
	RememberSockets int
	// Engine are the options of the layer below.
	Engine eio.Options
	// Metrics is counted into. Nil means that nobody looks.
	Metrics *Metrics
	// Logger receives diagnostics, never what messages say. Nil discards them.
	Logger *slog.Logger
}

// Metrics counts what happens to sockets. The zero value is ready. All fields are safe for concurrent use, and only to be read.
type Metrics struct {
	Connected           atomic.Int64  // sockets now
	Remembered          atomic.Int64  // sockets whose clients are away
	Refused             atomic.Uint64 // connections to a namespace
	Recovered           atomic.Uint64 // sockets that came back
	EventsIn, EventsOut atomic.Uint64 // without those of sources
	Slow                atomic.Uint64 // clients closed because their queue was full
}

func (o *Options) fill() error {
	if o.SendQueue < 0 || o.RememberFor < 0 || o.RememberBytes < 0 || o.RememberSockets < 0 {
		return errors.New("socket options: a limit is negative")
	}
	if o.SendQueue == 0 {
		o.SendQueue = 1 << 20
	}
	if o.RememberFor == 0 {
		o.RememberFor = 2 * time.Minute
	}
	if o.RememberBytes == 0 {
		o.RememberBytes = 64 << 10
	}
	if o.RememberSockets == 0 {
		o.RememberSockets = 1024
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Engine.Logger == nil {
		o.Engine.Logger = o.Logger
	}
	return nil
}

// Handler is what a namespace does. Functions that are nil do nothing.
type Handler struct {
	// Recover gives sockets a pid and offsets.
	Recover bool
	// Connect decides whether a client may connect with this payload, {} if it sent none. A *ConnectError is told to the
	// client as it is, any other error as "internal error". It may call Socket.Recovered, but not emit anything.
	Connect func(s *Socket, auth json.RawMessage) error
	// Connected is called when the client has been told that it is connected.
	Connected func(s *Socket)
	// Event takes an event of the client.
	Event func(s *Socket, e *Event)
	// Next appends the next packet of the source to dst, as its text without the type of Engine.IO; false if there is none
	// now. Socket.Wake must be called when there is. It is asked by one goroutine at a time, from Connected on, until
	// shortly after Disconnected. Where Socket.Deflates it may append what eio.Stream has for that, and says so.
	Next func(s *Socket, dst []byte) (packet []byte, deflated, ok bool)
	// Mark appends what the source has sent so far, without "~", quotes and what JSON escapes. It is called where Next is.
	Mark func(s *Socket, dst []byte) []byte
	// Disconnected is called once for each socket for which Connect returned nil.
	Disconnected func(s *Socket)
}

// ConnectError refuses a connection to a namespace. Clients see the message and the data, and do not come back by themselves.
type ConnectError struct {
	Message string
	Data    any // marshalled; nil for none
}

func (e *ConnectError) Error() string { return "connection refused: " + e.Message }

// ErrAgain from Connect breaks the connection, which makes clients come back by themselves a little later.
var ErrAgain = errors.New("not now, come again")

// Server answers the requests of Socket.IO clients. It is safe for concurrent use.
type Server struct {
	options Options
	engine  *eio.Server
	spaces  map[string]*Namespace // never changed
}

// New returns a server of these namespaces, by name; that of most clients is "/". It starts nothing.
func New(namespaces map[string]Handler, o Options) (*Server, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	s := &Server{options: o, spaces: make(map[string]*Namespace, len(namespaces))}
	for name, h := range namespaces {
		if len(name) == 0 || len(name) > maxName || name[0] != '/' {
			return nil, fmt.Errorf("namespace %q: a name begins with a slash and has at most %d characters", name, maxName)
		}
		s.spaces[name] = newNamespace(s, name, h)
	}
	engine, err := eio.New(s.open, o.Engine)
	if err != nil {
		return nil, err
	}
	s.engine = engine
	return s, nil
}

// Of returns a namespace, nil if there is none of that name.
func (s *Server) Of(name string) *Namespace { return s.spaces[name] }

// ServeHTTP answers the requests of clients, at whatever path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.engine.ServeHTTP(w, r) }

// Drain makes the server refuse new clients.
func (s *Server) Drain() { s.engine.Drain() }

// Shutdown ends all connections, telling clients to come back, and returns when nothing is left of them; what is left when ctx
// ends is cut.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.engine.Shutdown(ctx)
	for _, n := range s.spaces {
		n.forgetAll()
	}
	return err
}

func (s *Server) open(session *eio.Session) eio.Stream {
	return &client{srv: s, session: session, sockets: map[string]*Socket{}}
}

// newID returns 120 random bits.
func newID() string {
	var raw [15]byte
	_, _ = rand.Read(raw[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(raw[:])
}
