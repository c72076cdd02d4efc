package hub

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// maxDelivery is the most readings that one Next of a Cursor returns.
const maxDelivery = 1024

// readAhead is how many bytes of groups a Cursor takes at a time.
const readAhead = 1 << 20

// Delivery is one reading as an outside cursor hands it on.
type Delivery struct {
	Device device.ID
	// Metric describes the version of the metric. It is shared and must not be changed.
	Metric *device.Metric
	// TimeMS is the time that the reading is filed under, ArrivalMS when it reached the hub, both in Unix milliseconds.
	TimeMS, ArrivalMS int64
	Value             device.Value
	Quality           device.Quality
	// Position is that of the group that it came in.
	Position storage.Position
}

// Cursor is a reader of everything that devices sent, in log order, whose place in the log is remembered. One goroutine calls
// Next; the other methods are safe for use by several.
//
// The log is kept for it, within limits: see Options.OutboxBytes. What it could not be kept for is skipped, and Status says so.
type Cursor struct {
	hub    *Hub
	slot   *slot
	closed atomic.Bool

	// Next's own.
	pos     storage.Position // everything up to here was delivered
	groups  []tailGroup      // read and not delivered yet
	scratch []tailGroup      // of the tail
	open    bool             // the first of groups is being delivered
	reader  record.Reader
	entity  *entity
	schema  *device.Schema
	rows    record.Rows
	within  bool // rows is in the middle of a record
	row     *device.Row
	column  int // of row
}

// OpenCursor opens the outside cursor of that name: letters, digits and dashes, at most 64. A new one begins at the end of the
// log, so that it sees what arrives from now on; one that is known goes on after the last position that was committed. Its
// place is kept, and the log is held for it, also while it is not open: DropCursor ends that.
//
// Errors: *BadInput, storage.ErrReadOnly, those of storage.Catalog; a second cursor of one name is an error too.
func (h *Hub) OpenCursor(ctx context.Context, name string) (*Cursor, error) {
	if err := checkCursor(name); err != nil {
		return nil, err
	}
	if h.options.ReadOnly {
		return nil, fmt.Errorf("open the cursor %s: %w: its place could not be remembered", name, storage.ErrReadOnly)
	}
	s, err := h.outbox.enter(ctx, name, h.tail.end())
	if err != nil {
		return nil, fmt.Errorf("open the cursor %s: %w", name, err)
	}
	return &Cursor{hub: h, slot: s, pos: h.outbox.place(s)}, nil
}

// DropCursor forgets the place of a cursor that is not open, so that nothing is held for it. If there is none nothing happens.
func (h *Hub) DropCursor(ctx context.Context, name string) error {
	o := h.outbox
	o.mu.Lock()
	s := o.slots[name]
	busy := s != nil && s.open
	if s != nil && !busy {
		s.open = true // nobody else takes it meanwhile
	}
	o.mu.Unlock()
	switch {
	case s == nil:
		return nil
	case busy:
		return fmt.Errorf("drop the cursor %s: it is open", name)
	}
	s.saving.Lock()
	err := o.catalog.Delete(ctx, keyOutbox+name, storage.Any)
	s.saving.Unlock()
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.open = false; err != nil {
		return fmt.Errorf("drop the cursor %s: %w", name, err)
	}
	delete(o.slots, name)
	return nil
}

