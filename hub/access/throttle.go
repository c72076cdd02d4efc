package access

import (
	"net/netip"
	"sync"
	"time"
)

// Guesses are counted in buckets: each holds some at first and gets one back from time to time. A guess must be in the
// bucket of its source and in that of the account. So one source can try 20 passwords and then 8,640 a day, and all
// sources together 10 on one account and then 2,880 a day.
//
// Strangers can empty the bucket of an account for as long as they like. Therefore a source from which the person has
// logged in before has a bucket of its own for that account, which nobody else can empty. Links need no guess at all, so
// that `hub user link` always lets the owner of the machine in.
const (
	accountBurst = 10
	accountEvery = 30 * time.Second
	sourceBurst  = 20
	sourceEvery  = 10 * time.Second
	maxBuckets   = 4096
	evictLook    = 64
	// knownFor is how long a source is remembered after a login, in memory only.
	knownFor = 30 * 24 * time.Hour
	maxKnown = 1024
)

// pair is an account as it is reached from a source.
type pair struct {
	source  netip.Prefix
	account string
}

// throttle limits guesses. It is safe for use by many goroutines at once.
type throttle struct {
	mu       sync.Mutex // guards the fields below
	accounts buckets[string]
	sources  buckets[netip.Prefix]
	pairs    buckets[pair]
	known    map[pair]time.Time // last login
}

func newThrottle() *throttle {
	return &throttle{
		accounts: newBuckets[string](accountBurst, accountEvery),
		sources:  newBuckets[netip.Prefix](sourceBurst, sourceEvery),
		pairs:    newBuckets[pair](accountBurst, accountEvery),
		known:    map[pair]time.Time{},
	}
}

// attempt is one guess that was let through.
type attempt struct {
	pair
	known bool
}

// begin counts a guess, or returns a *ThrottledError and counts nothing.
func (t *throttle) begin(source netip.Addr, account string, now time.Time) (attempt, error) {
	p := pair{source: network(source), account: account}
	t.mu.Lock()
	defer t.mu.Unlock()
	if last, ok := t.known[p]; ok && now.Sub(last) < knownFor {
		if wait := t.pairs.wait(p, now); wait > 0 {
			return attempt{}, &ThrottledError{After: wait}
		}
		t.pairs.take(p, now)
		return attempt{pair: p, known: true}, nil
	}
	if wait := max(t.sources.wait(p.source, now), t.accounts.wait(account, now)); wait > 0 {
		return attempt{}, &ThrottledError{After: wait}
	}
	t.sources.take(p.source, now)
	t.accounts.take(account, now)
	return attempt{pair: p}, nil
}

// giveBack takes a guess out of the count: it was right, or was not looked at.
func (t *throttle) giveBack(a attempt) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a.known {
		t.pairs.giveBack(a.pair)
		return
	}
	t.sources.giveBack(a.source)
	t.accounts.giveBack(a.account)
}

// succeeded remembers that somebody has logged in to the account from the source.
func (t *throttle) succeeded(source netip.Addr, account string, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known[pair{source: network(source), account: account}] = now
	if len(t.known) <= maxKnown {
		return
	}
	var oldest pair
	first := now
	for p, last := range t.known {
		if !last.After(first) {
			oldest, first = p, last
		}
	}
	delete(t.known, oldest)
}

// network returns what counts as one source: an IPv4 address, or the /64 that an IPv6 customer has at least. The zero
// prefix stands for an address that is not known.
func network(source netip.Addr) netip.Prefix {
	source = source.Unmap().WithZone("")
	bits := source.BitLen()
	if source.Is6() {
		bits = 64
	}
	p, err := source.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// bucket holds how many guesses are left at a time.
type bucket struct {
	left float64
	at   time.Time
}

// buckets has one bucket for each key. A key without one has a full bucket.
type buckets[K comparable] struct {
	burst float64
	every time.Duration
	of    map[K]bucket
}

func newBuckets[K comparable](burst float64, every time.Duration) buckets[K] {
	return buckets[K]{burst: burst, every: every, of: map[K]bucket{}}
}

func (b *buckets[K]) left(k K, now time.Time) float64 {
	have, ok := b.of[k]
	if !ok {
		return b.burst
	}
	return min(b.burst, have.left+float64(max(0, now.Sub(have.at)))/float64(b.every))
}

// wait returns how long it takes until there is a guess.
func (b *buckets[K]) wait(k K, now time.Time) time.Duration {
	return time.Duration(max(0, 1-b.left(k, now)) * float64(b.every))
}

func (b *buckets[K]) take(k K, now time.Time) {
	left := b.left(k, now)
	if _, ok := b.of[k]; !ok && len(b.of) >= maxBuckets {
		b.evict(now)
	}
	b.of[k] = bucket{left: left - 1, at: now}
}

func (b *buckets[K]) giveBack(k K) {
	if have, ok := b.of[k]; ok {
		have.left++
		b.of[k] = have
	}
}

// evict looks at some buckets (a map is gone through from a random place) and forgets the full ones, which say nothing,
// or else the fullest one: many new keys cannot push out those that are being guessed at.
func (b *buckets[K]) evict(now time.Time) {
	var fullest K
	most, looked := -1.0, 0
	for k := range b.of {
		if looked++; looked > evictLook {
			break
		}
		left := b.left(k, now)
		if left >= b.burst {
			delete(b.of, k)
		}
		if left > most {
			fullest, most = k, left
		}
	}
	delete(b.of, fullest)
}
