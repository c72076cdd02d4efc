package bolt

import (
	"errors"
	"fmt"

	"telemetryhub/storage"
)

// openLogReadOnly opens a log for reading alone. Everything is read and checked, since nobody knows how it ended. A segment
// that is damaged is read page by page, as far as it is intact.
func openLogReadOnly(dir string, o LogOptions) (_ *Log, err error) {
	l := &Log{dir: dir, opts: o, latch: new(latch)}
	op := &opening{l: l}
	defer func() {
		if err != nil {
			err = errors.Join(err, op.giveUp())
		}
	}()
	if err := op.list(); err != nil {
		return nil, err
	}
	if len(op.files) == 0 {
		return nil, fmt.Errorf("%s holds no log: %w", dir, storage.ErrNotFound)
	}
	for _, c := range op.files {
		if err := c.open(true); err != nil {
			return nil, err
		}
	}
	if err := op.inspect(false); err != nil {
		return nil, err
	}
	for _, c := range op.files {
		if err := op.show(c); err != nil {
			return nil, fmt.Errorf("%s: %w", c.path, err)
		}
	}
	op.holes()
	last := op.files[len(op.files)-1]
	l.tip = link{pos: max(last.v.end.pos, last.first-1), sum: last.v.end.sum}
	l.last.Store(uint64(l.tip.pos))
	l.first = l.segments[0].first - 1
	return l, nil
}

// show adds a segment as it is.
func (o *opening) show(c *oldSegment) error {
	if c.bad == nil {
		s, err := newSealed(c.first, c.path, c.fd, c.p)
		if err != nil {
			return err
		}
		c.fd = nil
		o.l.segments = append(o.l.segments, s)
		s.searched.Store(c.v.flawed())
		o.l.report(c.v.damage(c.path)...)
		return nil
	}
	found := c.rescue(link{})
	if !found.ours {
		return fmt.Errorf("%w of this program: %w; move it away", errNotBolt, c.bad)
	}
	src, err := openRescued(c.path, c.first)
	if err != nil {
		return err
	}
	s := &segment{first: c.first, path: c.path}
	if info, err := c.fd.Stat(); err == nil { // only for Size
		s.size.Store(info.Size())
	}
	s.use(src)
	_ = c.fd.Close() // only read
	c.fd = nil
	o.l.segments = append(o.l.segments, s)
	c.v.end = link{pos: found.end(c.first)}
	o.l.report(Damage{File: c.path, What: c.bad.Error(), Action: "what is intact is read page by page"})
	return nil
}

func (l *Log) closeReadOnly() (err error) {
	for _, s := range l.segments {
		err = errors.Join(err, s.close())
	}
	return err
}
