package history

import (
	"time"

	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// Store is the history. Apply and ApplyEntry have one caller at a time; all other methods are safe for use by many
// goroutines at once, beside it and beside each other.
type Store struct {
	chunks  storage.Chunks
	catalog storage.Catalog
	schemas Schemas
	o       Options

	heads heads
	apply applier // guarded by heads.turn
	index *index
	dec   *chunk.Decoder

	// busy holds one token. Flush, Latest and DropDevice take it: they are done one after the other. It guards writer.
	busy   chan struct{}
	writer writer
}

// Checkpoint returns the position up to which everything is durable in chunks. At a start the log must be applied from
// there on; everything up to it may be trimmed from the log as far as history is concerned.
func (s *Store) Checkpoint() storage.Position {
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	return s.heads.saved.pos
}

// Applied returns the position of the last group that was applied.
func (s *Store) Applied() storage.Position {
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	return s.heads.applied
}

// Due reports whether it is time for a [Store.Flush]: a flush has failed, or the heads have grown over
// Options.HeadBytes, or the log since the last flush over Options.LogBytes, or the oldest row over Options.MaxAge.
func (s *Store) Due() bool {
	h := &s.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.frozen != nil || h.bytes >= s.o.HeadBytes || h.logBytes >= s.o.LogBytes ||
		!h.since.IsZero() && time.Since(h.since) >= s.o.MaxAge
}

// Pressure returns how much of Options.MaxBytes the heads take up. From 1 on Apply fails with storage.ErrFull: ingest
// should pause before.
func (s *Store) Pressure() float64 {
	s.heads.mu.Lock()
	defer s.heads.mu.Unlock()
	return float64(s.heads.usedLocked()) / float64(s.o.MaxBytes)
}

// Stats is what an operator may want to know.
type Stats struct {
	// ActiveBytes and FrozenBytes are the memory of the heads, and of those that a flush is writing or failed to write.
	ActiveBytes, FrozenBytes int64
	// LogBytes is the size of the log that is not yet in chunks.
	LogBytes int64
	// Applied and Checkpoint are positions of the log.
	Applied, Checkpoint storage.Position
	// Flushes is the number of the last complete flush.
	Flushes uint64
	// Lost counts the records and groups since Open that could not be applied, or not wholly. Each left a gap.
	Lost uint64
	// Waiting is how long the oldest row has been in memory without a flush having begun.
	Waiting time.Duration
}

// Stats returns the state of the store now.
func (s *Store) Stats() Stats {
	h := &s.heads
	h.mu.Lock()
	defer h.mu.Unlock()
	st := Stats{
		ActiveBytes: h.bytes, LogBytes: h.logBytes, Applied: h.applied, Checkpoint: h.saved.pos, Flushes: h.saved.flush, Lost: h.lost,
	}
	if h.frozen != nil {
		st.FrozenBytes = h.frozen.bytes
		st.LogBytes += h.frozen.logBytes
	}
	if !h.since.IsZero() {
		st.Waiting = time.Since(h.since)
	}
	return st
}
