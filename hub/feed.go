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

// maxTick is the slowest pace that a viewer may ask for.
const maxTick = time.Hour

// TickOf returns the tick that a client asks for by a number of milliseconds: 0 means 100 ms, a negative number none. What
// is more than an hour is an hour.
func TickOf(ms float64) time.Duration {
	if ms >= float64(maxTick/time.Millisecond) {
		return maxTick
	}
	return time.Duration(max(ms, -1) * float64(time.Millisecond))
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
	// snapshot may come sooner. Where they are many and changes come all the time, a frame reaches them one after the other
	// within half of it. Zero means 100 ms, negative none.
	Tick time.Duration
	// Format is how frames are written. Zero means JSON.
	Format wire.Format
	// Greet makes the first frame a welcome. It counts when the subscription begins, not when it is changed.
	Greet bool
	// Once is for who asks Next until it returns false, and then ends. What comes later is not told: Wake is not called, and
	// neither is Close but by Next. It counts when the subscription begins.
	Once bool
	// Packing turns frames into what is sent, for those who call NextPacked. Nil leaves them as they are.
	Packing Packing
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
	once bool

	// Guarded by the mutex of the view. While the viewer is armed the view moves it.
	armed bool // it has everything, and is at view.armed[place]
	late  bool // it was armed when frames were there already that the others who are armed have yet to get
	place int

	mu         sync.Mutex // guards the fields below, and at while the viewer is not armed
	view       *view
	at         spot      // up to here everything was sent
	shown      spot      // it may have seen the state of then, which is later than where it begins
	greet      bool      // the welcome is still to be sent
	leaving    bool      // it does not wait for more
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
	v := &Viewer{hub: h, peer: p, once: s.Once, leaving: s.Once, greet: s.Greet}
	if err := v.start(s); err != nil {
		h.viewers.Add(-1)
		return nil, err
	}
	if v.once {
		return v, nil // it ends by itself, so nobody needs to find it
	}
	h.viewersMu.Lock()
	h.viewerSet[v] = struct{}{}
	h.viewersMu.Unlock()
	if h.draining.Load() { // since the check above; who closes viewers may not have seen it
		v.End()
		return nil, ErrDraining
	}
	v.peer.Wake()
	return v, nil
}

// Change replaces the subscription: a snapshot of what it newly asks for comes first.
func (v *Viewer) Change(s Subscription) error {
	if err := v.start(s); err != nil {
		return err
	}
	if !v.once {
		v.peer.Wake()
	}
	return nil
}

// Leave says that the viewer does not wait for more: Next returns what there is, and Wake need not be called any more.
func (v *Viewer) Leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leaving = true
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
	if v.once {
		return
	}
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
	var at spot
	if s.After != "" {
		var err error
		if at, err = v.hub.parseToken(s.After); err != nil {
			return err
		}
		now := v.hub.live.now()
		switch {
		case s.Mode == All && at.pos < v.hub.log.First():
			return ErrResume
		case at.pos > now.pos || at.pos == now.pos && at.skip > 0 || at.clock > now.clock:
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
	v.err, v.shown = nil, spot{}
	v.enter(&s)
	v.snapshot = nil
	switch {
	case s.After == "":
		v.snapshot = &snapshot{devices: v.hub.registry.all()}
	case s.Mode == All:
		v.at, v.resumeLeft = spot{token: at.token}, maxResume
	case at.clock > 0:
		// The token may be that of a snapshot, which showed what came after it.
		v.at, v.shown = spot{token{pos: at.pos}, at.clock}, v.hub.live.now().spot()
	default:
		gone := v.hub.registry.gone() // perhaps only since it left
		v.snapshot = &snapshot{devices: append(v.hub.registry.all(), gone...), resume: true, from: at.pos}
	}
	return nil
}

// now returns the mark of the last change of all.
func (l *live) now() mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mark
}

// arm asks for a call of changed at the next change. It reports false if there has been one since the follower looked.
func (l *live) arm(f follower, looked mark) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mark != looked {
		return false
	}
	l.armed[f] = struct{}{}
	return true
}

// disarm takes back arm.
func (l *live) disarm(f follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.armed, f)
}

// token is the place of a viewer in the log.
type token struct {
	pos  storage.Position
	skip int
}

// tokenString returns what resumes after a spot: the epoch of the data, the place in the log, and what that place leaves open:
// in mode all how many records of the next group were sent, in mode latest the count of what is not in the log, which holds
// for one run of the hub.
func (h *Hub) tokenString(s spot) string {
	dst := append(make([]byte, 0, 48), h.epoch...)
	dst = append(dst, '-')
	dst = strconv.AppendUint(dst, uint64(s.pos), 36)
	switch {
	case s.skip > 0:
		dst = append(dst, '-')
		dst = strconv.AppendUint(dst, uint64(s.skip), 36)
	case s.clock > 0:
		dst = append(append(append(dst, '.'), h.run...), '.')
		dst = strconv.AppendUint(dst, s.clock, 36)
	}
	return string(dst)
}

// parseToken is the other way round. The clock is zero if the token is not of this run.
func (h *Hub) parseToken(text string) (spot, error) {
	epoch, rest, _ := strings.Cut(text, "-")
	if epoch != h.epoch || strings.ContainsFunc(rest, neverInToken) {
		return spot{}, ErrResume
	}
	place, count, clocked := strings.Cut(rest, ".")
	place, skip, partly := strings.Cut(place, "-")
	pos, err := strconv.ParseUint(place, 36, 64)
	s := spot{token: token{pos: storage.Position(pos)}}
	if err == nil && partly {
		var n uint64
		n, err = strconv.ParseUint(skip, 36, 31)
		s.skip = int(n)
	}
	if err == nil && clocked {
		run, clock, _ := strings.Cut(count, ".")
		var n uint64
		if n, err = strconv.ParseUint(clock, 36, 64); run == h.run {
			s.clock = n
		}
	}
	if err != nil {
		return spot{}, ErrResume
	}
	return s, nil
}

// neverInToken reports whether no token holds the character. A poll hands back the token that it got.
func neverInToken(c rune) bool {
	return c != '-' && c != '.' && (c < '0' || c > '9') && (c < 'a' || c > 'z')
}
