package hub

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"telemetryhub/storage"
	"telemetryhub/storage/history"
)

// counters are what the hub counts since the start.
type counters struct {
	readings, commits, committedBytes atomic.Uint64
	duplicates, gaps, refused         atomic.Uint64
	replaced, flushes                 atomic.Uint64

	appending    atomic.Pointer[time.Time] // when the write to the log that is under way began; nil while there is none
	fullAt       atomic.Pointer[time.Time] // when the log last had no room; nil while it has
	historyStuck atomic.Bool               // the history cannot be written
}

// stallLimit is how long a write to the log may take before the hub counts as unable to acknowledge. A card that has grown
// old takes a second now and then.
const stallLimit = 10 * time.Second

// stalled returns how long the write to the log that is under way has taken so far.
func (c *counters) stalled() time.Duration {
	if began := c.appending.Load(); began != nil {
		return time.Since(*began)
	}
	return 0
}

// full reports whether the log has no room, as far as is known.
func (c *counters) full() bool { return c.fullAt.Load() != nil }

// Status is the state of the hub at one moment.
type Status struct {
	// Durable is the position of the last group on disk, Historic that up to which it is in chunks too, and First the one
	// from which the log is still there.
	Durable, Historic, First storage.Position
	LogBytes, ChunkBytes     int64
	History                  history.Stats

	Devices, Sessions, Viewers int
	Cursors                    []CursorStatus // the outside ones, by name

	// Readings, Commits and the rest count since the start. CommittedBytes is the size of the groups.
	Readings, Commits, CommittedBytes uint64
	Duplicates, Gaps, Refused         uint64
	Replaced, Flushes                 uint64

	// Full means that readings are not taken because there is no room, HistoryStuck that the log grows because the history
	// cannot be written, ReadOnly that the disk takes no writes, Draining that the hub is stopping.
	Full, HistoryStuck, ReadOnly, Draining bool

	// Stalled is how long the write to the log that is under way has taken so far.
	Stalled time.Duration
}

// Status returns the state of the hub.
func (h *Hub) Status() Status {
	h.registry.mu.RLock()
	devices := len(h.registry.byID)
	h.registry.mu.RUnlock()
	c := &h.stats
	return Status{
		Durable: h.tail.end(), Historic: h.history.Checkpoint(), First: h.log.First(),
		LogBytes: h.log.Size(), ChunkBytes: h.chunks.Size(), History: h.history.Stats(),
		Devices: devices, Sessions: int(h.sessions.Load()), Viewers: int(h.viewers.Load()),
		Cursors:  h.outbox.status(),
		Readings: c.readings.Load(), Commits: c.commits.Load(), CommittedBytes: c.committedBytes.Load(),
		Duplicates: c.duplicates.Load(), Gaps: c.gaps.Load(), Refused: c.refused.Load(),
		Replaced: c.replaced.Load(), Flushes: c.flushes.Load(),
		Full: c.full(), HistoryStuck: c.historyStuck.Load(), ReadOnly: h.readOnly.Load(), Draining: h.draining.Load(),
		Stalled: c.stalled(),
	}
}

// Ready returns nil if readings are acknowledged now, else an error that says why not.
func (s *Status) Ready() error {
	switch {
	case s.Draining:
		return ErrDraining
	case s.ReadOnly:
		return fmt.Errorf("the hub takes no readings: %w: check the disk, then start the hub again", storage.ErrReadOnly)
	case s.Full:
		return fmt.Errorf("the hub takes no readings: %w: free some space, it goes on by itself", storage.ErrFull)
	case s.Stalled >= stallLimit:
		return fmt.Errorf("the disk has not finished a write for %d s: check the disk of the hub", int64(s.Stalled.Seconds()))
	case s.HistoryStuck:
		return errors.New("the history cannot be written and the log grows: see the log of the hub")
	}
	return nil
}
