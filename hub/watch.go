package hub

import (
	"context"
	"slices"
	"time"

	"telemetryhub/device"
)

// watchPause is the least time between two looks at what has changed, so that a fleet that sends all the time costs little.
const watchPause = 100 * time.Millisecond

// PresenceChange is the presence of a device at one moment.
type PresenceChange struct {
	Device   device.ID
	Presence Presence
	// Deleted means that the device no longer exists.
	Deleted bool
}

// WatchPresence calls tell first for every device that exists or ever existed, and then whenever the presence of one may have
// changed, with nothing missed in between, until ctx ends (nil) or tell returns an error, which it returns. What changes more
// than once while tell runs is told once, as it is by then; so nobody waits for a tell that takes long.
func (h *Hub) WatchPresence(ctx context.Context, tell func(PresenceChange) error) error {
	w, seen := &watcher{wake: make(chan struct{}, 1)}, h.live.now()
	defer h.live.disarm(w)
	pause := time.NewTimer(watchPause)
	defer pause.Stop()
	all := append(h.registry.all(), h.registry.gone()...)
	for chunk := range slices.Chunk(all, 1000) { // so that apply never waits for the whole fleet
		if err := tellAll(ctx, h.live.presenceOf(chunk), tell); err != nil {
			return ignoreCancel(ctx, err)
		}
	}
	for {
		changed, now := h.live.presenceAfter(seen)
		if err := tellAll(ctx, changed, tell); err != nil {
			return ignoreCancel(ctx, err)
		}
		seen = now
		pause.Reset(watchPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
		if !h.live.arm(w, now) {
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// watcher is a follower that only notes that something has changed.
type watcher struct{ wake chan struct{} }

func (w *watcher) changed()    { signal(w.wake) }
func (w *watcher) brief() bool { return true }

func tellAll(ctx context.Context, list []PresenceChange, tell func(PresenceChange) error) error {
	for _, c := range list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := tell(c); err != nil {
			return err
		}
	}
	return nil
}

func (l *live) presenceOf(devices []*entity) []PresenceChange {
	list := make([]PresenceChange, len(devices))
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, e := range devices {
		list[i] = e.presenceChangeLocked()
	}
	return list
}

// presenceAfter returns the devices whose presence may have changed after a mark, and the mark that it looked at.
func (l *live) presenceAfter(seen mark) ([]PresenceChange, mark) {
	var list []PresenceChange
	l.mu.Lock()
	defer l.mu.Unlock()
	for el := l.recent.Front(); el != nil; el = el.Next() {
		e := el.Value.(*entity)
		if !e.live.after(seen) {
			break
		}
		if e.live.noted > seen.clock {
			list = append(list, e.presenceChangeLocked())
		}
	}
	return list, l.mark
}

// presenceChangeLocked needs live.mu.
func (e *entity) presenceChangeLocked() PresenceChange {
	return PresenceChange{Device: e.id, Presence: e.live.presence, Deleted: e.deleted.Load()}
}
