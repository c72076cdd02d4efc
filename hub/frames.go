package hub

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// The frames to a viewer, one JSON object each:
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
// none now; Wake is called when there is. After ErrSlow, or when the hub stops, Peer.Close has been called.
func (v *Viewer) Next(dst []byte) (frame []byte, resume string, ok bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for {
		if v.ended || v.err != nil {
			return dst, "", false
		}
		if v.greet {
			v.greet = false
			return v.hub.appendWelcome(dst), "", true
		}
		if wait := v.sub.Tick - time.Since(v.sentAt); wait > 0 && v.snapshot == nil {
			v.later(wait)
			return dst, "", false
		}
		if v.snapshot != nil {
			return v.nextSnapshot(dst)
		}
		now := v.hub.live.now()
		start := len(dst)
		if v.sub.Mode == All {
			dst, ok = v.nextReadings(dst, now.pos)
		} else {
			dst, ok = v.nextChanges(dst)
		}
		if ok {
			if v.sub.Mode != All || v.seen.pos >= now.pos { // else the frame was full: the rest follows at once
				v.sentAt = time.Now()
			}
			return dst, string(v.hub.appendToken(nil, token{v.seen.pos, v.skip})), true
		}
		dst = dst[:start]
		if v.err != nil {
			code := wire.CloseSlow
			if !errors.Is(v.err, ErrSlow) {
				code = wire.CloseResume
			}
			v.peer.Close(code, v.err.Error())
			return dst, "", false
		}
		if v.sub.Mode == All && v.seen.pos < now.pos {
			continue // so far there was nothing in the log that this viewer sees
		}
		if v.arm(now) {
			return dst, "", false
		}
	}
}

// Welcome is the text that greets everybody who connects to the live feed.
const Welcome = "web Socket Works"

func (h *Hub) appendWelcome(dst []byte) []byte {
	dst = append(dst, `{"type":"welcome","text":"`+Welcome+`","version":`...)
	dst = appendString(dst, h.options.Version)
	dst = append(dst, `,"started":`...)
	dst = strconv.AppendInt(dst, h.opened.UnixMilli(), 10)
	return append(dst, '}')
}

// later has the writer run after wait.
func (v *Viewer) later(wait time.Duration) {
	if v.timer == nil {
		v.timer = time.AfterFunc(wait, v.peer.Wake)
		return
	}
	v.timer.Reset(wait)
}

func (v *Viewer) sees(e *entity) bool {
	return matches(v.sub.Devices, string(e.id)) && (v.sub.Scope == nil || v.sub.Scope(e.id))
}

// nextSnapshot writes as many devices as fit into one frame.
func (v *Viewer) nextSnapshot(dst []byte) ([]byte, string, bool) {
	s := v.snapshot
	if s.resume {
		dst = append(dst, `{"type":"changes"`...)
	} else {
		dst = append(dst, `{"type":"snapshot"`...)
	}
	dst = append(dst, `,"now":`...)
	dst = strconv.AppendInt(dst, time.Now().UnixMilli(), 10)
	dst = append(dst, `,"devices":[`...)
	start, n := len(dst), 0
	l := v.hub.live
	l.mu.Lock()
	defer l.mu.Unlock() // also if a Scope panics
	for n < len(s.devices) && len(dst)-start < frameBytes {
		if e := s.devices[n]; v.sees(e) {
			dst = comma(dst)
			dst = v.appendDevice(dst, e, mark{pos: s.from}, !s.resume, true)
		}
		n++
	}
	dst = append(dst, ']')
	if s.devices = s.devices[n:]; len(s.devices) > 0 {
		return append(dst, `,"more":true}`...), "", true
	}
	v.snapshot = nil
	v.sentAt = time.Now()
	tok := string(v.hub.appendToken(nil, token{pos: v.seen.pos}))
	dst = append(dst, `,"token":"`...)
	dst = append(dst, tok...)
	return append(dst, `"}`...), tok, true
}

