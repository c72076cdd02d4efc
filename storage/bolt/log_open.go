package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"telemetryhub/storage"
)

// reuseBytes is how much may be in the last segment for it to be written on after a clean end. It must be read whole
// before that; a larger one is closed instead, so that the start need not wait.
const reuseBytes = 8 << 20

// OpenLog opens the log in the folder dir, which it makes if it does not exist; no other files belong there.
//
// After a clean end only a little of each file is read at once, the rest in the background. Otherwise everything is
// read and checked first. Damaged files are replaced by new ones with all that is intact, and kept aside; Damage tells.
// Errors: storage.ErrLocked, storage.ErrNewerFormat, storage.ErrReadOnly, storage.ErrFull, and what is wrong with a
// file that does not belong there. Then nothing was changed.
func OpenLog(dir string, o LogOptions) (*Log, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	l, err := openLog(dir, o)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	return l, nil
}

func openLog(dir string, o LogOptions) (_ *Log, err error) {
	if o.ReadOnly {
		return openLogReadOnly(dir, o)
	}
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	l := &Log{dir: dir, opts: o, latch: new(latch)}
	l.put = l.putGroup
	if l.lock, err = LockDir(dir); err != nil {
		return nil, err
	}
	op := &opening{l: l}
	if err := op.run(); err != nil {
		return nil, errors.Join(err, op.giveUp(), l.lock.Close())
	}
	l.keep.scrub = op.unread
	l.last.Store(uint64(l.tip.pos))
	l.first = l.segments[0].first - 1
	l.keep.start(l)
	return l, nil
}

// oldSegment is a segment file that was found, before it is decided what to do with it.
type oldSegment struct {
	first storage.Position
	path  string
	fd    *os.File
	p     *pages
	v     verified
	bad   error // the file is damaged
	read  bool  // all of it was read
	clean link  // the mark of a clean end, position zero without one
	mark  bool
}

// opening is the work of OpenLog.
type opening struct {
	l      *Log
	files  []*oldSegment
	unread []*segment
}

func (o *opening) run() error {
	if err := o.list(); err != nil {
		return err
	}
	if len(o.files) == 0 {
		return o.create(1)
	}
	for _, c := range o.files {
		if err := c.open(false); err != nil {
			return err
		}
	}
	last := o.files[len(o.files)-1]
	if err := o.inspect(last.mark); err != nil {
		return err
	}
	if err := o.settle(last); err != nil {
		return err
	}
	return nil
}

