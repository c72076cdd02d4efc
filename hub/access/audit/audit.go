// Package audit keeps the record of everything that a person or a token changed.
//
// An [Entry] says who did what to which target, and when. A [Log] keeps the newest entries in a [storage.Catalog], one
// key each, in the order in which they were recorded, even when the wall clock is set back in between; the time in
// an entry is what the clock said.
//
// A value is JSON: v (1), at (Unix milliseconds), who, cred, what, target, detail. Its key is audit/<t>-<n>: t is 15
// decimal digits, the Unix milliseconds or those of the entry before, whichever is later; n is 6 decimal digits.
package audit

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"telemetryhub/storage"
)

const (
	keyPrefix = "audit/"
	version   = 1
	// defaultMax times about 250 bytes is what the log takes on disk.
	defaultMax = 10_000
	maxNumber  = 999_999
	// maxText bounds every text of an entry in bytes: entries also hold names that callers chose.
	maxText = 512
	maxPage = 1000
)

// Options configures a Log. The zero value works.
type Options struct {
	// Max is the number of entries that are kept; the oldest are removed. Zero means 10,000. Negative is an error.
	Max int
	// Now is the wall clock. Nil means time.Now.
	Now func() time.Time
}

// Entry is one deed. Texts over 512 bytes are cut.
type Entry struct {
	// ID is the place of the entry in the log. Record sets it.
	ID string
	// At is when it was recorded, to the millisecond. Record sets it.
	At time.Time
	// Who names the identity, Credential its token or session.
	Who, Credential string
	// What is the deed, Target what it was done to, Detail what else is worth knowing. Never a secret.
	What, Target, Detail string
	// Damaged means that the entry cannot be read any more. Only its ID is known.
	Damaged bool
}

type record struct {
	V      int    `json:"v"`
	At     int64  `json:"at"`
	Who    string `json:"who"`
	Cred   string `json:"cred,omitempty"`
	What   string `json:"what"`
	Target string `json:"target,omitempty"`
	Detail string `json:"detail,omitempty"`
}

// place is where an entry stands.
type place struct {
	ms     int64
	number int32
}

func (p place) compare(q place) int {
	return cmp.Or(cmp.Compare(p.ms, q.ms), cmp.Compare(p.number, q.number))
}

func (p place) String() string { return fmt.Sprintf("%015d-%06d", p.ms, p.number) }

func parsePlace(id string) (p place, ok bool) {
	if _, err := fmt.Sscanf(id, "%15d-%6d", &p.ms, &p.number); err != nil {
		return place{}, false
	}
	return p, p.ms >= 0 && p.number >= 0 && p.String() == id
}

// Log is the audit log. It is safe for use by many goroutines at once.
type Log struct {
	catalog storage.Catalog
	max     int
	now     func() time.Time

	mu     sync.Mutex // guards the fields below; never held during catalog operations
	places []place    // what is in the catalog, oldest first
	last   place      // the last place given away
}

