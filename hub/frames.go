package hub

import (
	"context"
	"errors"
	"sync"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// The frames to a viewer, one JSON object each, or one CBOR map of the same members:
//
//	{"type":"welcome","text":"web Socket Works","version":"…","started":ms}
//	{"type":"snapshot","now":ms,"devices":[D,…],"more":true,"token":T}
//	{"type":"changes","token":T,"devices":[D,…]}
//	{"type":"readings","token":T,"readings":[["device","metric",ms,value],…]}
//
// The welcome comes first, where the subscription asks for it; started is when the hub was. A snapshot that is large comes in
// several frames, of which all but the last have "more" and no token: who leaves before the last begins anew where it began. A
// resumed subscription of mode latest begins with "changes". D is
//
//	{"id":"…","name":"…","presence":"live","seen":ms,"changed":ms,"gone":true,"metrics":{"temperature":{"t":ms,"v":21.4,"u":"Cel","q":1}}}
//
// where all but id and presence may be missing; metrics holds those that changed. A reading has a fifth element, the
// quality, if it is not zero.

// Next appends the next frame to dst, with the token that resumes after it, if it has one. It reports false if there is
// none now; Wake is called when there is, or was called already if it has not looked at everything yet. After ErrSlow, or when
// the hub stops, Peer.Close has been called.
func (v *Viewer) Next(dst []byte) (frame []byte, resume string, ok bool) {
	frame, resume, _, ok = v.NextPacked(dst)
	return frame, resume, ok
}

// NextPacked is Next for a subscription with a Packing, and tells whether that has made what was appended, or left the frame as
// it is.
func (v *Viewer) NextPacked(dst []byte) (frame []byte, resume string, packed, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	start := len(dst)
	for {
		switch {
		case v.ended || v.err != nil:
			return dst, "", false, false
		case v.greet:
			v.greet = false
			return v.own(v.hub.appendWelcome(dst, v.view.key.format), start, "")
		case v.snapshot != nil:
			frame, resume = v.nextSnapshot(dst)
			return v.own(frame, start, resume)
		}
		what, until := v.fromView(&dst, &resume, &packed)
		switch what {
		case inRing:
			return dst, resume, packed, true
		case atEnd:
			return dst, "", false, false
		}
		if v.view.key.mode == Latest {
			body := dst
			to, ok := v.view.appendChanges(&body, v.at.mark())
			v.at = to.spot()
			if ok {
				return v.own(body, start, v.hub.tokenString(v.at))
			}
			continue
		}
		if dst, resume, ok = v.catchUp(dst, until); ok {
			return v.own(dst, start, resume)
		}
		if v.err != nil {
			code := wire.CloseSlow
			if !errors.Is(v.err, ErrSlow) {
				code = wire.CloseResume
			}
			v.peer.Close(code, v.err.Error())
			return dst, "", false, false
		}
		if !v.leaving {
			// To look through all that it does not see may take a second, and whoever asks may write to others too.
			v.peer.Wake()
			return dst, "", false, false
		}
	}
}

// fromView appends the next frame that the view has for all, or arms the viewer if it has everything.
func (v *Viewer) fromView(dst *[]byte, resume *string, packed *bool) (finding, spot) {
	w := v.view
	var others woken
	defer func() { others.wake() }()
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if v.armed {
			return atEnd, spot{}
		}
		what, i, until := w.find(v.at, v.shown)
		switch what {
		case atEnd:
			if v.leaving {
				return atEnd, spot{}
			}
			if w.arm(v) {
				others.add(w.step())
			}
		case inRing:
			f := &w.ring[i]
			if v.at = f.to; f.body == nil {
				continue
			}
			*dst, *resume, *packed = append(*dst, *f.body...), f.resume, f.packed
			return inRing, spot{}
		default:
			return outside, until
		}
	}
}

// Welcome is the text that greets everybody who connects to the live feed.
const Welcome = "web Socket Works"

func (h *Hub) appendWelcome(dst []byte, f wire.Format) []byte {
	e := newEncoder(dst, f)
	e.frame("welcome")
	e.key("text")
	e.str(Welcome)
	e.key("version")
	e.str(h.options.Version)
	e.key("started")
	e.int(h.opened.UnixMilli())
	e.endObject()
	return e.buf
}

func (w *view) sees(e *entity) bool {
	return matches(w.devices, string(e.id)) && (w.scope == nil || w.scope(e.id))
}

