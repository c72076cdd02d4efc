package bolt

import (
	"context"
	"errors"
	"fmt"
	"os"

	"telemetryhub/storage"
)

// readBudget is about how many bytes are copied in one transaction.
const readBudget = 1 << 20

// reading is one call of Read.
type reading struct {
	l     *Log
	yield func(storage.Entry) bool
	to    storage.Position
	// at is the last group that was yielded, or the position that reading began after.
	at link
	// checked tells that at was read and is intact, so that its checksum is known.
	checked bool
}

// Read implements storage.Reader.
func (l *Log) Read(ctx context.Context, after storage.Position, yield func(storage.Entry) bool) error {
	r := &reading{l: l, yield: yield, to: l.Last(), at: link{pos: after}}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, last, err := l.holding(r.at.pos)
		if err != nil {
			return err
		}
		if r.at.pos >= r.to {
			return nil
		}
		src := s.source()
		groups, end, err := src.read(r.at.pos+1, r.to, readBudget)
		for _, g := range groups {
			if err := ctx.Err(); err != nil {
				return err
			}
			if g.pos > r.to {
				break
			}
			// Perhaps only the way to the group is damaged, or there is another copy of it.
			if why := r.doubt(g); why != nil && l.searchable(s, src) {
				end, err = false, why
				break
			}
			if !r.take(s, g) {
				return nil
			}
		}
		switch {
		case errors.Is(err, storage.ErrClosed), errors.Is(err, os.ErrClosed):
			continue // holding finds out what has become of the segment
		case err != nil:
			if err := l.rescueSegment(s, src, err); err != nil {
				return fmt.Errorf("read the log after position %d: %w", r.at.pos, err)
			}
		case end && min(last, r.to) > r.at.pos:
			why := corruptf("groups %d to %d are missing", r.at.pos+1, min(last, r.to))
			if l.searchable(s, src) {
				if err := l.rescueSegment(s, src, why); err != nil {
					return fmt.Errorf("read the log after position %d: %w", r.at.pos, err)
				}
			} else if !r.miss(s, min(last, r.to)) {
				return nil
			}
		}
	}
}

// doubt says what is wrong with a group that was read.
func (r *reading) doubt(g foundGroup) error {
	if g.pos > r.at.pos+1 {
		return corruptf("groups %d to %d are missing", r.at.pos+1, g.pos-1)
	}
	return g.damaged
}

// searchable reports whether it may help to search all pages of the segment.
func (l *Log) searchable(s *segment, src source) bool {
	_, rescued := src.(*rescuedSource)
	return !rescued && !s.searched.Load()
}

// take hands a group to the caller, and before it what is missing: within the log every position has a group. It returns
// false when the caller wants no more.
func (r *reading) take(s *segment, g foundGroup) bool {
	if g.pos > r.at.pos+1 && !r.miss(s, g.pos-1) {
		return false
	}
	if g.damaged == nil && r.checked && g.prev.sum != 0 && g.prev.sum != r.at.sum {
		// Each is intact, but one of them is of another log or came back from the past.
		g.damaged = corruptf("group %d does not belong behind group %d", g.pos, r.at.pos)
	}
	if g.damaged != nil {
		r.l.report(Damage{File: s.path, What: g.damaged.Error(), From: uint64(g.pos), To: uint64(g.pos)})
		r.at, r.checked = link{pos: g.pos}, false
		return r.yield(storage.Entry{Position: g.pos, Group: g.group, Damaged: true})
	}
	r.at, r.checked = link{g.pos, g.sum}, true
	return r.yield(storage.Entry{Position: g.pos, Group: g.group})
}

// miss tells the caller that the groups behind r.at up to upTo are missing.
func (r *reading) miss(s *segment, upTo storage.Position) bool {
	r.l.report(Damage{File: s.path, What: "groups are missing", From: uint64(r.at.pos + 1), To: uint64(upTo)})
	r.at, r.checked = link{pos: upTo}, false
	return r.yield(storage.Entry{Position: upTo, Damaged: true})
}

// holding returns the segment in which the group after the position is, and the position of the last group that it
// should have.
func (l *Log) holding(after storage.Position) (*segment, storage.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, storage.ErrClosed
	}
	if after < l.first {
		return nil, 0, fmt.Errorf("read the log after position %d: %w up to %d", after, storage.ErrTrimmed, l.first)
	}
	for i := len(l.segments) - 1; i >= 0; i-- {
		s := l.segments[i]
		if s.first > after+1 && i > 0 {
			continue
		}
		if i+1 < len(l.segments) {
			return s, l.segments[i+1].first - 1, nil
		}
		return s, ^storage.Position(0), nil
	}
	return nil, 0, storage.ErrClosed
}

// rescueSegment lets a segment whose file is damaged be read page by page from now on. The file itself is rescued at the
// next start. failed is the source that why came from.
func (l *Log) rescueSegment(s *segment, failed source, why error) error {
	if !errors.Is(why, storage.ErrCorrupt) {
		return why
	}
	l.keep.trimming.Lock()
	defer l.keep.trimming.Unlock()
	if s.source() != failed || !l.has(s) {
		return nil // somebody else was first, or the segment is gone
	}
	l.appending.Lock()
	s.retired = true // if it is the active one, the next append begins another
	l.appending.Unlock()
	src, err := openRescued(s.path, s.first)
	if err != nil {
		return errors.Join(why, err)
	}
	s.use(src)
	l.report(Damage{File: s.path, What: why.Error(), Action: "what is intact is read page by page; the file is rescued at the next start"})
	return failed.Close()
}
