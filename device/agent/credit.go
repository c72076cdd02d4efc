package agent

import (
	"sync"
	"time"

	"telemetryhub/device/wire"
)

// credit knows what is in flight and what may be.
type credit struct {
	wake chan struct{} // has a value after something changed

	mu     sync.Mutex // guards the fields below
	stream string
	sent   []sent // not acknowledged, oldest first
	bytes  int    // of them
	limit  wire.Limits
	slow   wire.Slow
	until  time.Time // slow is valid before
}

// sent is one batch or gap in flight.
type sent struct {
	seq   uint64
	size  int
	count uint32 // readings
}

// begin starts a connection: what the welcome acknowledges is settled, the rest will be sent again. It returns the readings
// that were settled.
func (c *credit) begin(stream string, ack uint64, limit wire.Limits) (readings uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == stream {
		readings = c.settleLocked(ack)
	}
	c.stream, c.sent, c.bytes, c.limit, c.until = stream, nil, 0, limit, time.Time{}
	return readings
}

// admit reports whether a frame of this size may be sent now. If not, retry is when the answer can change without an ack,
// zero if only an ack can change it.
func (c *credit) admit(size int) (ok bool, retry time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	win, bytes := int(c.limit.Win), int(c.limit.Bytes)
	if rest := time.Until(c.until); rest > 0 {
		retry = rest
		win = min(win, int(c.slow.Win))
		if c.slow.Bytes > 0 {
			bytes = min(bytes, int(c.slow.Bytes))
		}
	}
	if win == 0 {
		return false, retry
	}
	return len(c.sent) == 0 || len(c.sent) < win && c.bytes+size <= bytes, retry
}

// add puts a frame in flight.
func (c *credit) add(s sent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, s)
	c.bytes += s.size
}

// settle takes an ack and returns the readings that it settled.
func (c *credit) settle(a *wire.Ack) (readings uint64) {
	c.mu.Lock()
	readings = c.settleLocked(a.Seq)
	if a.Win > 0 {
		c.limit.Win = a.Win
	}
	if a.Bytes > 0 {
		c.limit.Bytes = a.Bytes
	}
	c.mu.Unlock()
	c.signal()
	return readings
}

func (c *credit) settleLocked(seq uint64) (readings uint64) {
	n := 0
	for ; n < len(c.sent) && c.sent[n].seq <= seq; n++ {
		readings += uint64(c.sent[n].count)
		c.bytes -= c.sent[n].size
	}
	c.sent = append(c.sent[:0], c.sent[n:]...)
	return readings
}

// slowDown takes the hub's wish.
func (c *credit) slowDown(s wire.Slow) {
	c.mu.Lock()
	c.slow, c.until = s, time.Now().Add(time.Duration(s.ForMS)*time.Millisecond)
	c.mu.Unlock()
	c.signal()
}

// wish returns how long the hub would like batches to be collected, zero if it has no wish now.
func (c *credit) wish() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Until(c.until) <= 0 {
		return 0
	}
	return time.Duration(min(c.slow.BatchMS, 3_600_000)) * time.Millisecond
}

// idle reports whether nothing is in flight.
func (c *credit) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.sent) == 0
}

func (c *credit) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
