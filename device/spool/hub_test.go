package spool_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/spool"
)

// key is what the hub tells duplicates by.
type key struct {
	stream string
	seq    uint64
}

// hub is what a correct hub remembers: each (stream, seq) once, in the order of arrival.
type hub struct {
	stored map[key]string
	order  []key
	acked  map[string]uint64
	gaps   []device.Gap
	limit  int // records taken in one run, 0 for all
}

func newHub() *hub { return &hub{stored: map[key]string{}, acked: map[string]uint64{}} }

func (h *hub) clone() *hub {
	c := newHub()
	for k, v := range h.stored {
		c.stored[k] = v
	}
	for k, v := range h.acked {
		c.acked[k] = v
	}
	c.order, c.gaps = append(c.order, h.order...), append(c.gaps, h.gaps...)
	return c
}

// take stores a record and returns what is wrong with it, if anything is.
func (h *hub) take(stream string, rec spool.Record) error {
	k := key{stream, rec.Seq}
	text := string(rec.Body)
	if rec.Kind == spool.Gap {
		text = fmt.Sprintf("gap %+v", rec.Gap)
	} else if want := fmt.Sprintf("context %d", contextOf(rec.Body)); string(rec.Context) != want {
		return fmt.Errorf("record %v came with context %q, want %q", k, rec.Context, want)
	}
	if old, dup := h.stored[k]; dup {
		if old != text {
			return fmt.Errorf("%v was %q and is now %q: the number was used twice", k, old, text)
		}
		return nil
	}
	h.stored[k] = text
	h.order = append(h.order, k)
	if rec.Kind == spool.Gap {
		h.gaps = append(h.gaps, rec.Gap)
	}
	h.acked[stream] = max(h.acked[stream], rec.Seq)
	return nil
}

// drain delivers what can be delivered and acknowledges it.
func (h *hub) drain(s *spool.Spool) error {
	for range 1000 {
		out := s.Outgoing()
		ack, known := h.acked[out.Stream]
		if !known {
			ack = out.Have - 1
		}
		r, err := s.Resume(out.Stream, ack)
		if errors.Is(err, spool.ErrForked) {
			continue
		}
		if err != nil {
			return err
		}
		more, err := h.run(s, r, out.Stream)
		if err != nil || !more {
			return err
		}
	}
	return errors.New("the spool has one more stream for ever")
}

// drainAll goes on until nothing waits: reading can find damage, and its report waits for the next sync.
func (h *hub) drainAll(s *spool.Spool) error {
	for range 5 {
		if err := s.Sync(); err != nil {
			return err
		}
		if err := h.drain(s); err != nil {
			return err
		}
		if s.Status().Waiting == 0 {
			return nil
		}
	}
	return fmt.Errorf("%d batches still wait", s.Status().Waiting)
}

func (h *hub) run(s *spool.Spool, r *spool.Reader, stream string) (more bool, err error) {
	for n := 0; h.limit == 0 || n < h.limit; n++ {
		rec, ok, err := r.Next()
		if errors.Is(err, io.EOF) {
			return true, nil
		}
		if err != nil || !ok {
			return false, err
		}
		if !r.Sending() {
			return false, errors.New("the record that came is not to be sent")
		}
		if err := h.take(stream, rec); err != nil {
			return false, err
		}
		if err := s.Ack(stream, h.acked[stream]); err != nil {
			return false, err
		}
	}
	return false, nil
}

// bodies returns the data bodies in the order of arrival.
func (h *hub) bodies() (ids []uint64) {
	for _, k := range h.order {
		if b := h.stored[k]; len(b) < 4 || b[:4] != "gap " {
			ids = append(ids, idOf([]byte(b)))
		}
	}
	return ids
}

// contextSpan is how many bodies share a context.
const contextSpan = 7

// body makes the data body with this id; its length varies with the id.
func body(id uint64) []byte {
	b := binary.LittleEndian.AppendUint64(nil, id)
	for i := range id * 37 % 180 {
		b = append(b, byte(id*31+i))
	}
	return b
}

func idOf(b []byte) uint64 { return binary.LittleEndian.Uint64(b) }

func contextOf(b []byte) uint64 { return idOf(b) / contextSpan }

// entryOf makes the entry with this id: 3 readings, one second a record.
func entryOf(id uint64) spool.Entry {
	return spool.Entry{Count: 3, FromMS: int64(id) * 1000, ToMS: int64(id)*1000 + 900, Body: body(id)}
}

func add(s *spool.Spool, id uint64) error {
	if err := s.SetContext(fmt.Appendf(nil, "context %d", id/contextSpan)); err != nil {
		return err
	}
	return s.Append(entryOf(id))
}

func mustContext(t *testing.T, s *spool.Spool, id uint64) {
	t.Helper()
	if err := s.SetContext(fmt.Appendf(nil, "context %d", id/contextSpan)); err != nil {
		t.Fatal(err)
	}
}

func mustAdd(t *testing.T, s *spool.Spool, from, to uint64) {
	t.Helper()
	for id := from; id <= to; id++ {
		if err := add(s, id); err != nil {
			t.Fatalf("append %d: %v", id, err)
		}
	}
}

func mustDrain(t *testing.T, s *spool.Spool, h *hub) {
	t.Helper()
	if err := s.Sync(); err != nil {
		t.Fatalf("sync: %v", err)
	}
	if err := h.drain(s); err != nil {
		t.Fatalf("drain: %v", err)
	}
}

func open(t *testing.T, d *disk, o spool.Options) *spool.Spool {
	t.Helper()
	s, err := spool.Open("", o.WithFS(d))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func wantIDs(t *testing.T, got []uint64, from, to uint64) {
	t.Helper()
	for i, id := range got {
		if id != from+uint64(i) {
			t.Fatalf("record %d is %d, want %d (all: %v)", i, id, from+uint64(i), got)
		}
	}
	if want := to - from + 1; uint64(len(got)) != want {
		t.Fatalf("%d records came, want %d: %v", len(got), want, got)
	}
}

var small = spool.Options{SegmentBytes: 4096, MaxBytes: 1 << 20, MinFree: -1}