// Open returns the log that is in the catalog, which stays the caller's. Damaged entries are left where they are.
func Open(ctx context.Context, catalog storage.Catalog, opts Options) (*Log, error) {
	if opts.Max < 0 {
		return nil, fmt.Errorf("audit log: the number of entries to keep is %d, it cannot be negative", opts.Max)
	}
	l := &Log{catalog: catalog, max: cmp.Or(opts.Max, defaultMax), now: opts.Now}
	if l.now == nil {
		l.now = time.Now
	}
	err := catalog.List(ctx, keyPrefix, func(item storage.Item) bool {
		if p, ok := parsePlace(strings.TrimPrefix(item.Key, keyPrefix)); ok {
			l.places = append(l.places, p)
		}
		return true
	})
	if err != nil && !errors.Is(err, storage.ErrCorrupt) {
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	if len(l.places) > 0 {
		l.last = l.places[len(l.places)-1]
	}
	return l, nil
}

// Record makes the entry durable, and removes the oldest entries if there are too many.
func (l *Log) Record(ctx context.Context, e Entry) error {
	now := l.now()
	value, err := json.Marshal(record{V: version, At: now.UnixMilli(), Who: clip(e.Who), Cred: clip(e.Credential),
		What: clip(e.What), Target: clip(e.Target), Detail: clip(e.Detail)})
	if err != nil {
		return fmt.Errorf("encode the audit entry: %w", err)
	}
	for {
		p := l.next(now)
		_, err := l.catalog.Put(ctx, keyPrefix+p.String(), value, storage.Absent)
		if errors.Is(err, storage.ErrConflict) {
			continue // a damaged entry, or another hub's, stands there
		}
		if err != nil {
			return fmt.Errorf("write the audit log: %w", err)
		}
		l.add(p)
		l.trim(ctx)
		return nil
	}
}

// next gives away the next place.
func (l *Log) next(now time.Time) place {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := place{ms: max(now.UnixMilli(), l.last.ms)}
	if p.ms == l.last.ms {
		p.number = l.last.number + 1
	}
	if p.number > maxNumber {
		p = place{ms: p.ms + 1}
	}
	l.last = p
	return p
}

func (l *Log) add(p place) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.places, p, place.compare)
	l.places = slices.Insert(l.places, i, p)
}

// trim removes the oldest entries, a few at a time, so that a smaller maximum does not hold up one caller. What cannot be
// removed now is removed after one of the next entries.
func (l *Log) trim(ctx context.Context) {
	for range 4 {
		l.mu.Lock()
		over := len(l.places) > l.max
		oldest := l.places[0]
		l.mu.Unlock()
		if !over || l.catalog.Delete(ctx, keyPrefix+oldest.String(), storage.Any) != nil {
			return
		}
		l.mu.Lock()
		if i, found := slices.BinarySearchFunc(l.places, oldest, place.compare); found {
			l.places = slices.Delete(l.places, i, i+1)
		}
		l.mu.Unlock()
	}
}

// List returns up to limit entries (1 to 1000) that are older than the one with the ID before, newest first. An empty
// before starts with the newest. The page after this one is found with the ID of its last entry.
func (l *Log) List(ctx context.Context, before string, limit int) ([]Entry, error) {
	limit = min(max(limit, 1), maxPage)
	l.mu.Lock()
	end := len(l.places)
	if before != "" {
		p, ok := parsePlace(before)
		if !ok {
			l.mu.Unlock()
			return nil, fmt.Errorf("no audit entry has this id: %w", storage.ErrNotFound)
		}
		end, _ = slices.BinarySearchFunc(l.places, p, place.compare)
	}
	page := slices.Clone(l.places[max(0, end-limit):end])
	l.mu.Unlock()

	entries := make([]Entry, 0, len(page))
	for _, p := range slices.Backward(page) {
		e, err := l.read(ctx, p)
		if errors.Is(err, storage.ErrNotFound) {
			continue // removed meanwhile, because it is one of the oldest
		}
		if err != nil {
			return nil, fmt.Errorf("read the audit log: %w", err)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

func (l *Log) read(ctx context.Context, p place) (Entry, error) {
	value, _, err := l.catalog.Get(ctx, keyPrefix+p.String())
	if errors.Is(err, storage.ErrCorrupt) {
		return Entry{ID: p.String(), Damaged: true}, nil
	}
	if err != nil {
		return Entry{}, err
	}
	var r record
	if json.Unmarshal(value, &r) != nil || r.V != version {
		return Entry{ID: p.String(), Damaged: true}, nil
	}
	return Entry{ID: p.String(), At: time.UnixMilli(r.At), Who: r.Who, Credential: r.Cred, What: r.What,
		Target: r.Target, Detail: r.Detail}, nil
}

// clip cuts a text that is too long. What remains of a cut character becomes the replacement character.
func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
