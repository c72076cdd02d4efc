package spool

import (
	"errors"
	"io"

	"telemetryhub/device"
)

// ErrStale means that a newer Reader took over.
var ErrStale = errors.New("another reader took over")

// Record is one batch or gap on its way out.
type Record struct {
	Kind Kind
	// Seq is its number in the stream.
	Seq uint64
	// Count, FromMS and ToMS are those of the Entry. They are zero for a gap.
	Count        uint32
	FromMS, ToMS int64
	// Context is what SetContext said when the entry was appended, nil for a gap. Equal contexts have equal ContextIDs.
	Context   []byte
	ContextID uint64
	// Body is that of the Entry, nil for a gap. It is valid until the following call of Next.
	Body []byte
	// Gap is set for a gap. Its sequence numbers are those of this stream, or zero if they are unknown or belong to another.
	Gap device.Gap
}

// Reader hands out the records of one stream, oldest first.
type Reader struct {
	s          *Spool
	first, end uint64 // positions of the stream
	pos        uint64 // the next to be handed out

	f      file
	name   string
	sc     *scanner
	lastMS int64 // the end of the record before, 0 at first
	// The context of the record that is read, which the spool may forget meanwhile.
	ctxID uint64
	ctx   []byte
}

// Next returns the next record; call Sending before it is sent. ok is false if there is none for now: wait for Spool.Ready. At the end of a stream that
// takes no more records the error is io.EOF. ErrStale and ErrClosed end the Reader, and so does any other error.
func (r *Reader) Next() (rec Record, ok bool, err error) {
	for {
		v, err := r.look()
		if err != nil || v.limit <= r.pos {
			r.Close()
			return Record{}, false, err
		}
		if v.entry != nil {
			r.Close()
			if rec, ok := r.take(v.entry.header, v.entry.body); ok {
				return rec, true, nil
			}
			continue
		}
		h, body, missing := r.seek(v)
		if missing > r.pos {
			r.miss(missing, h)
			continue
		}
		if rec, ok := r.take(h, body); ok {
			return rec, true, nil
		}
	}
}

// view is where the next record stands.
type view struct {
	limit uint64 // positions below may be handed out
	entry *entry // in memory
	seg   segment
	// from and to bound the positions that seg can hold. Positions before from are missing.
	from, to uint64
}

func (r *Reader) look() (v view, err error) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader != r {
		if s.reader == nil {
			return v, ErrClosed
		}
		return v, ErrStale
	}
	x := &s.x
	r.pos = max(r.pos, x.head) // what was dropped meanwhile is not sent
	if r.pos >= r.end {
		return v, io.EOF
	}
	v.limit = min(x.readable(), r.end)
	if v.limit <= r.pos {
		return v, nil
	}
	i := x.segmentFor(r.pos)
	if i >= 0 && r.pos >= x.segmentEnd(i) || i < 0 && len(x.segments) > 0 {
		i++ // between two segments: the next one tells how much is missing
	}
	if i >= 0 && i < len(x.segments) {
		v.seg, v.from, v.to = x.segments[i], x.segments[i].first, x.segmentEnd(i)
		return v, nil
	}
	if e := x.tail.at(r.pos); e != nil {
		copied := *e
		v.entry = &copied
		r.ctxID, r.ctx = e.ctx, x.contexts[e.ctx]
		return v, nil
	}
	v.from = v.limit
	if x.tail.len() > 0 && x.tail.first() > r.pos {
		v.from = min(v.limit, x.tail.first())
	}
	v.to = v.from
	return v, nil
}

// seek finds the record at r.pos. If it is missing, missing is the first position behind r.pos that is not; h is then the
// record there if one was found.
func (r *Reader) seek(v view) (h header, body []byte, missing uint64) {
	if v.from > r.pos {
		return h, nil, min(v.from, v.limit)
	}
	if err := r.open(v); err != nil {
		r.s.log.Warn("spool segment cannot be read", "segment", v.seg.name, "err", err)
		return h, nil, min(v.to, v.limit)
	}
	for {
		h, body, ok := r.sc.next()
		if !ok {
			r.Close() // the next look begins at the start of the segment that holds it
			return header{}, nil, min(v.to, v.limit)
		}
		if h.kind == declare {
			r.ctxID, r.ctx = h.ctx, r.s.learn(h.ctx, body)
			continue
		}
		if h.pos < r.pos {
			if h.kind == Data {
				r.lastMS = h.to()
			}
			continue
		}
		if h.pos > r.pos {
			r.Close()
			return h, nil, min(h.pos, v.limit)
		}
		if h.kind == Data && h.ctx != 0 && (h.ctx != r.ctxID || r.ctx == nil) {
			if r.ctxID, r.ctx = h.ctx, r.s.context(h.ctx); r.ctx == nil {
				return header{}, nil, h.pos + 1
			}
		}
		return h, body, 0
	}
}

