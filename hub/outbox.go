package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// keyOutbox is where the catalog holds the positions of the outside cursors: outbox/<name>.
const keyOutbox = "outbox/"

// maxCursors bounds how many outside cursors there may be, open or not.
const maxCursors = 64

// outbox is what the outside cursors make the log keep: beyond what the history needs, but no more than a limit, and nothing
// at all once the log or the disk is full. What is taken from a cursor is recorded as skipped.
type outbox struct {
	catalog storage.Catalog
	log     storage.Log
	logger  *slog.Logger
	max     int64
	ledger  ledger

	// trimming is held while the log is trimmed and the cursors are told. It is taken before mu, never with slot.saving.
	trimming sync.Mutex

	mu    sync.Mutex       // guards the fields below, and those of every slot but saving
	safe  storage.Position // the log may forget everything up to here, as far as it is up to the hub itself
	slots map[string]*slot
}

// slot is the place of one outside cursor in the log. It stays while the cursor is not open.
type slot struct {
	name   string
	saving sync.Mutex // held by one write of the record at a time

	rev     storage.Revision
	saved   storage.Position // as the catalog has it
	done    storage.Position // as the consumer says; later than saved while the catalog cannot be written
	skips   Skips
	dirty   bool // skips is not in the catalog yet
	open    bool
	alarmed bool // it has been said that the cursor skips, and it has not caught up since
}

// slotRecord is what the catalog holds about an outside cursor.
type slotRecord struct {
	Version  int              `json:"v"`
	Position storage.Position `json:"pos"`
	Skips    *Skips           `json:"skips,omitempty"`
}

// Skips is what an outside cursor has missed over its life, because the log could not be kept for it.
type Skips struct {
	// Ranges counts the losses. Groups and Bytes are about how much of the log they were.
	Ranges uint64    `json:"ranges"`
	Groups uint64    `json:"groups"`
	Bytes  uint64    `json:"bytes"`
	Last   SkipRange `json:"last"`
}

// SkipRange is one loss: the groups after From up to To.
type SkipRange struct {
	From storage.Position `json:"from"`
	To   storage.Position `json:"to"`
	// FromMS and ToMS bound when they were committed, in Unix milliseconds, as far as that is known, else zero.
	FromMS int64     `json:"t0"`
	ToMS   int64     `json:"t1"`
	Cause  SkipCause `json:"why"`
}

// SkipCause says why an outside cursor has missed something. The names are stored.
type SkipCause string

// The causes.
const (
	SkipLimit SkipCause = "outbox_full"  // the cursor held more of the log than Options.OutboxBytes
	SkipFull  SkipCause = "storage_full" // the log or the disk had no room for readings
	SkipGone  SkipCause = "log_gone"     // the log no longer had it when the hub started
)

// advice says what to do about each cause.
var advice = map[SkipCause]string{
	SkipLimit: "bring back what it feeds, or keep more for it with --outbox",
	SkipFull:  "free some space, or bring back what it feeds",
	SkipGone:  "was the log of another day put back? what it feeds has a gap now",
}

// CursorStatus is the state of an outside cursor at one moment. Groups and bytes are off by a few percent at most.
type CursorStatus struct {
	Name     string
	Open     bool
	Position storage.Position
	// LagGroups and LagBytes are how much of the log is not committed yet.
	LagGroups, LagBytes uint64
	// Oldest is when the oldest of it was committed to the log; zero if there is nothing.
	Oldest  time.Time
	Skipped Skips
}

// Lag returns how long the oldest of what is not committed has waited.
func (s *CursorStatus) Lag(now time.Time) time.Duration {
	if s.Oldest.IsZero() {
		return 0
	}
	return max(now.Sub(s.Oldest), 0)
}

func newOutbox(c storage.Catalog, log storage.Log, max int64, logger *slog.Logger) *outbox {
	o := &outbox{catalog: c, log: log, max: max, logger: logger, slots: map[string]*slot{}}
	o.ledger.begin(log.First())
	return o
}

