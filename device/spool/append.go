package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"telemetryhub/device"
)

// Entry is one batch to keep.
type Entry struct {
	// Count is the number of readings, for the report if they must be dropped.
	Count uint32
	// FromMS and ToMS are the times of the first and the last reading in Unix milliseconds, at most MaxSpan apart.
	FromMS, ToMS int64
	// Body is what the Reader gives back, at most MaxBody bytes. It is copied.
	Body []byte
}

// SetContext declares what is needed to read the entries that are appended from now on. It comes back with each Record.
// Declaring the same bytes again does nothing. It does no I/O; body is copied.
func (s *Spool) SetContext(body []byte) error {
	if len(body) > MaxBody {
		return fmt.Errorf("context of %d bytes: %w", len(body), ErrTooLarge)
	}
	id := contextID(body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.x.learn(id, body)
	s.x.ctx = id
	return nil
}

// Append adds an entry at the end. It can wait for the disk, as long as a sync takes. It is durable after the next Sync; see SyncEvery. A failing disk is no error, it puts the
// spool in RAM mode. Errors wrap ErrFull, ErrTooLarge or ErrClosed, and then nothing was appended.
func (s *Spool) Append(e Entry) error {
	span := e.ToMS - e.FromMS
	if len(e.Body) > MaxBody || span < 0 || span > MaxSpan.Milliseconds() {
		return fmt.Errorf("entry of %d bytes over %d ms: %w", len(e.Body), span, ErrTooLarge)
	}
	s.w.Lock()
	defer s.w.Unlock()
	if err := s.makeRoom(headerSize + int64(len(e.Body))); err != nil {
		return err
	}
	s.push(header{kind: Data, from: e.FromMS, span: uint32(span), count: e.Count}, append([]byte(nil), e.Body...))
	return nil
}

// AppendGap adds a loss that the caller knows of. The sequence numbers of g are ignored. Errors are those of Append.
func (s *Spool) AppendGap(g device.Gap) error {
	s.w.Lock()
	defer s.w.Unlock()
	l := loss{count: g.Count, from: g.FromMS, to: g.ToMS, cause: g.Cause}
	body := l.encode()
	if len(body) > gapSize+maxCause {
		return fmt.Errorf("cause of %d bytes: %w", len(g.Cause), ErrTooLarge)
	}
	if err := s.makeRoom(headerSize + int64(len(body))); err != nil {
		return err
	}
	s.push(header{kind: Gap}, body)
	return nil
}

// push gives the record a position and keeps it, on disk if that works. The caller holds s.w.
func (s *Spool) push(h header, body []byte) {
	s.mu.Lock()
	h.pos = s.x.next
	s.x.next++
	if h.kind == Data {
		h.ctx = s.x.ctx
	}
	s.newest = max(s.newest, h.to())
	e := entry{header: h, body: body}
	s.x.tail.push(e)
	ram := s.x.fault != nil
	s.mu.Unlock()
	if ram {
		s.limitRAM()
		s.signal()
		return
	}
	if err := s.writeEntry(&e); err != nil {
		s.enterRAM(err)
		return
	}
	if s.opts.SyncEvery < 0 || s.active.seg.size-s.active.synced >= s.opts.SyncBytes {
		_ = s.syncLocked() // a failure has put the spool in RAM mode, where the record is still to be had
	}
}

// writeEntry writes to the active segment, and starts a new one when it is full.
func (s *Spool) writeEntry(e *entry) error {
	if s.active != nil && s.active.seg.size+e.size() > s.opts.SegmentBytes && s.active.seg.size > segmentHeader {
		if err := s.roll(); err != nil {
			return err
		}
	}
	if s.active == nil {
		w, err := s.newSegment(e.pos)
		if err != nil {
			return err
		}
		s.active = w
		s.mu.Lock()
		s.x.segments = append(s.x.segments, w.seg)
		s.mu.Unlock()
	}
	err := s.put(s.active, e)
	s.mu.Lock()
	s.x.segments[len(s.x.segments)-1].size = s.active.seg.size
	s.mu.Unlock()
	return err
}

func (s *Spool) newSegment(first uint64) (*writer, error) {
	var nonce [8]byte
	if _, err := io.ReadFull(s.opts.Rand, nonce[:]); err != nil {
		return nil, fmt.Errorf("random nonce: %w", err)
	}
	seg := segment{first: first, nonce: binary.LittleEndian.Uint64(nonce[:])}
	seg.name = segmentName(seg.first, seg.nonce)
	w, err := createSegment(s.fs, seg)
	if err != nil {
		s.litter = append(s.litter, seg.name)
	}
	return w, err
}

// put writes one record to w, with its context before it if that is new to the segment.
func (s *Spool) put(w *writer, e *entry) error {
	seed := seedOf(w.seg.nonce)
	s.scratch = s.scratch[:0]
	if e.kind == Data && e.ctx != w.ctx {
		s.mu.Lock()
		body := s.x.contexts[e.ctx]
		s.mu.Unlock()
		s.scratch = appendRecord(s.scratch, seed, header{kind: declare, pos: e.pos, ctx: e.ctx}, body)
	}
	s.scratch = appendRecord(s.scratch, seed, e.header, e.body)
	if err := w.write(s.scratch); err != nil {
		return err
	}
	if e.kind == Data {
		w.ctx = e.ctx
	}
	return nil
}

// roll finishes the active segment. Only the newest segment ever holds bytes that are not durable.
func (s *Spool) roll() error {
	if err := s.active.sync(); err != nil {
		return err
	}
	_ = s.active.f.Close() // all of it is synced, so there is nothing left to fail
	s.active = nil
	return nil
}

// Sync makes everything that was appended durable. In RAM mode it tries to go back to the disk, and returns why it could not.
func (s *Spool) Sync() error {
	s.w.Lock()
	defer s.w.Unlock()
	if s.closed {
		return ErrClosed
	}
	return errors.Join(s.syncLocked(), s.tidy())
}

// syncLocked needs s.w.
func (s *Spool) syncLocked() error {
	if s.fs == nil {
		return nil
	}
	s.mu.Lock()
	fault := s.x.fault
	s.mu.Unlock()
	if fault != nil {
		return s.leaveRAM()
	}
	if s.active == nil {
		return nil
	}
	if err := s.active.sync(); err != nil {
		s.enterRAM(err)
		return err
	}
	s.mu.Lock()
	news := s.x.durable < s.x.next
	s.x.durable = s.x.next
	s.x.tail.popBefore(s.x.next)
	s.mu.Unlock()
	if news {
		s.signal()
	}
	return nil
}

// tidy does what is due beside appending: limits, deletion, saving the head. The caller holds s.w.
func (s *Spool) tidy() error {
	s.mu.Lock()
	head, fault := s.x.head, s.x.fault
	s.mu.Unlock()
	if s.fs == nil || fault != nil {
		return nil
	}
	s.sweep()
	err := errors.Join(s.trim(), s.dropAged())
	if free := s.checkFree(); free != nil {
		s.enterRAM(free)
		return errors.Join(err, free)
	}
	if head > s.savedHead && time.Since(s.savedAt) >= stateEvery {
		err = errors.Join(err, s.saveState(false))
	}
	return err
}

// Run syncs every SyncEvery until ctx ends. It returns nil; what goes wrong is logged once and shown by Status.
func (s *Spool) Run(ctx context.Context) error {
	every := s.opts.SyncEvery
	if every < 0 {
		every = 5 * time.Second // for RAM mode and the limits
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var said string
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := s.Sync()
		if errors.Is(err, ErrClosed) {
			return nil
		}
		if err == nil {
			said = ""
		} else if said != err.Error() {
			said = err.Error()
			s.log.Warn("spool sync failed, trying again", "err", err)
		}
	}
}
