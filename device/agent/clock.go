package agent

import (
	"sync"
	"time"

	"telemetryhub/device"
)

// Clock is what a device knows of the time. A Raspberry Pi has no clock that runs without power: after a start the time is
// wrong until the network says it. So until the system's clock is kept by NTP or GPS, times count from the start of the
// process by a clock that nobody sets, and are corrected by what the hub says (PROTOCOL.md section 4.11).
//
// A nil *Clock is one that is kept by NTP. A Clock is safe for concurrent use.
type Clock struct {
	opts ClockOptions

	origin time.Time

	mu     sync.Mutex // guards the fields below
	set    bool
	offset time.Duration // what the hub's time is ahead of ours
}

// ClockOptions configures a Clock. The zero value is one that only the hub can set.
type ClockOptions struct {
	// Synced reports whether the system's clock is kept by NTP or GPS. Nil means never.
	Synced func() bool
	// Boot is a number for this boot of the machine, and Uptime the time since it, which nobody sets. Batches that were
	// taken before the time was known are restated by it, also by another process of the same boot. A nil Uptime counts from
	// the start of the process, and Boot should then be random.
	Boot   uint16
	Uptime func() time.Duration
}

// NewClock returns a clock that begins to count now.
func NewClock(o ClockOptions) *Clock {
	c := &Clock{opts: o, origin: time.Now()}
	if c.opts.Synced == nil {
		c.opts.Synced = func() bool { return false }
	}
	if c.opts.Uptime == nil {
		c.opts.Uptime = func() time.Duration { return time.Since(c.origin) }
	}
	return c
}

// Quality says how far times of now can be trusted.
func (c *Clock) Quality() device.TimeQuality {
	_, q := c.At(time.Now())
	return q
}

// At returns a moment, which must come from time.Now of this process, in Unix milliseconds, and how far that can be trusted.
// With device.ClockNone it is what the system's clock said at the start of the process and the time since then.
func (c *Clock) At(t time.Time) (ms int64, q device.TimeQuality) {
	if c == nil || c.opts.Synced() {
		return t.UnixMilli(), device.ClockNTP
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ms = max(c.ownLocked(t)+c.offset.Milliseconds(), 1)
	if c.set {
		return ms, device.ClockHub
	}
	return ms, device.ClockNone
}

// own is our time without what the hub said.
func (c *Clock) own(t time.Time) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ownLocked(t)
}

func (c *Clock) ownLocked(t time.Time) int64 {
	return c.origin.UnixMilli() + t.Sub(c.origin).Milliseconds()
}

// setByHub takes what the hub's time is ahead of our own.
func (c *Clock) setByHub(ahead time.Duration) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	first = !c.set
	c.set, c.offset = true, ahead
	return first
}

// mark identifies a moment of this boot: the number of the boot in the upper 16 bits, below it the uptime in ms.
func (c *Clock) mark(t time.Time) uint64 {
	up := c.opts.Uptime() - time.Since(t)
	return uint64(c.opts.Boot)<<48 | uint64(max(up.Milliseconds(), 0))&(1<<48-1)
}

// age returns how long ago a mark was made. It reports false for a mark of another boot.
func (c *Clock) age(mark uint64) (time.Duration, bool) {
	if c == nil || uint16(mark>>48) != c.opts.Boot {
		return 0, false
	}
	age := c.opts.Uptime() - time.Duration(mark&(1<<48-1))*time.Millisecond
	return max(age, 0), true
}

const (
	// clockTries is how many exchanges make one setting of the clock. The one that took least time counts.
	clockTries = 5
	// clockEvery is the time between two settings. A quartz is off by some 50 ms in it.
	clockEvery = 10 * time.Minute
)

// exchange is one setting of the clock under way.
type exchange struct {
	tries int
	best  time.Duration // there and back
	ahead time.Duration
}

// add takes an answer: t0 and t3 are ours, t1 and t2 the hub's, in ms. It reports whether that was the last one.
func (x *exchange) add(t0, t1, t2, t3 int64) (done bool) {
	took := time.Duration((t3-t0)-(t2-t1)) * time.Millisecond
	if x.tries == 0 || took < x.best {
		x.best, x.ahead = took, time.Duration((t1-t0)+(t2-t3))*time.Millisecond/2
	}
	x.tries++
	return x.tries >= clockTries
}