// load brings back the cursors and what is known about the log. Everything up to from is no longer needed by the hub itself;
// what the log holds after it is noted by whoever replays it.
func (o *outbox) load(ctx context.Context, from storage.Position, marks [][4]uint64) error {
	o.safe = from
	var bad error
	err := o.catalog.List(ctx, keyOutbox, func(it storage.Item) bool {
		var s *slot
		if s, bad = o.slot(it); bad == nil {
			o.slots[s.name] = s
		}
		return bad == nil
	})
	if bad != nil {
		return bad
	}
	if err != nil && !errors.Is(err, storage.ErrCorrupt) {
		return fmt.Errorf("load the outside cursors: %w", err)
	}
	if err != nil { // OpenCursor finds out which
		o.logger.Error("the place of an outside cursor in the log is lost", "err", err)
	}
	if first := o.log.First(); !o.ledger.restore(marks) || o.ledger.end.pos < from || o.ledger.end.pos > o.log.Last() {
		if err := o.recount(ctx, first, from); err != nil {
			return err
		}
	}
	o.skip(SkipGone)
	return nil
}

// slot returns the cursor that a value of the catalog describes.
func (o *outbox) slot(it storage.Item) (*slot, error) {
	var rec slotRecord
	name := strings.TrimPrefix(it.Key, keyOutbox)
	err := decodeRecord(it, &rec, func() int { return rec.Version })
	switch {
	case errors.Is(err, storage.ErrCorrupt):
		o.lost(name, err)
		rec = slotRecord{Position: o.log.First()}
	case err != nil:
		return nil, err
	case rec.Position > o.log.Last():
		return nil, fmt.Errorf("the cursor %s is at %d, but the log ends at %d: the end of the log is missing: %w; run hub check, or restore a backup",
			name, rec.Position, o.log.Last(), storage.ErrCorrupt)
	}
	s := &slot{name: name, rev: it.Revision, saved: rec.Position, done: rec.Position}
	if rec.Skips != nil {
		s.skips = *rec.Skips
	}
	return s, nil
}

func (o *outbox) lost(name string, err error) {
	o.logger.Error("the place of a cursor in the log is lost: it begins anew with all that the log holds", "cursor", name, "err", err)
}

// marks returns what the next start needs to know about the log, which is nothing if there are no cursors.
func (o *outbox) marks() [][4]uint64 {
	if len(o.all()) == 0 {
		return nil
	}
	return o.ledger.record()
}

// recount reads what the log holds up to a position for the ledger. That is needed only when the catalog does not have it.
func (o *outbox) recount(ctx context.Context, first, to storage.Position) error {
	o.ledger.begin(first)
	if len(o.slots) == 0 || first >= to {
		o.ledger.begin(max(first, to))
		return nil
	}
	err := o.log.Read(ctx, first, func(e storage.Entry) bool {
		if e.Position > to {
			return false
		}
		o.ledger.note(e.Position, len(e.Group), groupMS(e.Group))
		return true
	})
	if err != nil {
		return fmt.Errorf("count what the outside cursors have not read yet: %w", err)
	}
	return nil
}

// groupMS returns about when a group was committed: the arrival of its first record, zero if there is none.
func groupMS(group []byte) int64 {
	if r, err := record.Read(group); err == nil && r.Next() {
		return r.Record().ArrivalMS
	}
	return 0
}

// trim lets the log forget what nobody needs: the hub itself needs nothing up to safe. Cursors that hold more than the limit
// lose the oldest.
func (o *outbox) trim(ctx context.Context, safe storage.Position) error {
	if err := o.trimLog(ctx, safe); err != nil {
		return fmt.Errorf("trim the log: %w", err)
	}
	for _, s := range o.all() {
		o.mu.Lock()
		dirty := s.dirty
		o.mu.Unlock()
		if !dirty {
			continue
		}
		if err := o.save(ctx, s, 0); errors.Is(err, storage.ErrUnknown) {
			return err
		} else if err != nil { // what is gone shows at the next start too
			o.logger.Warn("what a cursor has skipped is not recorded yet; it is tried again", "cursor", s.name, "err", err)
		}
	}
	return nil
}

func (o *outbox) trimLog(ctx context.Context, safe storage.Position) error {
	o.trimming.Lock()
	defer o.trimming.Unlock()
	err := o.log.Trim(ctx, o.hold(safe))
	o.skip(SkipLimit) // some may be gone although the rest could not be removed
	return err
}

// hold notes that the hub needs nothing up to safe and returns the position up to which nobody else does.
func (o *outbox) hold(safe storage.Position) storage.Position {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.safe = max(o.safe, safe)
	keep, total := o.safe, o.ledger.at(o.safe).bytes
	for _, s := range o.slots {
		at := s.saved
		if held := total - min(o.ledger.at(at).bytes, total); held > uint64(o.max) {
			at = max(at, min(o.ledger.reach(total-uint64(o.max)).pos, o.safe))
		}
		keep = min(keep, at)
	}
	return keep
}

