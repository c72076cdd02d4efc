package spool

import (
	"errors"
	"fmt"
)

// Outgoing is what the device tells the hub before it sends.
type Outgoing struct {
	// Stream is the stream to be sent now: an old one as long as it has records that are not acknowledged.
	Stream string
	// Have is the sequence of the oldest record of the stream that still exists, or of the oldest that is not acknowledged if
	// that one is missing. Next is the one behind the last record; without records both are equal. In the current stream Next
	// is the next one to be given.
	Have, Next uint64
	// Current is false for a stream that takes no new records.
	Current bool
}

// Outgoing returns what to send next. It changes with acknowledgements and appends.
func (s *Spool) Outgoing() Outgoing {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.x.streamAt(s.x.head)
	st := s.x.streams[i]
	end := min(s.x.end(i), s.x.next)
	have := min(max(min(s.x.floor(), s.x.head), st.First), end)
	return Outgoing{
		Stream: st.ID, Have: have - st.First + 1, Next: end - st.First + 1, Current: i == len(s.x.streams)-1,
	}
}

// Resume takes what the hub has acknowledged of the stream and returns a Reader for the rest of it. Earlier Readers end.
//
// An acknowledgement below what is known already is believed: the hub lost something, and what still exists is sent again.
// ErrForked means that the stream has another user: Outgoing names a new stream now, and the device must introduce itself
// again. ErrStream means that it is not the stream that Outgoing names.
func (s *Spool) Resume(id string, ack uint64) (*Reader, error) {
	s.w.Lock()
	defer s.w.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	s.mu.Lock()
	i := len(s.x.streams) - 1
	for i >= 0 && s.x.streams[i].ID != id {
		i--
	}
	if i < 0 || i > s.x.streamAt(s.x.head) {
		s.mu.Unlock()
		return nil, fmt.Errorf("resume %q: %w", id, ErrStream)
	}
	first, end := s.x.streams[i].First, s.x.end(i)
	pos := first + min(ack, maxPosition) // the first that the hub does not have
	if end == maxPosition && pos > s.x.sent {
		s.mu.Unlock()
		return nil, s.forkAt(id, ack)
	}
	from := pos
	if pos < s.x.head { // go back as far as records exist; if even the head is gone, the Reader reports it
		if from = s.x.head; s.x.floor() < from {
			from = max(pos, s.x.floor())
		}
	}
	from = min(from, end)
	s.x.head = from
	s.x.advance(from)
	r := &Reader{s: s, first: first, end: end, pos: from}
	s.reader = r
	s.mu.Unlock()
	return r, nil
}

// forkAt moves what was never handed out to a new stream. The caller holds s.w.
func (s *Spool) forkAt(id string, ack uint64) error {
	fresh, err := s.newStream()
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.x.fork(fresh, s.x.sent)
	s.x.advance(s.x.sent)
	s.reader = new(Reader) // the old one is stale
	disk := s.fs != nil && s.x.fault == nil
	s.mu.Unlock()
	s.log.Warn("somebody else uses this device's stream (a copied card?), going on with a new one", "stream", id, "ack", ack)
	if disk {
		if err := errors.Join(s.syncLocked(), s.saveState(false)); err != nil {
			s.enterRAM(err)
		}
	}
	return fmt.Errorf("stream %s acknowledged up to %d: %w", id, ack, ErrForked)
}

// Ack takes a cumulative acknowledgement. One that is not above an earlier one changes nothing. ErrAck means that the hub
// acknowledged what was never handed out. It does no I/O.
func (s *Spool) Ack(id string, seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, st := range s.x.streams {
		if st.ID != id {
			continue
		}
		pos := st.First + min(seq, maxPosition)
		if pos > min(s.x.sent, s.x.end(i)) {
			return fmt.Errorf("sequence %d of stream %s: %w", seq, id, ErrAck)
		}
		s.x.advance(pos)
		return nil
	}
	return nil // a stream that is finished
}
