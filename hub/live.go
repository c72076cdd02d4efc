package hub

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// live is the newest value of every metric of every device. It is a cursor over the log: nothing gets in that is not
// durable. Devices are kept in the order in which they last changed, so that what changed after a position is found
// without looking at the rest, however long ago that was.
type live struct {
	registry *registry
	rows     record.Rows // of apply
	watch    watch       // of watchPresence

	mu      sync.Mutex            // guards the fields below and liveState of every entity
	mark                          // of the last change of all; clock counts changes of presence, attributes and states
	recent  list.List             // *entity, the one that changed last in front
	armed   map[follower]struct{} // told of the next change
	started bool                  // recovery is over
}

// liveState is the live part of an entity, guarded by live.mu.
type liveState struct {
	name   string
	place  *list.Element // in live.recent, nil if the device never sent a reading
	mark                 // of the last change of anything
	noted  uint64        // count at the last change of presence or attributes
	schema *device.Schema
	cells  []cell // position = metric number - 1

	seenMS    int64 // arrival of the last reading
	changedMS int64 // arrival of the last reading that differed from the one before
	newestMS  int64 // time of the newest reading
	steps     [20]int64
	stepCount int

	sessions int   // that have not ended; one that was replaced may end after the next has begun, or even ended
	closedMS int64 // when the last session ended
	socket   bool  // the device has had a session since the start of the hub
	heard    bool  // a reading has arrived since the start of the hub
	presence Presence
}

// mark says when something changed: at a position of the log, or at a count of live.clock for what is not in the log.
type mark struct {
	pos   storage.Position
	clock uint64
}

// after reports whether m is later than what a viewer has seen.
func (m mark) after(seen mark) bool { return m.pos > seen.pos || m.clock > seen.clock }

// cell is the newest reading of one version of a metric.
type cell struct {
	mark
	metric  *device.Metric // nil if there is none
	timeMS  int64
	seenMS  int64
	value   device.Value
	quality device.Quality
	next    int32 // place of another version of the same metric, plus 1; they form a ring. Zero if there is none
}

// newLive counts from one, so that a token can say which count it means.
func newLive(r *registry) *live {
	return &live{registry: r, mark: mark{clock: 1}, armed: map[follower]struct{}{}}
}

// apply takes one group of the log. What is not readable in it is passed over: history records the loss.
func (l *live) apply(ctx context.Context, e storage.Entry) {
	r, err := record.Read(e.Group)
	if e.Damaged || err != nil {
		r = record.Salvage(e.Group)
	}
	l.mu.Lock()
	for r.Next() {
		if rec := r.Record(); rec.Kind == record.Data {
			l.applyLocked(ctx, e.Position, rec)
		}
	}
	l.pos = e.Position
	woken := l.disarmLocked()
	l.mu.Unlock()
	wake(woken)
}

func (l *live) applyLocked(ctx context.Context, pos storage.Position, rec *record.Record) {
	ent := l.registry.number(rec.Device)
	if ent == nil || ent.deleted.Load() {
		return
	}
	s := &ent.live
	if num := rec.Schema(); s.schema == nil || s.schema.Num != num {
		schema, err := l.registry.Schema(ctx, rec.Device, num)
		if err != nil {
			return // history records the loss
		}
		s.schema = schema
	}
	l.rows.Reset(rec, s.schema)
	changed := false
	for l.rows.Next() {
		if s.take(s.schema, l.rows.Row(), mark{pos: pos}, rec.ArrivalMS) {
			changed = true
		}
	}
	s.pos = pos
	s.seenMS = max(s.seenMS, rec.ArrivalMS)
	if changed {
		s.changedMS = rec.ArrivalMS
	}
	l.touchLocked(ent)
	s.heard = s.heard || l.started
	if s.presence != Live {
		if p := s.presenceAt(rec.ArrivalMS); p != s.presence {
			l.presenceLocked(ent, p)
		}
	}
}

