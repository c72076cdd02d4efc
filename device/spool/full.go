package spool

import (
	"errors"
	"fmt"
	"io/fs"

	"telemetryhub/device"
)

// droppedCause marks the gap records that stand for dropped segments.
const droppedCause = device.CauseSpoolFull

var errLowDisk = errors.New("less disk space is free than MinFree")

// makeRoom gets n bytes ready to be appended, or returns ErrFull or ErrClosed. The caller holds s.w.
func (s *Spool) makeRoom(n int64) error {
	if s.closed {
		return ErrClosed
	}
	s.mu.Lock()
	n += headerSize + int64(len(s.x.contexts[s.x.ctx])) // it may have to be declared again
	s.mu.Unlock()
	if n > s.opts.MaxBytes/2 {
		return fmt.Errorf("entry of %d bytes in a spool of %d: %w", n, s.opts.MaxBytes, ErrTooLarge)
	}
	for {
		s.mu.Lock()
		disk, mem, fault := s.x.diskBytes(), s.x.tail.bytes, s.x.fault
		s.mu.Unlock()
		if fault != nil {
			if s.opts.Full == Refuse && mem+n > s.opts.RAMBytes {
				return fmt.Errorf("%d bytes wait in memory: %w", mem, ErrFull)
			}
			return nil // push drops the oldest
		}
		if disk+n+segmentHeader <= s.opts.MaxBytes {
			if err := s.checkFreeBefore(n); err != nil {
				s.enterRAM(err)
				continue
			}
			return nil
		}
		if err := errors.Join(s.syncLocked(), s.trim()); err != nil {
			s.enterRAM(err)
			continue
		}
		s.mu.Lock()
		trimmed := s.x.diskBytes() < disk
		s.mu.Unlock()
		if trimmed {
			continue
		}
		if err := s.makeDiskRoom(disk); err != nil {
			return err
		}
	}
}

// makeDiskRoom frees at least one segment.
func (s *Spool) makeDiskRoom(disk int64) error {
	s.mu.Lock()
	acked := s.x.head == s.x.next
	s.mu.Unlock()
	if s.opts.Full == Refuse && !acked {
		return fmt.Errorf("%d bytes wait on disk: %w", disk, ErrFull)
	}
	if err := s.dropOldest(); err != nil {
		s.enterRAM(err)
	}
	return nil
}

// trim removes the segments that are wholly acknowledged or dropped, except the active one. The caller holds s.w.
func (s *Spool) trim() error {
	s.mu.Lock()
	var done []segment
	for i, seg := range s.x.segments {
		if s.x.segmentEnd(i) > s.x.head || (s.active != nil && seg.name == s.active.seg.name) {
			break
		}
		done = append(done, seg)
	}
	s.mu.Unlock()
	if len(done) == 0 {
		return nil
	}
	// The saved head must not be behind what is gone, or the missing positions would be taken for damage.
	if err := s.saveState(false); err != nil {
		return err
	}
	for _, seg := range done {
		if err := s.remove(seg); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes the oldest segment.
func (s *Spool) remove(seg segment) error {
	if err := s.fs.Remove(seg.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove spool segment: %w", err)
	}
	s.mu.Lock()
	s.x.segments = s.x.segments[1:]
	s.mu.Unlock()
	return nil
}

// dropOldest gives up the oldest segment and reports it. The caller holds s.w and the spool is not in RAM mode. It returns an
// error if the disk failed; the segment is given up all the same.
func (s *Spool) dropOldest() error {
	s.mu.Lock()
	oldestIsActive := s.active != nil && len(s.x.segments) == 1
	s.mu.Unlock()
	if oldestIsActive {
		if err := s.roll(); err != nil {
			return err
		}
	}
	if err := s.syncLocked(); err != nil {
		return err
	}
	s.mu.Lock()
	if len(s.x.segments) == 0 {
		s.mu.Unlock()
		return nil
	}
	seg, head, end := s.x.segments[0], s.x.head, s.x.segmentEnd(0)
	s.mu.Unlock()
	l := loss{first: max(head, seg.first), last: end - 1, cause: droppedCause}
	if l.first > l.last {
		return s.trim()
	}
	s.sum(seg, &l)
	s.mu.Lock()
	s.x.advance(end)
	s.lost += l.count
	s.mu.Unlock()
	s.log.Warn("spool full, oldest batches dropped", "batches", l.last-l.first+1, "readings", l.count)
	s.push(header{kind: Gap}, l.encode())
	if err := s.syncLocked(); err != nil {
		return err
	}
	return s.trim()
}

// sum adds up the records of seg that l covers, as far as they can be read.
func (s *Spool) sum(seg segment, l *loss) {
	f, err := s.fs.Open(seg.name, false)
	if err != nil {
		return // the range is known, the count stays zero: unknown
	}
	defer func() { _ = f.Close() }() // it was only read
	sc := newScanner(f, seg, l.last+1)
	first := l.first
	for {
		h, body, ok := sc.next()
		if !ok {
			return
		}
		if h.kind != declare && h.pos >= first {
			l.add(h, body)
		}
	}
}

// dropAged drops segments whose newest reading is too old.
func (s *Spool) dropAged() error {
	if s.opts.MaxAge == 0 {
		return nil
	}
	for {
		s.mu.Lock()
		if len(s.x.segments) < 2 {
			s.mu.Unlock()
			return nil
		}
		oldest := s.x.segments[0]
		s.mu.Unlock()
		if s.oldest != oldest.name {
			l := loss{first: oldest.first, last: maxPosition - 1}
			s.sum(oldest, &l)
			s.oldest, s.oldestTo = oldest.name, l.to
		}
		if s.oldestTo == 0 || s.newest-s.oldestTo <= s.opts.MaxAge.Milliseconds() {
			return nil
		}
		if err := s.dropOldest(); err != nil {
			return err
		}
	}
}

// checkFreeBefore looks at the free space when n more bytes begin a new segment.
func (s *Spool) checkFreeBefore(n int64) error {
	if s.active != nil && s.active.seg.size+n <= s.opts.SegmentBytes {
		return nil
	}
	return s.checkFree()
}

// checkFree keeps MinFree bytes of the disk free by dropping old segments. It returns an error if that is not enough.
func (s *Spool) checkFree() error {
	if s.opts.MinFree < 0 {
		return nil
	}
	for {
		free, err := s.fs.Free()
		if err != nil {
			return nil // unknown: if there is none, the next write says so
		}
		if free >= s.opts.MinFree {
			return nil
		}
		if err := s.trim(); err != nil {
			return err
		}
		s.mu.Lock()
		spare := len(s.x.segments) > 1 && s.x.fault == nil
		s.mu.Unlock()
		if !spare || s.opts.Full == Refuse {
			return fmt.Errorf("%d bytes free, %d wanted: %w", free, s.opts.MinFree, errLowDisk)
		}
		if err := s.dropOldest(); err != nil {
			return err
		}
	}
}