// nextChanges writes the devices that changed after v.seen, newest first, which is in truth how the list is kept.
func (v *Viewer) nextChanges(dst []byte) ([]byte, bool) {
	dst = append(dst, `{"type":"changes","devices":[`...)
	l := v.hub.live
	l.mu.Lock()
	defer l.mu.Unlock() // also if a Scope panics
	n := 0
	for el := l.recent.Front(); el != nil; el = el.Next() {
		e := el.Value.(*entity)
		if !e.live.after(v.seen) {
			break
		}
		if !v.sees(e) {
			continue
		}
		before := len(dst)
		dst = comma(dst)
		body := len(dst)
		if dst = v.appendDevice(dst, e, v.seen, false, false); len(dst) == body {
			dst = dst[:before]
			continue
		}
		n++
	}
	v.seen = l.mark
	if n == 0 {
		return dst, false
	}
	dst = append(dst, `],"token":"`...)
	dst = v.hub.appendToken(dst, token{pos: v.seen.pos})
	return append(dst, `"}`...), true
}

// appendDevice writes the state of a device as far as it changed after seen, or all of it if whole is set. If none of it
// did that the viewer asked for it writes nothing, unless always is set. live.mu is held.
func (v *Viewer) appendDevice(dst []byte, e *entity, seen mark, whole, always bool) []byte {
	start := len(dst)
	s := &e.live
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, string(e.id))
	dst = append(dst, `,"presence":"`...)
	dst = append(dst, s.presence.String()...)
	dst = append(dst, '"')
	if e.deleted.Load() {
		dst = append(dst, `,"gone":true`...)
	}
	if name := s.name; name != "" && (always || s.noted > seen.clock) {
		dst = append(dst, `,"name":`...)
		dst = appendString(dst, name)
	}
	if s.seenMS > 0 {
		dst = append(dst, `,"seen":`...)
		dst = strconv.AppendInt(dst, s.seenMS, 10)
		dst = append(dst, `,"changed":`...)
		dst = strconv.AppendInt(dst, s.changedMS, 10)
	}
	dst = append(dst, `,"metrics":{`...)
	n := 0
	for i := range s.cells {
		c := &s.cells[i]
		if c.metric == nil || !whole && !c.after(seen) || !matches(v.sub.Metrics, c.metric.Name) || s.superseded(i) {
			continue
		}
		dst = comma(dst)
		dst = appendString(dst, c.metric.Name)
		dst = append(dst, ':')
		dst = c.append(dst)
		n++
	}
	if n == 0 && !always && s.noted <= seen.clock {
		return dst[:start]
	}
	return append(dst, "}}"...)
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

func (c *cell) append(dst []byte) []byte {
	dst = append(dst, `{"t":`...)
	dst = strconv.AppendInt(dst, c.timeMS, 10)
	dst = append(dst, `,"v":`...)
	dst = appendValue(dst, &c.value)
	if c.metric.Unit != "" {
		dst = append(dst, `,"u":`...)
		dst = appendString(dst, c.metric.Unit)
	}
	if c.quality != 0 {
		dst = append(dst, `,"q":`...)
		dst = strconv.AppendUint(dst, uint64(c.quality), 10)
	}
	return append(dst, '}')
}

// nextReadings writes the readings after v.seen, up to the group at limit or until the frame is full.
func (v *Viewer) nextReadings(dst []byte, limit storage.Position) ([]byte, bool) {
	groups, _, ok := v.hub.tail.after(v.seen.pos, v.groups[:0])
	v.groups = groups
	if ok {
		v.resumeLeft = 0
	} else if groups, v.err = v.resumeFromLog(); v.err != nil {
		return dst, false
	}
	dst = append(dst, `{"type":"readings","readings":[`...)
	start := len(dst)
	for _, g := range groups {
		if g.pos > limit || len(dst)-start > frameBytes {
			break
		}
		dst = v.appendGroup(dst, start, g)
	}
	clear(v.groups)
	if len(dst) == start {
		return dst, false
	}
	dst = append(dst, `],"token":"`...)
	dst = v.hub.appendToken(dst, token{v.seen.pos, v.skip})
	return append(dst, `"}`...), true
}

