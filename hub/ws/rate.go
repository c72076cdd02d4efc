package ws

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"telemetryhub/hub/access"
)

// maxSources bounds the addresses whose rate is remembered.
const maxSources = 4096

// bucket is a token bucket.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes one token and reports whether there was one. A new bucket is full.
func (b *bucket) take(r Rate, now time.Time) bool {
	if r.PerSecond < 0 {
		return true
	}
	if b.at.IsZero() {
		b.tokens = float64(r.Burst)
	} else {
		b.tokens = min(float64(r.Burst), b.tokens+now.Sub(b.at).Seconds()*r.PerSecond)
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// full reports whether the bucket says no more than a new one would.
func (b *bucket) full(r Rate, now time.Time) bool {
	return b.tokens+now.Sub(b.at).Seconds()*r.PerSecond >= float64(r.Burst)
}

// limiter limits upgrades, of everybody together and of each address.
type limiter struct {
	all, source Rate

	mu      sync.Mutex // guards the fields below
	total   bucket
	sources map[netip.Addr]*bucket
}

func newLimiter(all, source Rate) *limiter {
	return &limiter{all: all, source: source, sources: make(map[netip.Addr]*bucket)}
}

// allowSource counts a request from addr and reports whether it may go on.
func (l *limiter) allowSource(addr netip.Addr, now time.Time) bool {
	addr = access.Subscriber(addr)
	if !addr.IsValid() || addr.IsLoopback() || l.source.PerSecond < 0 {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.sources[addr]
	if b == nil {
		l.makeRoomLocked(now)
		b = new(bucket)
		l.sources[addr] = b
	}
	return b.take(l.source, now)
}

// allow counts an upgrade and reports whether it may go on.
func (l *limiter) allow(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total.take(l.all, now)
}

// makeRoomLocked forgets those who have their whole burst again, as they lose nothing, and if they are few then others too:
// who has so many addresses is not held up by a limit on each.
func (l *limiter) makeRoomLocked(now time.Time) {
	if len(l.sources) < maxSources {
		return
	}
	for addr, b := range l.sources {
		if b.full(l.source, now) {
			delete(l.sources, addr)
		}
	}
	for addr := range l.sources {
		if len(l.sources) <= maxSources*7/8 {
			return
		}
		delete(l.sources, addr)
	}
}

// retryAfter returns when somebody who was refused should come again, spread so that they do not all come at once.
func retryAfter() time.Duration { return time.Duration(2+rand.IntN(9)) * time.Second }
