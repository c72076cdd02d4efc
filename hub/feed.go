package hub

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
)

// Mode says what a viewer is told.
type Mode uint8

// The modes.
const (
	// Latest sends the newest value of each metric, at most once a tick. What changes in between is conflated.
	Latest Mode = 0
	// All sends every reading in log order.
	All Mode = 1
)

// ParseMode returns the mode of that name. An empty name is latest.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "", "latest":
		return Latest, nil
	case "all":
		return All, nil
	}
	return 0, &BadInput{Text: fmt.Sprintf("unknown mode %q: use latest or all", s)}
}

// defaultTick is the least time between two frames to one viewer, unless it asks otherwise.
const defaultTick = 100 * time.Millisecond

// Peer is the connection of one device or viewer as the hub sees it. Both methods return at once and may be called from
// any goroutine, also after the connection has ended.
type Peer interface {
	// Wake says that there is something to write: a writer should call Next until it returns false.
	Wake()
	// Close ends the connection with this close code.
	Close(code wire.CloseCode, reason string)
}

// Subscription says what a viewer wants to see.
type Subscription struct {
	// Devices and Metrics are patterns: a name, or a beginning with * after it. None means all.
	Devices, Metrics []string
	Mode             Mode
	// After is the token of the last frame that the viewer has seen; empty begins with a snapshot.
	After string
	// Tick is the least time between two frames of changes, for all viewers that see the same together: the first after a
	// snapshot may come sooner. Zero means 100 ms, negative none.
	Tick time.Duration
	// Format is how frames are written. Zero means JSON.
	Format wire.Format
	// Greet makes the first frame a welcome. It counts when the subscription begins, not when it is changed.
	Greet bool
	// Scope limits what the viewer may see. Nil means everything, and lets viewers with the same subscription share the
	// work of writing their frames.
	Scope func(device.ID) bool
}

const (
	maxPatterns = 64
	// frameBytes is about how large a frame may become before the rest goes into the next one.
	frameBytes = 64 << 10
	// maxResume is how much of the log a viewer that comes back may have read for it.
	maxResume = 64 << 20
)

func (s *Subscription) check() error {
	if len(s.Devices) > maxPatterns || len(s.Metrics) > maxPatterns {
		return &BadInput{Text: fmt.Sprintf("more than %d patterns", maxPatterns)}
	}
	for _, p := range append(append([]string(nil), s.Devices...), s.Metrics...) {
		if i := strings.IndexByte(p, '*'); p == "" || len(p) > device.MaxNameLen+1 || i >= 0 && i != len(p)-1 {
			return &BadInput{Text: fmt.Sprintf("bad pattern %q: use a name, or a beginning followed by *", p)}
		}
	}
	return nil
}

func matches(patterns []string, s string) bool {
	if len(patterns) == 0 {
		return true
	}
	for _, p := range patterns {
		if beginning, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(s, beginning) || p == s {
			return true
		}
	}
	return false
}

// Viewer is one subscription. Next is called by one goroutine at a time; the other methods are safe for concurrent use.
type Viewer struct {
	hub  *Hub
	peer Peer

	// Guarded by the mutex of the view. While the viewer is armed the view moves it.
	armed bool // it has everything, and is at view.armed[place]
	late  bool // it was armed when frames were there already that the others who are armed have yet to get
	place int

	mu         sync.Mutex // guards the fields below, and at while the viewer is not armed
	sub        Subscription
	view       *view
	at         spot      // up to here everything was sent
	shown      spot      // the snapshot shows the state of then, which is later than where it began
	greet      bool      // the welcome is still to be sent
	resumeLeft int       // bytes that may be read from the log to catch up
	snapshot   *snapshot // what is left to send of it, nil if none
	err        error
	ended      bool
}

// snapshot is the list of devices whose state is still to be sent.
type snapshot struct {
	devices []*entity
	resume  bool
	from    storage.Position // resume: only what changed after it, and what is not in the log, whose place no token knows
}

