package firmwaresim

import (
	"context"
	"time"
)

// Progress is how far a replay is.
type Progress struct {
	Elapsed time.Duration
	// Total is the number of readings of the recording, zero if it is looped.
	Total int
	// Played, Sent and Acked count readings: taken from the recording, sent to the hub for the first time or again, and
	// acknowledged by it. Readings that an earlier run left in the spools count in the last two.
	Played, Sent, Acked uint64
	// Devices and Connected count devices.
	Devices, Connected int
	// Err is why a device is not connected, nil if all are or none has tried yet.
	Err error
	// Done is set in the last call.
	Done bool
}

func (f *fleet) progress() Progress {
	p := Progress{Elapsed: time.Since(f.began), Devices: len(f.members)}
	if !f.opts.Loop {
		p.Total = f.rec.Readings
	}
	for _, m := range f.members {
		s := m.agent.Stats()
		p.Played += s.Appended
		p.Sent += s.Sent
		p.Acked += s.Acked
		if s.Connected {
			p.Connected++
		} else if s.LastErr != nil {
			p.Err = s.LastErr
		}
	}
	return p
}

// show calls Progress until ctx ends, and then once more.
func (f *fleet) show(ctx context.Context) {
	if f.opts.Progress == nil {
		return
	}
	tick := time.NewTicker(f.opts.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			p := f.progress()
			p.Done = true
			f.opts.Progress(p)
			return
		case <-tick.C:
			f.opts.Progress(f.progress())
		}
	}
}