// nextSnapshot writes as many devices as fit into one frame.
func (v *Viewer) nextSnapshot(dst []byte) (frame []byte, resume string) {
	s, w := v.snapshot, v.view
	kind := "snapshot"
	if s.resume {
		kind = "changes"
	}
	e := newEncoder(dst, w.key.format)
	e.frame(kind)
	e.key("now")
	e.int(time.Now().UnixMilli())
	e.key("devices")
	e.array()
	start, n := len(e.buf), 0
	l := v.hub.live
	l.mu.Lock()
	defer l.mu.Unlock() // also if a Scope panics
	for n < len(s.devices) && len(e.buf)-start < frameBytes {
		if ent := s.devices[n]; w.sees(ent) {
			w.appendDevice(&e, ent, mark{pos: s.from}, !s.resume, true)
		}
		n++
	}
	e.endArray()
	if s.devices = s.devices[n:]; len(s.devices) > 0 {
		e.key("more")
		e.bool(true)
		e.endObject()
		return e.buf, ""
	}
	v.snapshot, v.shown = nil, l.spot()
	resume = v.hub.tokenString(v.at)
	return e.endFrame(resume), resume
}

// endFrame ends a frame that can be resumed after.
func (e *encoder) endFrame(resume string) []byte {
	e.key("token")
	e.str(resume)
	e.endObject()
	return e.buf
}

// appendChanges writes the devices that changed after seen, newest first, which is in truth how the list is kept. It returns
// up to where that is.
func (w *view) appendChanges(dst *[]byte, seen mark) (to mark, ok bool) {
	e := newEncoder(*dst, w.key.format)
	e.frame("changes")
	e.key("devices")
	e.array()
	l := w.hub.live
	l.mu.Lock()
	defer l.mu.Unlock() // also if a Scope panics
	start := len(e.buf)
	for el := l.recent.Front(); el != nil; el = el.Next() {
		ent := el.Value.(*entity)
		if !ent.live.after(seen) {
			break
		}
		if w.sees(ent) {
			w.appendDevice(&e, ent, seen, false, false)
		}
	}
	if len(e.buf) == start {
		return l.mark, false
	}
	e.endArray()
	*dst = e.endFrame(w.hub.tokenString(l.spot()))
	return l.mark, true
}

// appendDevice writes the state of a device as far as it changed after seen, or all of it if whole is set. If none of it
// did that the viewer asked for it writes nothing, unless always is set. live.mu is held.
func (w *view) appendDevice(e *encoder, ent *entity, seen mark, whole, always bool) {
	start := len(e.buf)
	s := &ent.live
	e.object()
	e.key("id")
	e.str(string(ent.id))
	e.key("presence")
	e.str(s.presence.String())
	if ent.deleted.Load() {
		e.key("gone")
		e.bool(true)
	}
	if name := s.name; name != "" && (always || s.noted > seen.clock) {
		e.key("name")
		e.str(name)
	}
	if s.seenMS > 0 {
		e.key("seen")
		e.int(s.seenMS)
		e.key("changed")
		e.int(s.changedMS)
	}
	e.key("metrics")
	e.object()
	none := len(e.buf)
	for i := range s.cells {
		c := &s.cells[i]
		if c.metric == nil || !whole && !c.after(seen) || !matches(w.metrics, c.metric.Name) || s.superseded(i) {
			continue
		}
		e.key(c.metric.Name)
		c.append(e)
	}
	if len(e.buf) == none && !always && s.noted <= seen.clock {
		e.buf = e.buf[:start]
		return
	}
	e.endObject()
	e.endObject()
}

// superseded reports whether another version of the metric of cell i has a newer reading, or a newer one one as new.
func (s *liveState) superseded(i int) bool {
	c := &s.cells[i]
	for next := c.next; next != 0 && int(next) != i+1; next = s.cells[next-1].next {
		if o := &s.cells[next-1]; o.timeMS > c.timeMS || o.timeMS == c.timeMS && int(next) > i+1 {
			return true
		}
	}
	return false
}

func (c *cell) append(e *encoder) {
	e.object()
	e.key("t")
	e.int(c.timeMS)
	e.key("v")
	e.value(&c.value)
	if c.metric.Unit != "" {
		e.key("u")
		e.str(c.metric.Unit)
	}
	if c.quality != 0 {
		e.key("q")
		e.int(int64(c.quality))
	}
	e.endObject()
}

// scratch is the memory that reading groups needs.
type scratch struct {
	rows   record.Rows
	groups []tailGroup
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) release() {
	clear(s.groups)
	scratches.Put(s)
}