// open makes the scanner stand in v.seg, as far as it is written.
func (r *Reader) open(v view) error {
	if r.name != v.seg.name {
		r.Close()
		f, err := r.s.fs.Open(v.seg.name, false)
		if err != nil {
			return err
		}
		r.f, r.name, r.sc = f, v.seg.name, newScanner(f, v.seg, v.to)
	}
	r.sc.size, r.sc.high = v.seg.size, v.to
	return nil
}

// Close lets go of the file that is being read. It is not called at the same time as Next, which may follow.
func (r *Reader) Close() {
	if r.f != nil {
		_ = r.f.Close() // it was only read
	}
	r.f, r.name, r.sc = nil, "", nil
}

// miss reports that the positions from r.pos to before next are gone, and goes on behind them. h is the record there, if any.
func (r *Reader) miss(next uint64, h header) {
	s := r.s
	s.w.Lock()
	defer s.w.Unlock()
	s.mu.Lock()
	var fresh []span
	if from := max(r.pos, s.x.head); from < next { // what was dropped meanwhile is reported already
		fresh = s.x.unknown(from, next-1)
	}
	s.x.advance(s.x.head)
	s.mu.Unlock()
	r.pos = next
	if s.closed {
		return
	}
	l := loss{cause: device.CauseDamaged}
	if h.kind == Data && r.lastMS != 0 {
		l.from, l.to = min(r.lastMS, h.from), max(r.lastMS, h.from)
	}
	for _, m := range fresh {
		l.first, l.last = m[0], m[1]
		s.log.Warn("spool has damage, batches are missing", "batches", l.last-l.first+1)
		s.push(header{kind: Gap}, l.encode())
	}
}

// take hands the record out. ok is false if a newer Reader took over meanwhile or the record is not a record after all.
func (r *Reader) take(h header, body []byte) (rec Record, ok bool) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader != r || r.pos < s.x.head {
		return rec, false // look says why
	}
	rec = Record{Kind: h.kind, Seq: h.pos - r.first + 1}
	if h.kind == Gap {
		l, ok := decodeLoss(body)
		if !ok {
			l = loss{cause: device.CauseOther} // from a version that says more; that something was lost still counts
		}
		rec.Gap = device.Gap{Seq: rec.Seq, Count: l.count, FromMS: l.from, ToMS: l.to, Cause: l.cause}
		if l.first >= r.first && l.last < r.end {
			rec.Gap.FromSeq, rec.Gap.ToSeq = l.first-r.first+1, l.last-r.first+1
		}
	} else {
		rec.Count, rec.FromMS, rec.ToMS = h.count, h.from, h.to()
		rec.ContextID, rec.Body = h.ctx, body
		if h.ctx != 0 {
			rec.Context = r.ctx
		}
		r.lastMS = rec.ToMS
	}
	r.pos = h.pos + 1
	return rec, true
}

// Sending must be called before the record that Next returned last leaves the process: from then on its number is used, and
// may be acknowledged. It reports false if the record must not be sent, because it was dropped meanwhile or the Reader has
// ended; Next says more.
func (r *Reader) Sending() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if r.s.reader != r || r.pos <= r.s.x.head {
		return false
	}
	r.s.x.sent = max(r.s.x.sent, r.pos)
	return true
}

// learn remembers a context and returns it, nil if the body is not the one that id names.
func (s *Spool) learn(id uint64, body []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.x.learn(id, body)
	return s.x.contexts[id]
}

// context returns the context with this name, looking through all segments if need be, or nil.
func (s *Spool) context(id uint64) []byte {
	s.mu.Lock()
	body, segs := s.x.contexts[id], append([]segment(nil), s.x.segments...)
	s.mu.Unlock()
	for i := 0; body == nil && i < len(segs); i++ {
		body = s.learnFrom(segs[i], id)
	}
	return body
}

// learnFrom reads the contexts of one segment and returns the one with this name, nil if it is not there.
func (s *Spool) learnFrom(seg segment, id uint64) (found []byte) {
	f, err := s.fs.Open(seg.name, false)
	if err != nil {
		return nil // it may have been removed meanwhile
	}
	defer func() { _ = f.Close() }() // it was only read
	for sc := newScanner(f, seg, maxPosition); ; {
		h, body, ok := sc.next()
		if !ok {
			return found
		}
		if h.kind == declare {
			if known := s.learn(h.ctx, body); h.ctx == id {
				found = known
			}
		}
	}
}