// resumeFromLog reads the next groups after v.seen from the log. Only a viewer that resumes may do so, and only for so
// much: one that has once kept up is too slow.
func (v *Viewer) resumeFromLog() ([]tailGroup, error) {
	const step = 256 << 10
	if v.resumeLeft <= 0 {
		return nil, ErrSlow
	}
	groups, bytes := v.groups[:0], 0
	err := v.hub.log.Read(context.Background(), v.seen.pos, func(e storage.Entry) bool {
		if e.Damaged {
			e.Group = nil // passed over
		}
		groups = append(groups, tailGroup{e.Position, e.Group})
		bytes += len(e.Group)
		return bytes < step
	})
	v.groups = groups
	v.resumeLeft -= bytes
	if errors.Is(err, storage.ErrTrimmed) || err == nil && len(groups) == 0 {
		return nil, ErrResume
	}
	return groups, err
}

// appendGroup writes the readings of a group from record v.skip on, and moves v past what it wrote.
func (v *Viewer) appendGroup(dst []byte, start int, g tailGroup) []byte {
	r, err := record.Read(g.group)
	if err != nil {
		v.seen.pos, v.skip = g.pos, 0
		return dst
	}
	for n := 0; r.Next(); n++ {
		if n < v.skip {
			continue
		}
		if len(dst)-start > frameBytes {
			v.skip = n
			return dst
		}
		dst = v.appendRecord(dst, r.Record())
		v.skip = n + 1
	}
	v.seen.pos, v.skip = g.pos, 0
	return dst
}

func (v *Viewer) appendRecord(dst []byte, rec *record.Record) []byte {
	e := v.hub.registry.number(rec.Device)
	if e == nil || e.deleted.Load() || rec.Kind != record.Data || !v.sees(e) {
		return dst
	}
	book := e.book.Load()
	if book == nil {
		return dst
	}
	schema := book.schema(rec.Schema())
	if schema == nil {
		return dst
	}
	for v.rows.Reset(rec, schema); v.rows.Next(); {
		row := v.rows.Row()
		at, _ := device.Filed(row.TimeMS, rec.ArrivalMS)
		for i := range row.Values {
			val := &row.Values[i]
			m := schema.Column(row.Ref, i)
			if val.Type == device.Absent || !matches(v.sub.Metrics, m.Name) {
				continue
			}
			dst = comma(dst)
			dst = append(dst, '[')
			dst = appendString(dst, string(e.id))
			dst = append(dst, ',')
			dst = appendString(dst, m.Name)
			dst = append(dst, ',')
			dst = strconv.AppendInt(dst, at, 10)
			dst = append(dst, ',')
			dst = appendValue(dst, val)
			if q := ownQuality(m, val, row.Quality); q != 0 {
				dst = append(dst, ',')
				dst = strconv.AppendUint(dst, uint64(q), 10)
			}
			dst = append(dst, ']')
		}
	}
	return dst
}

// comma separates from what stands before, unless an array or object has just begun.
func comma(dst []byte) []byte {
	if c := dst[len(dst)-1]; c == '[' || c == '{' {
		return dst
	}
	return append(dst, ',')
}

// appendValue writes a value as JSON: a number that reads back as the same float64, true or false, or a string.
func appendValue(dst []byte, v *device.Value) []byte {
	switch v.Type {
	case device.Number:
		f := v.Float()
		if f == math.Trunc(f) && math.Abs(f) < 1e15 && (f != 0 || !math.Signbit(f)) {
			return strconv.AppendInt(dst, int64(f), 10)
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	case device.Bool:
		return strconv.AppendBool(dst, v.Float() != 0)
	case device.String:
		return appendString(dst, v.Text())
	}
	return append(dst, "null"...)
}

// appendString writes s as JSON. Names and ids hold nothing that needs care, so that is tried first.
func appendString(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' || c >= utf8.RuneSelf {
			q, _ := json.Marshal(s) // a string always marshals
			return append(dst, q...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
