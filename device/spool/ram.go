package spool

import (
	"errors"
	"io/fs"
)

// enterRAM goes on in memory because the disk failed. The caller holds s.w.
func (s *Spool) enterRAM(fault error) {
	s.mu.Lock()
	if s.x.fault != nil {
		s.mu.Unlock()
		return
	}
	s.x.fault = fault
	if s.active != nil { // only what is synced is still believed; the rest is in the tail
		last := len(s.x.segments) - 1
		s.x.segments[last].size = s.active.synced
		if s.active.synced == 0 {
			s.x.segments = s.x.segments[:last]
		}
	}
	s.mu.Unlock()
	s.log.Warn("spool cannot write to disk, keeping new data in memory", "err", fault)
	s.limitRAM()
	s.signal() // what waited for a sync may be sent now
}

// limitRAM drops the oldest quarter when memory is full, and reports it. The caller holds s.w.
func (s *Spool) limitRAM() {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.x.tail
	if t.bytes <= s.opts.RAMBytes {
		return
	}
	l := loss{first: t.first(), cause: droppedCause}
	l.last = l.first
	for t.bytes > s.opts.RAMBytes-s.opts.RAMBytes/4 && t.len() > 1 {
		e := t.pop()
		l.last = max(l.last, e.pos)
		l.add(e.header, e.body)
	}
	s.x.know(span{l.first, l.last})
	s.x.advance(s.x.head)
	s.lost += l.count
	t.push(entry{header: header{kind: Gap, pos: s.x.next}, body: l.encode()})
	s.x.next++
}

// leaveRAM moves the tail to a new segment. It returns why that cannot be done yet. The caller holds s.w.
func (s *Spool) leaveRAM() error {
	s.sweep()
	if err := s.checkFree(); err != nil {
		return err
	}
	if s.active != nil {
		if err := s.active.cut(); err != nil {
			return err
		}
		s.active = nil
	}
	if err := s.saveState(false); err != nil {
		return err
	}
	s.mu.Lock()
	entries := append([]entry(nil), s.x.tail.entries...)
	next := s.x.next
	s.mu.Unlock()
	var w *writer
	if len(entries) > 0 {
		var err error
		if w, err = s.save(entries); err != nil {
			return err
		}
	}
	s.mu.Lock()
	if w != nil {
		s.x.segments = append(s.x.segments, w.seg)
	}
	s.x.fault, s.x.durable = nil, next
	s.x.tail.popBefore(next)
	s.mu.Unlock()
	s.active = w
	s.log.Info("spool writes to disk again")
	s.signal()
	return nil
}

// save writes entries to a new segment and syncs it.
func (s *Spool) save(entries []entry) (*writer, error) {
	w, err := s.newSegment(entries[0].pos)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if err := s.put(w, &entries[i]); err != nil {
			return nil, s.abandon(w, err)
		}
	}
	if err := w.sync(); err != nil {
		return nil, s.abandon(w, err)
	}
	return w, nil
}

// abandon gives up a segment that could not be written, because of err.
func (s *Spool) abandon(w *writer, err error) error {
	_ = w.f.Close() // nobody will read it
	s.litter = append(s.litter, w.seg.name)
	return err
}

// sweep removes the files of segments that were given up; what cannot be removed is tried again.
func (s *Spool) sweep() {
	left := s.litter[:0]
	for _, name := range s.litter {
		if err := s.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			left = append(left, name)
		}
	}
	s.litter = left
}