// Subscribe begins a subscription: a snapshot, or what changed after the token, and then every change, with nothing missing
// and nothing twice in between. Errors: ErrResume, ErrDraining, ErrTooMany, *BadInput.
func (h *Hub) Subscribe(_ context.Context, s Subscription, p Peer) (*Viewer, error) {
	if h.draining.Load() {
		return nil, ErrDraining
	}
	if n := h.viewers.Add(1); n > int64(h.options.MaxViewers) {
		h.viewers.Add(-1)
		return nil, ErrTooMany
	}
	v := &Viewer{hub: h, peer: p, greet: s.Greet}
	if err := v.start(s); err != nil {
		h.viewers.Add(-1)
		return nil, err
	}
	h.viewersMu.Lock()
	h.viewerSet[v] = struct{}{}
	h.viewersMu.Unlock()
	v.peer.Wake()
	return v, nil
}

// Change replaces the subscription: a snapshot of what it newly asks for comes first.
func (v *Viewer) Change(s Subscription) error {
	if err := v.start(s); err != nil {
		return err
	}
	v.peer.Wake()
	return nil
}

// End ends the subscription.
func (v *Viewer) End() {
	v.mu.Lock()
	ended := v.ended
	v.ended = true
	if !ended {
		v.view.leave(v)
	}
	v.mu.Unlock()
	if ended {
		return
	}
	v.hub.viewers.Add(-1)
	v.hub.viewersMu.Lock()
	delete(v.hub.viewerSet, v)
	v.hub.viewersMu.Unlock()
}

func (v *Viewer) start(s Subscription) error {
	if err := s.check(); err != nil {
		return err
	}
	switch {
	case s.Tick == 0:
		s.Tick = defaultTick
	case s.Tick < 0:
		s.Tick = 0
	}
	if s.Format != wire.CBOR {
		s.Format = wire.JSON
	}
	var at token
	if s.After != "" {
		var err error
		if at, err = v.hub.parseToken(s.After); err != nil {
			return err
		}
		now := v.hub.live.now()
		switch {
		case s.Mode == All && at.pos < v.hub.log.First():
			return ErrResume
		case at.pos > now.pos || at.pos == now.pos && at.skip > 0:
			// The token is of a frame that this hub has not got to yet: it was restarted and is still catching up.
			return ErrResume
		}
	}

	v.mu.Lock()
	defer v.mu.Unlock()
	if v.ended {
		return ErrDraining
	}
	if v.view != nil {
		v.view.leave(v)
	}
	v.sub, v.err, v.shown = s, nil, spot{}
	v.view = v.hub.join(v, &v.sub)
	v.snapshot = &snapshot{devices: v.hub.registry.all()}
	switch {
	case s.After == "":
	case s.Mode == All:
		v.at, v.snapshot = spot{token: at}, nil
		v.resumeLeft = maxResume
	default:
		v.snapshot.resume, v.snapshot.from = true, at.pos
		v.snapshot.devices = append(v.snapshot.devices, v.hub.registry.gone()...) // perhaps only since it left
	}
	return nil
}

// now returns the mark of the last change of all.
func (l *live) now() mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mark
}

// arm asks for a call of changed at the next change. It reports false if there has been one since the view looked.
func (l *live) arm(w *view, looked mark) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mark != looked {
		return false
	}
	l.armed[w] = struct{}{}
	return true
}

// disarm takes back arm.
func (l *live) disarm(w *view) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.armed, w)
}

// token is the place of a viewer in the log.
type token struct {
	pos  storage.Position
	skip int
}

func (h *Hub) appendToken(dst []byte, t token) []byte {
	dst = append(dst, h.epoch...)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, uint64(t.pos), 36)
	if t.skip > 0 {
		dst = append(dst, '-')
		dst = strconv.AppendUint(dst, uint64(t.skip), 36)
	}
	return dst
}

func (h *Hub) tokenString(t token) string { return string(h.appendToken(nil, t)) }

func (h *Hub) parseToken(s string) (token, error) {
	epoch, rest, _ := strings.Cut(s, "-")
	if epoch != h.epoch {
		return token{}, ErrResume
	}
	first, second, two := strings.Cut(rest, "-")
	pos, err := strconv.ParseUint(first, 36, 64)
	t := token{pos: storage.Position(pos)}
	if err == nil && two {
		var skip uint64
		skip, err = strconv.ParseUint(second, 36, 31)
		t.skip = int(skip)
	}
	if err != nil {
		return token{}, ErrResume
	}
	return t, nil
}
