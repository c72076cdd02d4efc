package hub

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

const (
	// ringBytes is how many bytes of frames a view keeps for those of its viewers that have not got them yet. One that is
	// further behind has frames written for itself alone.
	ringBytes = 256 << 10
	// sharedBytes is how much the frames of all views together may be before each keeps but one small one.
	sharedBytes = 32 << 20
	smallFrame  = 4 << 10
	ringLen     = 1024
)

// viewKey says which viewers see the same.
type viewKey struct {
	mode             Mode
	format           wire.Format
	tick             time.Duration
	devices, metrics string // sorted, joined by a line feed, which no pattern holds
	packing          Packing
}

// view writes the frames for all viewers that see the same, each once. A viewer that has everything is armed: it is at the
// end of the view, wherever that goes, until there is something for it. Nothing is written while nobody is armed, so that
// viewers that are slow together get few large frames.
//
// A view with a scope is private: it has one viewer, and only the calls of that run the scope. So is that of a viewer that looks
// once, which is never armed.
//
// Locks nest in this order: Viewer.mu, views.mu, view.mu, live.mu.
type view struct {
	hub              *Hub
	key              viewKey
	devices, metrics []string
	scope            func(device.ID) bool // not nil in a private view

	mu      sync.Mutex // guards the fields below
	viewers int
	armed   []*Viewer
	waiting bool // a change or the timer will call changed
	timer   *time.Timer
	sentAt  time.Time // when the last frame was written that had nothing after it
	flow    bool      // changes wait for the tick

	ring  []sharedFrame // they follow each other up to end; in mode latest at most one
	bytes int           // of memory that ring holds: a small frame may stand in what was made for a large one
	end   spot          // what the view shows was written so far
	last  spot          // where the last frame that shows something ends; only of mode latest
	fresh bool          // since from there are frames that the armed viewers do not know of
	from  spot
}

// spot is a place in what viewers see: a place in the log and, in mode latest, the count of what is not in the log.
type spot struct {
	token
	clock uint64
}

func (m mark) spot() spot { return spot{token{pos: m.pos}, m.clock} }

func (s spot) mark() mark { return mark{s.pos, s.clock} }

// after reports whether s comes after t.
func (s spot) after(t spot) bool {
	return s.pos > t.pos || s.pos == t.pos && (s.skip > t.skip || s.skip == t.skip && s.clock > t.clock)
}

// sharedFrame is what a view shows between two spots. Without a body that is nothing.
type sharedFrame struct {
	from, to spot
	body     *[]byte // of framePool; it is read only while the view is locked
	packed   bool    // the packing of the view has made the body
	resume   string  // the token after it
}

// views are those that have viewers.
type views struct {
	mu    sync.Mutex // guards byKey, and which viewers a view has
	byKey map[viewKey]*view
	bytes atomic.Int64 // of all rings
}

// framePool keeps the memory of frames between uses.
var framePool = sync.Pool{New: func() any { return new([]byte) }}

func newFrame() *[]byte {
	b := framePool.Get().(*[]byte)
	*b = (*b)[:0]
	return b
}

func joined(patterns []string) string {
	if slices.Contains(patterns, "*") {
		return ""
	}
	sorted := slices.Clone(patterns)
	slices.Sort(sorted)
	return strings.Join(slices.Compact(sorted), "\n")
}

func keyOf(s *Subscription) viewKey {
	return viewKey{s.Mode, s.Format, s.Tick, joined(s.Devices), joined(s.Metrics), s.Packing}
}

func (h *Hub) newView(key viewKey, s *Subscription) *view {
	return &view{hub: h, key: key, devices: s.Devices, metrics: s.Metrics, scope: s.Scope}
}

// enter has the viewer see what its subscription says, from now on.
func (v *Viewer) enter(s *Subscription) {
	if v.once {
		v.view = v.hub.newView(keyOf(s), s)
		v.view.begin(v)
		return
	}
	v.view = v.hub.join(v, s)
}

