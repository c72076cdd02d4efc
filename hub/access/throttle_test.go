package access

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

func v4(n uint32) netip.Addr {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], n)
	return netip.AddrFrom4(raw)
}

// What the throttle remembers is bounded, and a flood of names and sources does not make it forget whom it holds back.
func TestThrottleIsBoundedAndKeepsWhatMatters(t *testing.T) {
	th, now := newThrottle(), time.Unix(1_800_000_000, 0)
	for i := range uint32(accountBurst) {
		if _, err := th.begin(v4(i), "victim", now); err != nil {
			t.Fatal(err)
		}
	}
	for range sourceBurst {
		if _, err := th.begin(v4(4711), strconv.Itoa(int(now.UnixNano())), now); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Nanosecond)
	}
	for i := range uint32(3 * maxBuckets) {
		if _, err := th.begin(v4(1_000_000+i), "nobody"+strconv.Itoa(int(i)), now); err != nil {
			t.Fatal(err)
		}
	}
	if a, s := len(th.accounts.of), len(th.sources.of); a > maxBuckets || s > maxBuckets {
		t.Errorf("%d accounts and %d sources are remembered", a, s)
	}
	if _, err := th.begin(v4(99), "victim", now); !errors.Is(err, ErrThrottled) {
		t.Errorf("the flood made the throttle forget the account: %v", err)
	}
	if _, err := th.begin(v4(4711), "somebody", now); !errors.Is(err, ErrThrottled) {
		t.Errorf("the flood made the throttle forget the source: %v", err)
	}

	for i := range uint32(2 * maxKnown) {
		now = now.Add(time.Second)
		th.succeeded(v4(i), "alice", now)
	}
	if len(th.known) > maxKnown {
		t.Errorf("%d sources of logins are remembered", len(th.known))
	}
	if a, err := th.begin(v4(2*maxKnown-1), "alice", now); err != nil || !a.known {
		t.Errorf("the newest source of a login is not known: %v", err)
	}
}

// Full buckets say nothing and go first, many at once.
func TestThrottleForgetsFullBucketsFirst(t *testing.T) {
	b, now := newBuckets[int](10, time.Second), time.Unix(1_800_000_000, 0)
	for i := range maxBuckets {
		b.take(i, now)
	}
	now = now.Add(2 * time.Second)
	b.take(0, now) // is not full any more
	b.take(maxBuckets, now)
	if len(b.of) > maxBuckets-evictLook+2 || b.left(0, now) != 9 || b.left(maxBuckets, now) != 9 {
		t.Errorf("%d buckets are left", len(b.of))
	}
}
