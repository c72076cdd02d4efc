package firmwaresim

import (
	"context"
	"time"
)

// pacer turns recorded times into moments to play at.
type pacer struct {
	speed  float64 // zero means as fast as possible
	maxGap time.Duration
	stamp  bool // rows get the time at which they are played

	begin   time.Time // when the clock of the replay stood at zero
	clock   float64   // ms that were played
	last    int64     // recorded time of the row before
	started bool
}

// next waits until the row recorded at timeMS is due and returns the time to give it. Rows that go back in time are due at
// once.
func (p *pacer) next(ctx context.Context, timeMS int64) (int64, error) {
	if !p.started {
		p.begin, p.last, p.started = time.Now(), timeMS, true
	}
	gap := time.Duration(max(timeMS-p.last, 0)) * time.Millisecond
	if p.maxGap > 0 {
		gap = min(gap, p.maxGap)
	}
	p.last = timeMS
	due := time.Now()
	if p.speed > 0 {
		p.clock += float64(gap.Milliseconds()) / p.speed
		due = p.begin.Add(time.Duration(p.clock * float64(time.Millisecond)))
		if wait := time.Until(due); wait > 0 {
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			case <-timer.C:
			}
		}
	}
	if p.stamp {
		return due.UnixMilli(), nil
	}
	return timeMS, nil
}

// again begins a new round without a gap before it.
func (p *pacer) again(first int64) { p.last = first }
