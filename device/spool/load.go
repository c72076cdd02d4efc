package spool

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// diskFault reports whether err says that the disk cannot be written, rather than that the folder is the wrong one.
func diskFault(err error) bool {
	for _, e := range []error{syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// load reads the folder and decides where to go on. It runs before anybody else knows the spool.
func (s *Spool) load() error {
	names, err := s.fs.List()
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	segs, err := openSegments(s.fs, names)
	if err != nil {
		return err
	}
	st, err := readState(s.fs, names)
	if errors.Is(err, ErrNewerFormat) {
		return err
	}
	if err != nil || (st == nil && len(segs) > 0) {
		s.log.Warn("spool state is missing or damaged: batches that are still here may be stored twice by the hub", "err", err)
		st = nil
	}
	for _, name := range names {
		if strings.HasSuffix(name, tempSuffix) {
			_ = s.fs.Remove(name) // it only takes room; the next open tries again
		}
	}
	if st == nil {
		if st, err = s.freshState(segs); err != nil {
			return err
		}
	}
	s.x.segments = segs
	s.x.head, s.x.sent = st.Head, st.Sent
	s.x.streams, s.x.known = st.Streams, st.Known
	// Head and stream can be ahead of the disk if the last run was in RAM mode. No position is given twice.
	s.x.next = max(st.Next, st.Head, st.Streams[len(st.Streams)-1].First)
	return s.resume(st)
}

// freshState is the state of a folder without one.
func (s *Spool) freshState(segs []segment) (*state, error) {
	id, err := s.newStream()
	if err != nil {
		return nil, err
	}
	first := uint64(1)
	if len(segs) > 0 {
		first = segs[0].first
	}
	return &state{Head: first, Sent: first, Next: first, Clean: len(segs) == 0, Streams: []stream{{ID: id, First: first}}}, nil
}

// resume finds the end of the log, takes a new stream unless the old one may go on, and makes that decision durable.
func (s *Spool) resume(st *state) error {
	exact, last, err := s.recoverTail(st.Next)
	if err != nil {
		return err
	}
	s.x.durable = s.x.next
	fault := s.settle(exact)
	// From here on another open must not believe the clean mark. If that cannot be written down, the stream must not go on.
	clean := st.Clean && exact && fault == nil
	if clean {
		fault = s.saveState(false)
	}
	if !clean || fault != nil {
		if err := s.takeNewStream(); err != nil {
			return err
		}
		if fault == nil {
			fault = s.saveState(false)
		}
	}
	if fault != nil {
		s.log.Warn("spool cannot be written, keeping new data in memory", "err", fault)
		s.x.fault = fault
		return nil
	}
	if err := s.trim(); err != nil {
		s.log.Warn("spool segments that are acknowledged cannot be removed", "err", err)
	}
	if clean && last != nil {
		s.reuse(last)
	}
	return nil
}

// takeNewStream gives new records a new stream. Everything that is there counts as handed out.
func (s *Spool) takeNewStream() error {
	id, err := s.newStream()
	if err != nil {
		return err
	}
	s.x.fork(id, s.x.next)
	s.x.sent = s.x.next
	return nil
}

// recoverTail reads the newest segment, cuts a torn tail and finds the next position. exact is false if the log does not end
// where the state said. last is the segment as far as it is sound, nil if there is none to go on with.
func (s *Spool) recoverTail(stated uint64) (exact bool, last *writer, err error) {
	if len(s.x.segments) == 0 {
		return true, nil, nil // if the state knows better, the positions are missing and will be reported
	}
	i := len(s.x.segments) - 1
	seg := &s.x.segments[i]
	f, err := s.fs.Open(seg.name, false)
	if err != nil {
		return false, nil, fmt.Errorf("segment %s: %w", seg.name, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sc := newScanner(f, *seg, maxPosition)
	end, ctx := seg.first, uint64(0)
	var dropped *loss
	for {
		h, body, ok := sc.next()
		if !ok {
			break
		}
		if h.kind == declare {
			s.x.learn(h.ctx, body)
			ctx = h.ctx
			continue
		}
		end = h.pos + 1
		if l, ok := decodeLoss(body); ok && h.kind == Gap && l.cause == droppedCause {
			dropped = &l
		}
	}
	if dropped != nil && dropped.first <= s.x.head && s.x.head <= dropped.last {
		s.x.head = dropped.last + 1 // the crash came between the gap record and the removal
	}
	torn := sc.good < seg.size && sc.err == nil
	if torn {
		s.log.Info("spool has a torn tail, cut", "segment", seg.name, "bytes", seg.size-sc.good)
		seg.size = max(sc.good, 0)
	}
	s.x.next = max(s.x.next, end, s.x.head)
	w := &writer{fs: s.fs, seg: *seg, synced: seg.size, ctx: ctx, named: true}
	return end == stated && !torn, w, nil
}

// settle makes what recoverTail found durable: pages that only the page cache holds must be on disk before they are sent.
func (s *Spool) settle(exact bool) error {
	if exact || len(s.x.segments) == 0 {
		return nil
	}
	seg := s.x.segments[len(s.x.segments)-1]
	f, err := s.fs.Open(seg.name, true)
	if err != nil {
		return fmt.Errorf("open spool segment: %w", err)
	}
	size, err := f.Size()
	if err == nil && size > seg.size {
		err = f.Truncate(seg.size)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("settle spool segment: %w", err)
	}
	return s.fs.SyncDir()
}

// reuse goes on in the newest segment, if there is room in it and it was not removed.
func (s *Spool) reuse(w *writer) {
	at := slices.IndexFunc(s.x.segments, func(seg segment) bool { return seg.name == w.seg.name })
	if at < 0 || w.seg.size < segmentHeader || w.seg.size >= s.opts.SegmentBytes {
		return
	}
	f, err := s.fs.Open(w.seg.name, true)
	if err != nil {
		return // a new segment is as good
	}
	w.f = f
	s.active = w
}