// take puts one row into the cells and reports whether a value differs from the one before. Late data never moves a
// cell backwards; of two readings with one time the later wins.
func (s *liveState) take(schema *device.Schema, row *device.Row, at mark, arrivalMS int64) (changed bool) {
	ms, _ := device.Filed(row.TimeMS, arrivalMS)
	if ms > s.newestMS {
		if s.newestMS > 0 {
			s.steps[s.stepCount%len(s.steps)] = ms - s.newestMS
			s.stepCount++
		}
		s.newestMS = ms
	}
	for i := range row.Values {
		v := &row.Values[i]
		if v.Type == device.Absent {
			continue
		}
		m := schema.Column(row.Ref, i)
		c := s.cell(m)
		c.seenMS = arrivalMS
		if c.metric != nil && ms < c.timeMS {
			continue
		}
		if c.metric == nil || !c.value.Equal(*v) {
			changed = true
		}
		*c = cell{
			metric: m, mark: at, timeMS: ms, seenMS: arrivalMS, value: *v, quality: ownQuality(m, v, row.Quality), next: c.next,
		}
	}
	return changed
}

// cell returns the cell of a metric, making it and finding the other versions of the metric if need be.
func (s *liveState) cell(m *device.Metric) *cell {
	for uint32(len(s.cells)) < m.Num {
		s.cells = append(s.cells, cell{})
	}
	c := &s.cells[m.Num-1]
	if c.metric != nil {
		return c
	}
	other := slices.IndexFunc(s.cells, func(o cell) bool { return o.metric != nil && o.metric.Name == m.Name })
	if other >= 0 {
		o := &s.cells[other]
		if c.next = o.next; o.next == 0 {
			c.next = int32(other) + 1
		}
		o.next = int32(m.Num)
	}
	return c
}

// state takes values that are shown but not stored.
func (l *live) state(e *entity, schema *device.Schema, rows []device.Row, nowMS int64) {
	wake(l.takeState(e, schema, rows, nowMS))
}

func (l *live) takeState(e *entity, schema *device.Schema, rows []device.Row, nowMS int64) []follower {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.clock++
	for i := range rows {
		e.live.take(schema, &rows[i], mark{pos: e.live.pos, clock: l.clock}, nowMS)
	}
	e.live.clock = l.clock
	e.live.seenMS = max(e.live.seenMS, nowMS)
	e.live.heard = true
	l.touchLocked(e)
	return l.disarmLocked()
}

// touchLocked moves a device to the front of those that changed.
func (l *live) touchLocked(e *entity) {
	if e.live.place == nil {
		e.live.place = l.recent.PushFront(e)
		return
	}
	l.recent.MoveToFront(e.live.place)
}

func (l *live) presenceLocked(e *entity, p Presence) {
	e.live.presence = p
	l.noteLocked(e)
}

// noteLocked marks a change that is not in the log.
func (l *live) noteLocked(e *entity) {
	l.clock++
	e.live.clock, e.live.noted = l.clock, l.clock
	l.touchLocked(e)
}

// deviceChanged tells viewers that the attributes of a device changed.
func (l *live) deviceChanged(e *entity) {
	name := e.record().Name
	l.mu.Lock()
	e.live.name = name
	l.noteLocked(e)
	woken := l.disarmLocked()
	l.mu.Unlock()
	wake(woken)
}

// deviceGone tells viewers that a device was deleted.
func (l *live) deviceGone(e *entity) {
	l.mu.Lock()
	e.live.cells, e.live.schema = nil, nil
	l.noteLocked(e)
	woken := l.disarmLocked()
	l.mu.Unlock()
	wake(woken)
}

// sessionChanged notes that a session of a device began or ended. Both may be told late, and so in any order.
func (l *live) sessionChanged(e *entity, connected bool, now time.Time) {
	l.mu.Lock()
	s := &e.live
	s.socket = true
	if connected {
		s.sessions++
	} else {
		s.sessions--
		s.closedMS = now.UnixMilli()
	}
	if p := s.presenceAt(now.UnixMilli()); p != s.presence {
		l.presenceLocked(e, p)
	}
	woken := l.disarmLocked()
	l.mu.Unlock()
	wake(woken)
}

