package agent

import "time"

// backoff spreads tries: each within a time that doubles, at a random moment of it, so that the devices of a hub that was
// away do not come back all at once.
type backoff struct {
	min, max time.Duration
	random   func() float64

	window time.Duration
	free   bool // a try without delay was granted since the last progress
}

// next returns how long to wait. progress means that the last connection was good for something. retry is what the hub asked
// for, zero if nothing. now means that there is a reason to connect again at once.
func (b *backoff) next(progress bool, retry time.Duration, now bool) time.Duration {
	if progress {
		b.window, b.free = 0, false
	}
	if now && !b.free {
		b.free = true
		return 0
	}
	b.window = min(max(2*b.window, b.min), b.max)
	if retry > 0 {
		return min(retry, time.Hour) + time.Duration(b.random()*float64(b.min))
	}
	return time.Duration(b.random() * float64(b.window))
}
