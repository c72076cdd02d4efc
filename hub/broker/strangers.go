package broker

import (
	"container/list"
	"net"
	"net/netip"
	"sync"

	"telemetryhub/hub/access"
)

// strangers are the connections that have not authenticated, of which an attacker can have any number. One too many closes
// the oldest of the address that has most of them, so that whoever comes from elsewhere still gets in.
type strangers struct {
	max     int
	metrics *Metrics

	mu    sync.Mutex // guards the fields below
	count int
	by    map[netip.Addr]*list.List // of net.Conn, oldest first
	over  bool
}

func newStrangers() map[netip.Addr]*list.List { return make(map[netip.Addr]*list.List) }

// add counts a connection. It returns nil when no more are taken; otherwise leave must be called once, and tells whether
// the connection was not closed meanwhile.
func (s *strangers) add(raw net.Conn) (leave func() bool) {
	source := sourceOf(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return nil
	}
	if s.count >= s.max {
		s.displaceLocked()
	}
	l := s.by[source]
	if l == nil {
		l = list.New()
		s.by[source] = l
	}
	e := l.PushBack(raw)
	s.count++
	s.metrics.Strangers.Add(1)
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.removeLocked(source, e)
	}
}

// removeLocked reports whether the stranger was still there.
func (s *strangers) removeLocked(source netip.Addr, e *list.Element) bool {
	l := s.by[source]
	if l == nil {
		return false
	}
	n := l.Len()
	l.Remove(e)
	if l.Len() == n {
		return false
	}
	if n == 1 {
		delete(s.by, source)
	}
	s.count--
	s.metrics.Strangers.Add(-1)
	return true
}

func (s *strangers) displaceLocked() {
	var most netip.Addr
	n := 0
	for source, l := range s.by {
		if l.Len() > n {
			most, n = source, l.Len()
		}
	}
	if n == 0 {
		return
	}
	e := s.by[most].Front()
	s.removeLocked(most, e)
	s.metrics.Displaced.Add(1)
	cutRaw(e.Value.(net.Conn))
}

// displace closes one stranger, which gives back a file descriptor.
func (s *strangers) displace() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.displaceLocked()
}

// closeAll closes those that there are, and no more are taken.
func (s *strangers) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	for _, l := range s.by {
		for e := l.Front(); e != nil; e = e.Next() {
			cutRaw(e.Value.(net.Conn))
		}
	}
}

// cutRaw closes a connection without a TLS alert, for which Close could wait for the peer.
func cutRaw(raw net.Conn) {
	if t, ok := raw.(interface{ NetConn() net.Conn }); ok {
		raw = t.NetConn()
	}
	_ = raw.Close() // nobody is to hear about it
}

// sourceOf returns what stands for one subscriber: an IPv4 address, or the /64 of an IPv6 address.
func sourceOf(raw net.Conn) netip.Addr {
	ap, err := netip.ParseAddrPort(raw.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return access.Subscriber(ap.Addr())
}
