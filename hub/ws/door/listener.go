package door

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Listener hands out connections that are bounded until they are admitted. Serve it with the server that Server returns.
type Listener struct {
	net.Listener
	Options
	epoch  time.Time
	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex // guards the fields below, and the fields of each conn that say so; never held during I/O
	count     int
	strangers map[netip.Addr]*list.List // of *conn, by where they come from, oldest first
}

// New returns a listener on ln, which it owns. It does no I/O.
func New(ln net.Listener, o Options) (*Listener, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	return &Listener{
		Listener: ln, Options: o, epoch: time.Now(), closed: make(chan struct{}), strangers: make(map[netip.Addr]*list.List),
	}, nil
}

// Server returns a server for the listener's connections, with the limits that the package promises. Its ConnState and
// ConnContext must be left alone.
func (l *Listener) Server(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 2 * l.Timeout, // for those who were admitted; strangers are timed by the listener
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHead - headSlop,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(l.Logger.Handler(), slog.LevelDebug), // what clients do wrong
		ConnState:         func(c net.Conn, s http.ConnState) { connOf(c).entered(s) },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, connOf(c)) },
	}
}

// key is where the context of a request has its *conn.
type key struct{}

// Admit says that the credential of the request was found good: its connection is no stranger any more. Requests that did
// not come through a Listener are ignored.
func Admit(r *http.Request) {
	if c, ok := r.Context().Value(key{}).(*conn); ok && !c.known.Load() && c.l.remove(c) {
		c.l.Metrics.Admitted.Add(1)
	}
}

// Return returns how to serve the connection of the request again after it was hijacked and released: with what has come over
// it meanwhile. It returns nil if that cannot be done: under TLS, where net/http wants to see the TLS connection itself, and if
// the request did not come through a Listener.
func Return(r *http.Request) func(early []byte) {
	c, ok := r.Context().Value(key{}).(*conn)
	server, served := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok || !served || c.below != nil {
		return nil
	}
	return func(early []byte) {
		c.noted, c.held, c.holding = nil, early, false
		a := new(again)
		a.conn.Store(c)
		_ = server.Serve(a) // what it fails with is in the way that again ends
	}
}

// again is a listener that has one connection. A server that stops closes its listeners while it waits for them.
type again struct{ conn atomic.Pointer[conn] }

// Accept returns the connection once.
func (a *again) Accept() (net.Conn, error) {
	if c := a.conn.Swap(nil); c != nil {
		return c, nil
	}
	return nil, net.ErrClosed
}

// Close closes the connection if the server did not want it any more.
func (a *again) Close() error {
	if c := a.conn.Swap(nil); c != nil {
		return c.Close()
	}
	return nil
}

// Addr is for logs.
func (a *again) Addr() net.Addr { return &net.TCPAddr{} }

// Accept returns the next connection. It outlives a lack of file descriptors and connections that were broken off.
func (l *Listener) Accept() (net.Conn, error) {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		raw, err := l.Listener.Accept()
		if err == nil {
			return l.receive(raw), nil
		}
		if errors.Is(err, net.ErrClosed) || !passing(err) {
			return nil, err
		}
		l.Logger.Warn("cannot accept connections just now, trying again", "err", err, "wait", wait)
		l.displace() // gives back a file descriptor
		select {
		case <-l.closed:
			return nil, net.ErrClosed
		case <-time.After(wait):
		}
	}
}

// passing reports whether Accept may succeed later.
func passing(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// now is a time on the monotonic clock.
func (l *Listener) now() time.Duration { return time.Since(l.epoch) }

// Close closes the listener. Connections go on.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// sendBuffer is what the system may hold of what a peer has not read yet. Left alone it grows to megabytes, and a write
// then waits until a third of them has gone: a peer on a slow line that reads all the time would look as if it did not.
const sendBuffer = 256 << 10

// receive makes a stranger of a new connection.
func (l *Listener) receive(raw net.Conn) net.Conn {
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(sendBuffer) // without it the connection works too
	}
	l.Metrics.Accepted.Add(1)
	c := &conn{l: l, tcp: raw, Conn: raw, source: sourceOf(raw), holding: true}
	var out net.Conn = c
	if l.TLS != nil {
		c.below = &underTLS{Conn: raw, left: maxHandshake}
		t := &tlsConn{conn: c, tls: tls.Server(c.below, l.TLS)}
		c.Conn, out = t.tls, t
	}
	l.add(c)
	return out
}

// add counts the stranger, and closes another one if there are too many.
func (l *Listener) add(c *conn) {
	l.mu.Lock()
	var victim *conn
	if l.count >= l.MaxStrangers {
		victim = l.oldestLocked()
		l.removeLocked(victim)
	}
	from := l.strangers[c.source]
	if from == nil {
		from = list.New()
		l.strangers[c.source] = from
	}
	c.place = from.PushBack(c)
	l.count++
	l.Metrics.Strangers.Add(1)
	c.timer = time.AfterFunc(l.Timeout, c.expire)
	l.mu.Unlock()
	l.turnOut(victim)
}

// displace closes a stranger, if there is one.
func (l *Listener) displace() {
	l.mu.Lock()
	victim := l.oldestLocked()
	if victim != nil {
		l.removeLocked(victim)
	}
	l.mu.Unlock()
	l.turnOut(victim)
}

func (l *Listener) turnOut(victim *conn) {
	if victim != nil {
		l.Metrics.Displaced.Add(1)
		_ = victim.tcp.Close() // an error would say that it is closed
	}
}

// oldestLocked returns the oldest stranger of the address with most of them, nil if there is none.
func (l *Listener) oldestLocked() *conn {
	var most *list.List
	for _, from := range l.strangers {
		if most == nil || from.Len() > most.Len() {
			most = from
		}
	}
	if most == nil {
		return nil
	}
	return most.Front().Value.(*conn)
}

// remove makes the connection no stranger any more. It reports false if it was none.
func (l *Listener) remove(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.place == nil {
		return false
	}
	l.removeLocked(c)
	return true
}

func (l *Listener) removeLocked(c *conn) {
	from := l.strangers[c.source]
	from.Remove(c.place)
	if from.Len() == 0 {
		delete(l.strangers, c.source)
	}
	c.place = nil
	c.known.Store(true)
	c.timer.Stop()
	l.count--
	l.Metrics.Strangers.Add(-1)
}

// sourceOf returns what stands for one subscriber: an IPv4 address, or the /64 of an IPv6 address.
func sourceOf(c net.Conn) netip.Addr {
	tcp, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap().WithZone("")
	if addr.Is6() {
		p, _ := addr.Prefix(64) // cannot fail: an IPv6 address has 64 bits
		return p.Addr()
	}
	return addr
}