// yield gives up what only the cursors hold, because there is no room. It reports whether that made any. It writes nothing
// to the catalog, since its caller is the committer.
func (o *outbox) yield(ctx context.Context) bool {
	o.trimming.Lock()
	defer o.trimming.Unlock()
	o.mu.Lock()
	safe, n := o.safe, len(o.slots)
	o.mu.Unlock()
	first := o.log.First()
	if n == 0 || first >= safe {
		return false
	}
	if err := o.log.Trim(ctx, safe); err != nil {
		o.logger.Warn("the log cannot be trimmed to make room", "err", err)
	}
	o.skip(SkipFull)
	return o.log.First() > first
}

// skip notes for every cursor what the log has forgotten before the cursor was done with it. trimming is held, or nobody else
// is there yet.
func (o *outbox) skip(cause SkipCause) {
	first := o.log.First()
	for _, s := range o.all() {
		o.mu.Lock()
		from := max(s.saved, s.done)
		if from >= first {
			o.mu.Unlock()
			continue
		}
		since, _ := o.ledger.after(from)
		was, is := o.ledger.at(from), o.ledger.at(first)
		s.skips.add(SkipRange{From: from, To: first, FromMS: since.atMS, ToMS: is.atMS, Cause: cause}, is.groups-was.groups, is.bytes-was.bytes)
		s.done, s.dirty = first, true
		alarmed, last := s.alarmed, s.skips.Last
		s.alarmed = true
		o.mu.Unlock()
		if !alarmed {
			o.logger.Error("a cursor that is behind skips readings that the log cannot keep", "cursor", s.name, "cause", string(cause),
				"do", advice[cause], "from", uint64(last.From), "to", uint64(last.To),
				"since", unixMilli(last.FromMS), "until", unixMilli(last.ToMS))
		}
	}
	o.ledger.forget(first)
}

// add takes in a loss; one that follows the last one without a break belongs to it.
func (s *Skips) add(r SkipRange, groups, bytes uint64) {
	s.Groups += groups
	s.Bytes += bytes
	if s.Ranges > 0 && s.Last.To == r.From && s.Last.Cause == r.Cause {
		s.Last.To, s.Last.ToMS = r.To, r.ToMS
		return
	}
	s.Ranges++
	s.Last = r
}

// save makes durable that a cursor is done with everything up to pos, or where it is if pos is earlier.
func (o *outbox) save(ctx context.Context, s *slot, pos storage.Position) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	o.mu.Lock()
	s.done = max(s.done, pos)
	if s.done == s.saved && !s.dirty {
		o.mu.Unlock()
		return nil
	}
	rec := slotRecord{Version: recordVersion, Position: s.done}
	if s.skips.Ranges > 0 {
		skips := s.skips
		rec.Skips = &skips
	}
	rev := s.rev
	o.mu.Unlock()
	v, err := json.Marshal(rec)
	if err == nil {
		rev, err = o.catalog.Put(ctx, keyOutbox+s.name, v, rev)
	}
	if err != nil {
		return fmt.Errorf("save the cursor %s: %w", s.name, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	s.rev, s.saved = rev, rec.Position
	s.dirty = rec.Skips != nil && *rec.Skips != s.skips
	return nil
}

// all returns the slots by name.
func (o *outbox) all() []*slot {
	o.mu.Lock()
	defer o.mu.Unlock()
	list := make([]*slot, 0, len(o.slots))
	for _, s := range o.slots {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *slot) int { return strings.Compare(a.name, b.name) })
	return list
}

// status returns the state of every cursor, by name.
func (o *outbox) status() []CursorStatus {
	var list []CursorStatus
	for _, s := range o.all() {
		o.mu.Lock()
		c := CursorStatus{Name: s.name, Open: s.open, Position: max(s.saved, s.done), Skipped: s.skips}
		o.mu.Unlock()
		if next, end := o.ledger.after(c.Position); end.pos > c.Position {
			at := o.ledger.at(c.Position)
			c.LagGroups, c.LagBytes, c.Oldest = end.groups-at.groups, end.bytes-at.bytes, unixMilli(next.atMS)
		}
		list = append(list, c)
	}
	return list
}
