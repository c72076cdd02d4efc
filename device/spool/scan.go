package spool

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	scanWindow = 64 << 10
	pageSize   = 4 << 10
)

// scanner finds the sound records of one segment, in order, and steps over damage.
type scanner struct {
	src  io.ReaderAt
	seed uint32
	// size is where the written part ends.
	size int64
	// low and high bound the positions that are believed: low ≤ position < high. low rises with each record.
	low, high uint64

	buf  []byte // the bytes from base on that are in memory
	base int64
	at   int64 // the next record is looked for here
	// good is the end of the last sound record: what stands between it and size is damage, or a torn tail.
	good int64
	err  error // the last read error that was not an end of file
}

func newScanner(src io.ReaderAt, seg segment, high uint64) *scanner {
	return &scanner{src: src, seed: seedOf(seg.nonce), size: seg.size, low: seg.first, high: high,
		at: segmentHeader, good: segmentHeader}
}

// next returns the next sound record. The body is valid until the following call. ok is false at the end.
func (s *scanner) next() (h header, body []byte, ok bool) {
	for s.at+headerSize <= s.size {
		b := s.window(s.at, headerSize)
		if b == nil {
			s.at = (s.at/pageSize + 1) * pageSize // unreadable: try the next page
			continue
		}
		h, n, plausible := parseHeader(b)
		if plausible && h.pos >= s.low && h.pos < s.high && s.at+headerSize+int64(n) <= s.size {
			b = s.window(s.at, headerSize+n)
			if b != nil && sound(s.seed, b) {
				s.at += int64(len(b))
				s.good = s.at
				s.low = h.pos
				if h.kind != declare {
					s.low++
				}
				return h, b[headerSize:], true
			}
		}
		s.at++
		s.skipToMarker()
	}
	return header{}, nil, false
}

// skipToMarker moves on to the next place in memory where a record could begin.
func (s *scanner) skipToMarker() {
	for i := s.at - s.base; i+1 < int64(len(s.buf)); i++ {
		if binary.LittleEndian.Uint16(s.buf[i:]) == marker {
			s.at = s.base + i
			return
		}
	}
	if last := s.base + int64(len(s.buf)) - 1; last > s.at {
		s.at = last
	}
}

// window returns n bytes from offset off, or nil if they cannot be read. n is at most maxRecord.
func (s *scanner) window(off int64, n int) []byte {
	if off >= s.base && off+int64(n) <= s.base+int64(len(s.buf)) {
		return s.buf[off-s.base:][:n]
	}
	want := min(max(int64(n), scanWindow), s.size-off)
	if int64(cap(s.buf)) < want {
		s.buf = make([]byte, want)
	}
	got, err := s.src.ReadAt(s.buf[:want], off)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
		if got < n { // perhaps only a later page is bad
			got, _ = s.src.ReadAt(s.buf[:n], off) // the error is kept already
		}
	}
	s.buf, s.base = s.buf[:got], off
	if got < n {
		return nil
	}
	return s.buf[:n]
}
