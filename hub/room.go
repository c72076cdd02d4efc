package hub

import (
	"errors"
	"fmt"
	"time"

	"telemetryhub/storage"
)

// heldBack is the share of the history's memory from which on nothing more is taken while the history cannot be written. The
// rest is for what is in the log already but not yet in that memory, so that everything acknowledged stays in every answer.
const heldBack = 0.75

// full reports whether readings that somebody waits for are refused without a try. Not for long, so that there is a try
// also when nothing else comes that would show that there is room again.
func (h *Hub) full() bool {
	at := h.stats.fullAt.Load()
	return at != nil && time.Since(*at) < 2*fullRetry
}

// held returns an error that wraps storage.ErrFull while the log may take nothing although it has room.
func (h *Hub) held() error {
	if h.stats.historyStuck.Load() && h.history.Pressure() >= heldBack {
		return fmt.Errorf("%w for history files, and what waits for them in memory is as much as it may be", storage.ErrFull)
	}
	return nil
}

// noRoom reports whether a write at the start failed in a way that a hub can live with: it serves what there is, and the
// write is tried again later.
func noRoom(err error) bool {
	return errors.Is(err, storage.ErrFull) || errors.Is(err, storage.ErrReadOnly)
}