func checkCursor(name string) error {
	ok := name != "" && len(name) <= 64
	for i := range len(name) {
		c := name[i]
		ok = ok && (c == '-' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z')
	}
	if !ok {
		return &BadInput{Text: fmt.Sprintf("%q cannot be the name of a cursor: use 1 to 64 letters, digits and dashes", name)}
	}
	return nil
}

// enter takes the slot of that name for a cursor, making it if need be.
func (o *outbox) enter(ctx context.Context, name string, end storage.Position) (*slot, error) {
	o.mu.Lock()
	s := o.slots[name]
	switch {
	case s != nil && s.open:
		o.mu.Unlock()
		return nil, errors.New("it is open already")
	case s != nil:
		s.open = true
		o.mu.Unlock()
		return s, nil
	case len(o.slots) >= maxCursors:
		o.mu.Unlock()
		return nil, &BadInput{Text: fmt.Sprintf("there are %d cursors already", maxCursors)}
	}
	s = &slot{name: name, saved: end, done: end, open: true, dirty: true}
	o.slots[name] = s // holds the log from now on
	o.mu.Unlock()

	_, _, err := o.catalog.Get(ctx, keyOutbox+name)
	if errors.Is(err, storage.ErrCorrupt) {
		o.lost(name, err)
		first := o.log.First()
		o.mu.Lock()
		s.saved, s.done, s.rev = first, first, storage.Any
		o.mu.Unlock()
	}
	if err = o.save(ctx, s, 0); err != nil {
		o.mu.Lock()
		delete(o.slots, name)
		o.mu.Unlock()
		return nil, err
	}
	return s, nil
}

// place returns where a cursor goes on.
func (o *outbox) place(s *slot) storage.Position {
	o.mu.Lock()
	defer o.mu.Unlock()
	return max(s.saved, s.done)
}

// caughtUp notes that a cursor has read everything that there is.
func (o *outbox) caughtUp(s *slot) {
	o.mu.Lock()
	said := s.alarmed
	s.alarmed = false
	o.mu.Unlock()
	if said {
		o.logger.Info("a cursor has caught up", "cursor", s.name)
	}
}

// Close ends the cursor. What was not committed is delivered again to the next of its name.
func (c *Cursor) Close() {
	if c.closed.Swap(true) {
		return
	}
	o := c.hub.outbox
	o.mu.Lock()
	defer o.mu.Unlock()
	c.slot.open = false
}

// Commit makes durable that everything up to a position that Next returned is done. It never goes back: an earlier position
// than the last one does nothing. It costs a write to the disk: once a second is often. After an error the cursor stays usable,
// and a later Commit makes up for it. Errors: those of storage.Catalog.
func (c *Cursor) Commit(ctx context.Context, pos storage.Position) error {
	if c.closed.Load() {
		return errClosedCursor
	}
	if end := c.hub.tail.end(); pos > end {
		return fmt.Errorf("commit the cursor %s at %d: the log ends at %d", c.slot.name, pos, end)
	}
	err := c.hub.outbox.save(ctx, c.slot, pos)
	if errors.Is(err, storage.ErrUnknown) {
		select {
		case c.hub.failed <- err:
		default: // it has been told
		}
	}
	return err
}

var errClosedCursor = errors.New("the cursor is closed")

// Next waits until there is something to deliver and appends it to dst: at most 1,024 readings. The position is that of the
// last group that was delivered whole: once all readings up to this call are done it can be committed. There may be no reading
// at all, when groups held none. Readings of devices that are deleted are left out, and so is what is damaged. An error other
// than that of ctx means that the log cannot be read.
func (c *Cursor) Next(ctx context.Context, dst []Delivery) ([]Delivery, storage.Position, error) {
	from, start := c.pos, len(dst)
	for len(dst)-start < maxDelivery {
		if c.open {
			dst = c.deliver(ctx, dst, start+maxDelivery)
			continue
		}
		if len(c.groups) > 0 {
			c.begin()
			continue
		}
		grown, err := c.fetch(ctx)
		if err != nil {
			return dst, c.pos, err
		}
		if len(c.groups) > 0 {
			continue
		}
		if grown == nil {
			continue // some were skipped
		}
		c.hub.outbox.caughtUp(c.slot)
		if len(dst) > start || c.pos > from {
			break
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return dst, c.pos, context.Cause(ctx)
		}
	}
	return dst, c.pos, nil
}

// End returns where the log ends by now.
func (c *Cursor) End() storage.Position { return c.hub.tail.end() }

// Skip passes over everything up to a position that End has returned since the last Next, unread, and returns where the cursor is
// then. It is called instead of Next, by the same goroutine.
func (c *Cursor) Skip(to storage.Position) storage.Position {
	c.groups, c.open, c.within, c.row = nil, false, false, nil
	c.pos = max(c.pos, to)
	c.hub.outbox.caughtUp(c.slot)
	return c.pos
}

// fetch puts the next groups into c.groups. If there are none it returns a channel that is closed when there are; if there is
// no channel either, the log has been trimmed and c.pos is where it begins now.
func (c *Cursor) fetch(ctx context.Context) (<-chan struct{}, error) {
	if c.closed.Load() {
		return nil, errClosedCursor
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	got, grown, ok := c.hub.tail.after(c.pos, c.scratch[:0])
	c.scratch = got
	bytes := 0
	if ok {
		for i := 0; i < len(got) && bytes < readAhead; i++ {
			bytes += len(got[i].group)
			c.groups = append(c.groups, got[i])
		}
		clear(got) // lets go of the rest
		return grown, nil
	}
	err := c.hub.log.Read(ctx, c.pos, func(e storage.Entry) bool {
		if e.Damaged {
			c.hub.logger.Error("a cursor passes over a damaged group of the log", "cursor", c.slot.name, "position", uint64(e.Position))
		}
		bytes += len(e.Group)
		c.groups = append(c.groups, tailGroup{e.Position, e.Group})
		return bytes < readAhead && len(c.groups) < maxDelivery
	})
	switch {
	case errors.Is(err, storage.ErrTrimmed) && len(c.groups) == 0:
		c.hub.outbox.settle()
		c.pos = max(c.pos, c.hub.log.First())
		return nil, nil
	case err != nil && len(c.groups) == 0:
		return nil, fmt.Errorf("the cursor %s reads the log: %w", c.slot.name, err)
	}
	return nil, nil // an error comes again at the next try
}

// settle waits until a trim under way has told the cursors.
func (o *outbox) settle() {
	o.trimming.Lock()
	defer o.trimming.Unlock()
}

// begin opens the first of c.groups. What is not readable in it is passed over: history records the loss.
func (c *Cursor) begin() {
	g := c.groups[0].group
	r, err := record.Read(g)
	if err != nil && len(g) > 0 {
		c.hub.logger.Error("a cursor cannot read a group of the log", "cursor", c.slot.name, "position", uint64(c.groups[0].pos), "err", err)
	}
	if err != nil {
		r = record.Salvage(g)
	}
	c.reader, c.open, c.within = r, true, false
}

// end closes the group: everything in it was delivered.
func (c *Cursor) end() {
	if err := c.reader.Err(); err != nil {
		c.complain("a cursor cannot read a group of the log to its end", err)
	}
	c.pos = c.groups[0].pos
	c.groups[0] = tailGroup{}
	if c.groups = c.groups[1:]; len(c.groups) == 0 {
		c.groups = nil
	}
	c.open, c.within, c.row = false, false, nil
}

func (c *Cursor) complain(what string, err error) {
	c.hub.logger.Error(what, "cursor", c.slot.name, "position", uint64(c.groups[0].pos), "err", err)
}

// deliver appends readings of the open group until it is at its end or dst has room for no more.
func (c *Cursor) deliver(ctx context.Context, dst []Delivery, most int) []Delivery {
	for {
		for c.row != nil {
			if len(dst) >= most {
				return dst
			}
			dst = c.value(dst)
		}
		if c.within && c.rows.Next() {
			c.row, c.column = c.rows.Row(), 0
			continue
		}
		if c.within {
			if c.within = false; c.rows.Err() != nil {
				c.complain("a cursor cannot read a record of the log", c.rows.Err())
			}
		}
		if !c.reader.Next() {
			c.end()
			return dst
		}
		c.record(ctx, c.reader.Record())
	}
}

// record opens a record if there is something in it to deliver.
func (c *Cursor) record(ctx context.Context, rec *record.Record) {
	if rec.Kind != record.Data {
		return
	}
	e := c.hub.registry.number(rec.Device)
	if e == nil || e.deleted.Load() {
		return
	}
	if num := rec.Schema(); c.entity != e || c.schema == nil || c.schema.Num != num {
		s, err := c.hub.registry.Schema(ctx, rec.Device, num)
		if err != nil {
			c.complain("a cursor cannot read a record of the log", err)
			return
		}
		c.entity, c.schema = e, s
	}
	c.rows.Reset(rec, c.schema)
	c.within = true
}

// value appends the next value of the row.
func (c *Cursor) value(dst []Delivery) []Delivery {
	i := c.column
	v := &c.row.Values[i]
	if v.Type != device.Absent {
		arrival := c.reader.Record().ArrivalMS
		ms, _ := device.Filed(c.row.TimeMS, arrival)
		m := c.schema.Column(c.row.Ref, i)
		dst = append(dst, Delivery{
			Device: c.entity.id, Metric: m, TimeMS: ms, ArrivalMS: arrival, Value: *v,
			Quality: ownQuality(m, v, c.row.Quality), Position: c.groups[0].pos,
		})
	}
	if c.column++; c.column == len(c.row.Values) {
		c.row = nil
	}
	return dst
}