// join adds the viewer to the view of its subscription, at the end of it.
func (h *Hub) join(v *Viewer, s *Subscription) *view {
	key := keyOf(s)
	h.views.mu.Lock()
	defer h.views.mu.Unlock()
	w := h.views.byKey[key]
	if w == nil || s.Scope != nil {
		w = h.newView(key, s)
		if s.Scope == nil {
			h.views.byKey[key] = w
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begin(v)
	return w
}

// begin adds the viewer at the end.
func (w *view) begin(v *Viewer) {
	now := w.hub.live.now().spot()
	switch w.viewers++; {
	case w.viewers == 1:
		if w.key.mode == All {
			now.clock = 0
		}
		w.end, w.last = now, now
		v.at = now
	case w.key.mode == Latest:
		v.at = now
	default:
		for now.pos > w.end.pos {
			w.write(now) // the viewer begins now; the others are woken when it is their time
		}
		v.at = w.end
	}
}

// leave takes the viewer out of its view. Nobody else knows the view of a viewer that looks once.
func (w *view) leave(v *Viewer) {
	if v.once {
		return
	}
	h := w.hub
	h.views.mu.Lock()
	defer h.views.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if v.armed {
		last := len(w.armed) - 1
		w.armed[v.place] = w.armed[last]
		w.armed[v.place].place = v.place
		w.armed[last] = nil
		w.armed = w.armed[:last]
		w.disarm(v)
	}
	if w.viewers--; w.viewers > 0 {
		return
	}
	if w.scope == nil {
		delete(h.views.byKey, w.key)
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	w.clear()
	h.live.disarm(w)
}

// arm puts a viewer at the end. It reports whether the view must be asked for more, since nothing else will.
func (w *view) arm(v *Viewer) (ask bool) {
	v.armed, v.late, v.place = true, w.fresh, len(w.armed)
	v.at = w.end
	w.armed = append(w.armed, v)
	if len(w.armed) == w.viewers && !w.fresh {
		w.clear() // everybody has it
	}
	return !w.waiting
}

// release returns the armed viewers, which go on from where they were.
func (w *view) release() []*Viewer {
	woken := w.armed
	w.armed = nil
	for _, v := range woken {
		w.disarm(v)
	}
	w.fresh = false
	return woken
}

// disarm puts a viewer where it goes on.
func (w *view) disarm(v *Viewer) {
	v.armed = false
	switch {
	case v.late:
	case w.fresh:
		v.at = w.from
	default:
		v.at = w.end
	}
}

// changed is called once after a change or when the tick is over, if the view waits for that.
func (w *view) changed() { w.afterChange().wake() }

// brief is true of a private view, which only wakes its viewer; others write frames, which nobody should wait for.
func (w *view) brief() bool { return w.scope != nil }

func (w *view) afterChange() woken {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = false
	if w.scope != nil {
		return woken{viewers: w.release()}
	}
	return w.step()
}

// step writes what there is for the armed viewers and returns them, or sees to it that changed is called.
func (w *view) step() woken {
	if len(w.armed) == 0 {
		return woken{}
	}
	if wait := w.key.tick - time.Since(w.sentAt); wait > 0 {
		w.waiting, w.flow = true, true
		if w.timer == nil {
			w.timer = time.AfterFunc(wait, w.changed)
		} else {
			w.timer.Reset(wait)
		}
		return woken{}
	}
	for {
		now := w.hub.live.now()
		w.write(now.spot())
		if w.fresh {
			if w.end.pos >= now.pos { // else the rest follows at once
				w.sentAt = time.Now()
			}
			u := woken{viewers: w.release()}
			if w.flow {
				u.within = w.key.tick / 2
			}
			w.flow = false
			return u
		}
		if w.end.pos >= now.pos && w.hub.live.arm(w, now) {
			w.waiting, w.flow = true, false
			return woken{}
		}
	}
}

// write moves the end towards now and adds the frames that this takes to the ring.
func (w *view) write(now spot) {
	if w.key.mode == All {
		w.writeReadings(now)
		return
	}
	if !now.after(w.end) {
		return
	}
	body := newFrame()
	f := sharedFrame{from: w.end, body: body}
	to, ok := w.appendChanges(body, w.end.mark())
	f.to, w.end = to.spot(), to.spot()
	if !ok {
		framePool.Put(body)
		return
	}
	w.noteFresh(f.from)
	w.clear()
	w.last = f.to
	f.resume = w.hub.tokenString(f.to)
	w.pack(&f)
	if w.crowded() && len(*f.body) > smallFrame {
		framePool.Put(f.body) // each viewer writes its own
		return
	}
	w.push(f)
}

// writeReadings writes a ring full of frames at most.
func (w *view) writeReadings(now spot) {
	s := scratches.Get().(*scratch)
	defer s.release()
	limit, most := frameBytes, ringBytes
	if w.crowded() {
		limit, most = smallFrame, 1
		w.clear()
	}
	until := spot{token: token{pos: now.pos}}
	for written := 0; until.after(w.end) && written < most; {
		groups, _, ok := w.hub.tail.after(w.end.pos, s.groups[:0])
		s.groups = groups
		if !ok { // nobody has asked for so long that all viewers are too slow, which they will be told
			w.noteFresh(w.end)
			w.clear()
			w.end = until
			return
		}
		body := newFrame()
		f := sharedFrame{from: w.end, body: body}
		var any bool
		*body, f.to, f.resume, any = w.appendReadings(*body, s, w.end, until, limit)
		w.end = f.to
		if any {
			written += len(*body)
			w.pack(&f)
			w.noteFresh(f.from)
		} else {
			framePool.Put(body)
			f.body = nil
		}
		w.push(f)
	}
}

// noteFresh remembers where the armed viewers go on.
func (w *view) noteFresh(from spot) {
	if !w.fresh {
		w.fresh, w.from = true, from
	}
}

// crowded reports whether all views together hold too much.
func (w *view) crowded() bool { return w.hub.views.bytes.Load() > sharedBytes }

func (w *view) push(f sharedFrame) {
	if f.body != nil && cap(*f.body) > 2*smallFrame && w.crowded() {
		exact := slices.Clone(*f.body)
		framePool.Put(f.body)
		f.body = &exact
	}
	w.ring = append(w.ring, f)
	if f.body != nil {
		w.bytes += cap(*f.body)
		w.hub.views.bytes.Add(int64(cap(*f.body)))
	}
	drop := 0
	for w.bytes > 2*ringBytes && drop < len(w.ring)-1 || len(w.ring)-drop > ringLen {
		w.forget(w.ring[drop])
		drop++
	}
	w.ring = slices.Delete(w.ring, 0, drop)
}

func (w *view) forget(f sharedFrame) {
	if f.body == nil {
		return
	}
	w.bytes -= cap(*f.body)
	w.hub.views.bytes.Add(int64(-cap(*f.body)))
	recycle(f.body)
}

// clear forgets the frames.
func (w *view) clear() {
	for _, f := range w.ring {
		w.forget(f)
	}
	clear(w.ring)
	w.ring = w.ring[:0]
}

// finding says what a view has for a viewer.
type finding uint8

const (
	atEnd   finding = iota // nothing
	inRing                 // the frame with this index
	outside                // nothing that was written: it is behind
)

// find says what follows the spot where a viewer is. If it is outside it is inside again at until. What a frame of mode latest
// repeats does no harm, but none may show what is older than the viewer's snapshot.
func (w *view) find(at, snapshot spot) (what finding, index int, until spot) {
	if w.key.mode == Latest {
		switch {
		case !w.last.after(at):
			return atEnd, 0, spot{}
		case len(w.ring) > 0 && !w.ring[0].from.after(at) && !snapshot.after(w.ring[0].to):
			return inRing, 0, spot{}
		}
		return outside, 0, spot{}
	}
	if !w.end.after(at) {
		return atEnd, 0, spot{}
	}
	next := w.end
	for i := len(w.ring) - 1; i >= 0; i-- { // most viewers are near the end
		f := &w.ring[i]
		switch {
		case f.from == at:
			return inRing, i, spot{}
		case at.after(f.from):
			return outside, 0, next
		}
		next = f.from
	}
	return outside, 0, next
}
