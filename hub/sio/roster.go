package sio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/sio/socket"
)

const (
	// rosterTick is the least time between two looks at what changed of devices.
	rosterTick = 250 * time.Millisecond
	// resubscribe is how long the watch waits after it was broken off.
	resubscribe = time.Second
	// maxGone is how many deleted devices are remembered.
	maxGone = 1000
)

// noMetric is a pattern that no metric has a name for: the feed then tells what changes of devices besides readings.
const noMetric = "\x00"

// roster holds what is known of every device besides its readings, in the order in which that last changed. Followers remember
// up to which version they know it, so that nothing is queued for them, however many devices change.
type roster struct {
	version atomic.Uint64 // of the last change

	mu   sync.Mutex // guards the fields below
	byID map[device.ID]*entry
	log  []*entry // ascending; those that changed again since are further behind too
}

// entry is one device. Entries are never changed, but replaced.
type entry struct {
	id      device.ID
	version uint64
	gone    bool
	packet  []byte // what is sent
}

func newRoster() *roster { return &roster{byID: map[device.ID]*entry{}} }

// apply takes a frame of the feed.
func (r *roster) apply(frame []byte) error {
	var f struct {
		Devices []json.RawMessage `json:"devices"`
	}
	if err := json.Unmarshal(frame, &f); err != nil {
		return fmt.Errorf("read a frame of the feed: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	version := r.version.Load()
	for _, raw := range f.Devices {
		var d struct {
			ID   device.ID `json:"id"`
			Gone bool      `json:"gone"`
		}
		if err := json.Unmarshal(raw, &d); err != nil {
			return fmt.Errorf("read a frame of the feed: %w", err)
		}
		version++
		packet := append(append([]byte(`2["device",`), raw...), ']')
		e := &entry{id: d.ID, version: version, gone: d.Gone, packet: packet}
		r.byID[d.ID] = e
		r.log = append(r.log, e)
	}
	if len(r.log) > 2*len(r.byID)+64 {
		r.compactLocked()
	}
	r.version.Store(version)
	return nil
}

// compactLocked drops entries that were replaced, and the oldest of deleted devices.
func (r *roster) compactLocked() {
	gone := 0
	for _, e := range r.byID {
		if e.gone {
			gone++
		}
	}
	var kept []*entry
	for _, e := range r.log {
		if r.byID[e.id] != e {
			continue
		}
		if e.gone && gone > maxGone {
			gone--
			delete(r.byID, e.id)
			continue
		}
		kept = append(kept, e)
	}
	r.log = kept
}

// next appends the oldest change after the version that the follower sees, and moves the version.
func (r *roster) next(dst []byte, seen *uint64, sees func(device.ID) bool) ([]byte, bool) {
	if r.version.Load() == *seen {
		return dst, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	i := sort.Search(len(r.log), func(i int) bool { return r.log[i].version > *seen })
	for ; i < len(r.log); i++ {
		e := r.log[i]
		*seen = e.version
		if r.byID[e.id] == e && sees(e.id) {
			return append(dst, e.packet...), true
		}
	}
	*seen = r.version.Load()
	return dst, false
}

// watchPeer is the connection of the roster as the hub sees it.
type watchPeer struct {
	wake, closed chan struct{} // have room for one
}

func (p *watchPeer) Wake() { signal(p.wake) }

func (p *watchPeer) Close(wire.CloseCode, string) { signal(p.closed) }

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// watchDevices keeps the roster until ctx ends.
func (s *Server) watchDevices(ctx context.Context) error {
	for {
		err := s.watchOnce(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if !errors.Is(err, hub.ErrDraining) {
			s.Logger.Warn("the watch over devices was broken off, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(resubscribe):
		}
	}
}

var errBroken = errors.New("the hub ended the subscription")

func (s *Server) watchOnce(ctx context.Context) error {
	peer := &watchPeer{wake: make(chan struct{}, 1), closed: make(chan struct{}, 1)}
	viewer, err := s.subscribe(ctx, hub.Subscription{Metrics: []string{noMetric}, Tick: rosterTick}, peer)
	if err != nil {
		return err
	}
	defer viewer.End()
	var buf []byte
	for {
		changed := false
		for {
			frame, _, _, ok := viewer.NextPacked(buf[:0])
			buf = frame
			if !ok {
				break
			}
			if err := s.devices.apply(frame); err != nil {
				return err
			}
			changed = true
		}
		if cap(buf) > 1<<20 {
			buf = nil
		}
		if changed {
			s.space.Each(func(at *socket.Socket) bool { at.Wake(); return true })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-peer.closed:
			return errBroken
		case <-peer.wake:
		}
	}
}