// restore puts in what history knows from before the checkpoint. It runs before any apply.
func (l *live) restore(e *entity, c cell) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &e.live
	place := s.cell(c.metric)
	c.next = place.next
	*place = c
	s.newestMS = max(s.newestMS, c.timeMS)
	s.seenMS = max(s.seenMS, c.seenMS)
	s.pos = max(s.pos, c.pos)
	s.changedMS = max(s.changedMS, c.seenMS)
	l.pos = max(l.pos, c.pos)
}

// settle ends recovery: everything up to pos was applied. It orders the devices by their last change.
func (l *live) settle(pos storage.Position, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pos = max(l.pos, pos)
	l.started = true
	var known []*entity
	for _, e := range l.registry.all() {
		if len(e.live.cells) > 0 && e.live.place == nil {
			known = append(known, e)
		}
		e.live.presence = e.live.presenceAt(now.UnixMilli())
	}
	slices.SortStableFunc(known, func(a, b *entity) int {
		switch {
		case a.live.pos < b.live.pos:
			return -1
		case a.live.pos > b.live.pos:
			return 1
		}
		return 0
	})
	for _, e := range known {
		l.touchLocked(e)
	}
}

// follower is told once of the next change after it has asked.
type follower interface {
	changed()
	// brief reports whether changed returns at once.
	brief() bool
}

// disarmLocked returns those who wait for a change.
func (l *live) disarmLocked() []follower {
	if len(l.armed) == 0 {
		return nil
	}
	woken := make([]follower, 0, len(l.armed))
	for f := range l.armed {
		woken = append(woken, f)
	}
	clear(l.armed)
	return woken
}

func wake(followers []follower) {
	for _, f := range followers {
		if f.brief() {
			f.changed()
		} else {
			go f.changed()
		}
	}
}

// watchPresence turns silence into a change of presence until ctx ends.
func (l *live) watchPresence(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for begun := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			l.tick(now, now.Sub(begun))
		}
	}
}

// watch is what one tick of watchPresence tells the next.
type watch struct {
	wallMS int64         // what the clock said, zero before the first tick
	run    time.Duration // how long the hub had been running, by a clock that nobody sets
	calm   time.Duration // until then silence means nothing
}

// tick checks presence at a time, the hub having run for so long. Presence is counted in the time of the wall clock: if that
// was set, what is remembered is set with it. If the hub itself stood still, the devices first get the time to be heard.
func (l *live) tick(now time.Time, run time.Duration) {
	w, wallMS := &l.watch, now.UnixMilli()
	passed := run - w.run
	if step := wallMS - w.wallMS - passed.Milliseconds(); w.wallMS != 0 && (step < -1000 || step > 1000) {
		l.clockSet(step, wallMS)
	}
	if w.wallMS != 0 && passed > leastMS*time.Millisecond {
		w.calm = run + leastMS*time.Millisecond
	}
	w.wallMS, w.run = wallMS, run
	if run >= w.calm {
		l.checkPresence(now)
	}
}

// clockSet moves the times that presence is counted from by the step of the wall clock. What came after the step is not moved
// beyond the present.
func (l *live) clockSet(step, nowMS int64) {
	for chunk := range slices.Chunk(l.registry.all(), 1000) {
		l.mu.Lock()
		for _, e := range chunk {
			for _, at := range []*int64{&e.live.seenMS, &e.live.changedMS, &e.live.closedMS} {
				if *at != 0 {
					*at = max(min(*at+step, nowMS), 1)
				}
			}
		}
		l.mu.Unlock()
	}
}

func (l *live) checkPresence(now time.Time) {
	devices := l.registry.all()
	var woken []follower
	for chunk := range slices.Chunk(devices, 1000) { // so that apply never waits for the whole fleet
		l.mu.Lock()
		for _, e := range chunk {
			if p := e.live.presenceAt(now.UnixMilli()); p != e.live.presence {
				l.presenceLocked(e, p)
				woken = append(woken, l.disarmLocked()...)
			}
		}
		l.mu.Unlock()
	}
	wake(woken)
}