// lookAhead is about how much of the log is looked at for one frame.
const lookAhead = 256 << 10

// catchUp writes readings for this viewer alone, up to where the view has frames again. If it returns none and sets no error,
// there may be some further on.
func (v *Viewer) catchUp(dst []byte, until spot) (frame []byte, resume string, ok bool) {
	s := scratches.Get().(*scratch)
	defer s.release()
	var inTail bool
	if s.groups, _, inTail = v.hub.tail.after(v.at.pos, s.groups[:0]); inTail {
		v.resumeLeft = 0
		bytes := 0
		for i, g := range s.groups {
			if bytes += len(g.group); bytes >= lookAhead {
				clear(s.groups[i+1:])
				s.groups = s.groups[:i+1]
				break
			}
		}
	} else if v.err = v.readLog(s); v.err != nil {
		return dst, "", false
	}
	start := len(dst)
	if frame, v.at, resume, ok = v.view.appendReadings(dst, s, v.at, until, frameBytes); !ok {
		return frame[:start], "", false
	}
	return frame, resume, true
}

// readLog reads the next groups from the log. Only a viewer that resumes may do so, and only for so much: one that has once
// kept up is too slow.
func (v *Viewer) readLog(s *scratch) error {
	if v.resumeLeft <= 0 {
		return ErrSlow
	}
	bytes := 0
	s.groups = s.groups[:0]
	err := v.hub.log.Read(context.Background(), v.at.pos, func(e storage.Entry) bool {
		if e.Damaged {
			e.Group = nil // passed over
		}
		s.groups = append(s.groups, tailGroup{e.Position, e.Group})
		bytes += len(e.Group)
		return bytes < lookAhead
	})
	v.resumeLeft -= bytes
	if errors.Is(err, storage.ErrTrimmed) || err == nil && len(s.groups) == 0 {
		return ErrResume
	}
	return err
}

// appendReadings writes the readings of the groups of s, which are those after from, up to until or until the frame is full.
// It returns up to where that is, and false if there are none that the view shows.
func (w *view) appendReadings(dst []byte, s *scratch, from, until spot, limit int) (frame []byte, to spot, resume string, ok bool) {
	e := newEncoder(dst, w.key.format)
	e.frame("readings")
	e.key("readings")
	e.array()
	start, to := len(e.buf), from
	for _, g := range s.groups {
		stop := -1
		if to.pos >= until.pos {
			if stop = until.skip; stop <= to.skip {
				break
			}
		}
		if len(e.buf)-start > limit || !w.appendGroup(&e, s, &to, g, stop, start+limit) {
			break
		}
	}
	if len(e.buf) == start {
		return dst, to, "", false
	}
	e.endArray()
	resume = w.hub.tokenString(to)
	return e.endFrame(resume), to, resume, true
}

// appendGroup writes the readings of a group from record to.skip on, and moves to past what it wrote. It reports false if it
// has not come to the end: it was told to stop before a record, or the frame is full.
func (w *view) appendGroup(e *encoder, s *scratch, to *spot, g tailGroup, stop, full int) bool {
	if r, err := record.Read(g.group); err == nil {
		for n := 0; n != stop && r.Next(); n++ {
			if n < to.skip {
				continue
			}
			if len(e.buf) > full {
				return false
			}
			w.appendRecord(e, s, r.Record())
			to.skip = n + 1
		}
		if to.skip == stop {
			return false
		}
	}
	to.pos, to.skip = g.pos, 0
	return true
}

func (w *view) appendRecord(e *encoder, s *scratch, rec *record.Record) {
	ent := w.hub.registry.number(rec.Device)
	if ent == nil || ent.deleted.Load() || rec.Kind != record.Data || !w.sees(ent) {
		return
	}
	book := ent.book.Load()
	if book == nil {
		return
	}
	schema := book.schema(rec.Schema())
	if schema == nil {
		return
	}
	for s.rows.Reset(rec, schema); s.rows.Next(); {
		row := s.rows.Row()
		at, _ := device.Filed(row.TimeMS, rec.ArrivalMS)
		for i := range row.Values {
			val := &row.Values[i]
			m := schema.Column(row.Ref, i)
			if val.Type == device.Absent || !matches(w.metrics, m.Name) {
				continue
			}
			e.array()
			e.str(string(ent.id))
			e.str(m.Name)
			e.int(at)
			e.value(val)
			if q := ownQuality(m, val, row.Quality); q != 0 {
				e.int(int64(q))
			}
			e.endArray()
		}
	}
}