// list finds the segments and removes files that were never finished.
func (o *opening) list() error {
	entries, err := os.ReadDir(o.l.dir)
	if err != nil {
		return openError(err)
	}
	for _, e := range entries {
		path := filepath.Join(o.l.dir, e.Name())
		if first, ok := parseSegmentName(e.Name()); ok {
			o.files = append(o.files, &oldSegment{first: first, path: path})
		} else if strings.HasSuffix(e.Name(), tempSuffix) && !o.l.opts.ReadOnly {
			if err := removeTemp(path); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(o.files, func(a, b *oldSegment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	return nil
}

// open opens the file, drops it from the cache, and refuses what is not ours or newer.
func (c *oldSegment) open(readOnly bool) error {
	fd, err := openLocked(c.path, readOnly)
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	c.fd = fd
	if err := forget(fd); err != nil && !readOnly {
		return fmt.Errorf("%s: %w: what was written last cannot be made durable: %w", c.path, storage.ErrUnknown, err)
	}
	c.p, err = pagesOf(fd)
	if err == nil {
		err = c.p.checkHeader(logFormat, logVersion)
	} else if c.p == nil && errors.Is(err, errNotBolt) && c.rescue(link{}).ours {
		err = corruptf("both meta pages are gone")
	}
	switch {
	case errors.Is(err, storage.ErrCorrupt):
		c.bad = err
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", c.path, err)
	}
	b, err := c.p.header(cleanKey)
	if err == nil {
		c.clean, c.mark = decodeClean(b)
	}
	return nil
}

// inspect reads the segments: of those before the last only a little if the end was clean, otherwise all of each. Two
// are read at a time.
func (o *opening) inspect(clean bool) error {
	limit := make(chan struct{}, 2)
	var wg sync.WaitGroup
	for i, c := range o.files {
		if c.bad != nil {
			continue
		}
		last := i == len(o.files)-1
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if c.read = !clean || last && c.p.meta.high <= reuseBytes/pageSize; c.read {
				c.verify()
			} else {
				c.v.end, c.bad = glance(c.p, c.first)
			}
			if end := max(c.v.end.pos, c.first-1); c.bad == nil && last && c.mark && c.clean.pos != end {
				c.bad = corruptf("the log ends at %d and should end at %d", end, c.clean.pos)
			}
		})
	}
	wg.Wait()
	for _, c := range o.files {
		if c.bad != nil && !errors.Is(c.bad, storage.ErrCorrupt) {
			return fmt.Errorf("%s: %w", c.path, c.bad)
		}
	}
	return nil
}

// verify reads all of the segment. If some of it is damaged although the pages are in order, and a search of all pages
// finds better copies, the file counts as damaged.
func (c *oldSegment) verify() {
	if c.v, c.bad = verifySegment(c.p, c.first); c.bad != nil || !c.v.flawed() {
		return
	}
	found := c.rescue(link{})
	if n := found.intact(); n > c.v.intact {
		c.bad = corruptf("%d groups are intact, but there are copies of %d", c.v.intact, n)
	}
}

// settle decides about the last segment, which may be written on, and then about the others.
func (o *opening) settle(last *oldSegment) error {
	l := o.l
	l.tip = last.v.end
	if l.tip.pos == 0 {
		l.tip.pos = last.first - 1
		if last.mark && last.clean.pos == l.tip.pos {
			l.tip.sum = last.clean.sum
		}
	}
	var findings segmentFindings
	if last.bad != nil {
		findings = last.rescue(link{})
		if !findings.ours {
			return fmt.Errorf("%s: %w of this program: %w; move it away", last.path, errNotBolt, last.bad)
		}
		l.tip = link{pos: findings.end(last.first)}
	}
	if last.bad != nil || !last.read {
		// The next segment is begun before the damaged one is replaced: its name keeps positions that are lost from being
		// given out again.
		if err := o.create(l.tip.pos + 1); err != nil && (last.bad != nil || !errors.Is(err, storage.ErrFull)) {
			return err
		} else if err != nil {
			// No room for a new file, so the old one is read after all.
			last.read = true
			if last.verify(); last.bad != nil {
				return fmt.Errorf("%s: %w, and there is no room to rescue it: %w", last.path, last.bad, err)
			}
		}
	}
	next := link{}
	for i := len(o.files) - 1; i >= 0; i-- {
		c := o.files[i]
		if c == last && l.active == nil {
			if err := o.adopt(c); err != nil {
				return err
			}
		} else if err := o.keepSealed(c, findings, next); err != nil {
			return err
		}
		next = c.v.prev
		findings = segmentFindings{}
	}
	slices.SortFunc(l.segments, func(a, b *segment) int {
		if a.first < b.first {
			return -1
		}
		return 1
	})
	o.holes()
	return nil
}

// create makes a new active segment.
func (o *opening) create(first storage.Position) (err error) {
	o.l.keep.l = o.l
	o.l.tip.pos = first - 1
	o.l.active, err = o.l.begin(first)
	return err
}

// adopt lets the last segment be written on.
func (o *opening) adopt(c *oldSegment) error {
	l := o.l
	opts := segmentFileOptions(l.opts, l.latch)
	opts.unchecked = true
	fd := c.fd
	c.fd = nil
	f, err := openBolt(fd, c.path, opts)
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	l.active = newActive(c.first, c.path, f, max(c.p.size, int64(c.p.meta.high)*pageSize))
	l.marked = c.mark
	l.segments = append(l.segments, l.active)
	l.active.searched.Store(c.v.flawed())
	l.report(c.v.damage(c.path)...)
	return nil
}

// keepSealed adds a segment that is only read, after it was replaced by a new file if it is damaged.
func (o *opening) keepSealed(c *oldSegment, f segmentFindings, next link) error {
	if c.bad != nil {
		if f.groups == nil {
			f = c.rescue(next)
		}
		if err := o.replace(c, f); err != nil {
			return err
		}
	}
	if size := int64(c.p.meta.high) * pageSize; size < c.p.size {
		if err := c.fd.Truncate(size); err != nil {
			return openError(err)
		}
		c.p.size = size
	}
	s, err := newSealed(c.first, c.path, c.fd, c.p)
	if err != nil {
		return fmt.Errorf("%s: %w", c.path, err)
	}
	c.fd = nil
	o.l.segments = append(o.l.segments, s)
	o.l.report(c.v.damage(c.path)...)
	s.searched.Store(c.v.flawed())
	if !c.read {
		o.unread = append(o.unread, s)
	}
	return nil
}

// rescue searches the damaged file.
func (c *oldSegment) rescue(next link) segmentFindings {
	p, err := pagesToRescue(c.fd)
	if err != nil {
		return segmentFindings{}
	}
	return rescueGroups(p, c.first, next)
}

// holes reports what is missing between the segments.
func (o *opening) holes() {
	ends := make(map[storage.Position]storage.Position)
	for _, c := range o.files {
		ends[c.first] = max(c.v.end.pos, c.first-1)
	}
	for i, s := range o.l.segments[:len(o.l.segments)-1] {
		if next := o.l.segments[i+1].first; ends[s.first] != next-1 {
			o.l.report(Damage{File: s.path, What: "groups are missing at its end", From: uint64(ends[s.first] + 1), To: uint64(next - 1)})
		}
	}
}

// giveUp closes what was opened.
func (o *opening) giveUp() (err error) {
	for _, c := range o.files {
		if c.fd != nil {
			err = errors.Join(err, c.fd.Close())
		}
	}
	for _, s := range o.l.segments {
		err = errors.Join(err, s.close())
	}
	return err
}
