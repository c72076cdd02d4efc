package spool

import (
	"maps"
	"slices"
	"sort"
)

// maxKnown limits the remembered spans of missing positions. Beyond it the oldest is forgotten and may be reported twice.
const maxKnown = 64

// maxContexts limits the contexts in memory. Others are read again from the segments when they are needed.
const maxContexts = 16

// index is what the spool knows about its records without reading them. Its methods need Spool.mu.
type index struct {
	segments []segment // on disk, oldest first; the last one may be the active one
	tail     tail      // appended, but not known to be on disk
	streams  []stream  // never empty; the last one is the current one

	head    uint64 // first position that is neither acknowledged nor dropped
	sent    uint64 // first position that was neither handed out nor dropped
	durable uint64 // positions below are on disk
	next    uint64 // the position of the next append

	known    []span // missing, and reported already
	ctx      uint64 // the context of what is appended now
	contexts map[uint64][]byte
	fault    error // why the spool is in RAM mode, nil if it is not
}

// learn remembers a context, unless the body is not the one that id names.
func (x *index) learn(id uint64, body []byte) {
	if _, ok := x.contexts[id]; ok || contextID(body) != id {
		return
	}
	if len(x.contexts) >= maxContexts {
		used := map[uint64]bool{x.ctx: true}
		for _, e := range x.tail.entries {
			used[e.ctx] = true
		}
		maps.DeleteFunc(x.contexts, func(id uint64, _ []byte) bool { return !used[id] })
	}
	x.contexts[id] = slices.Clone(body)
}

// streamAt returns the place of the stream that position p belongs to.
func (x *index) streamAt(p uint64) int {
	return max(0, sort.Search(len(x.streams), func(i int) bool { return x.streams[i].First > p })-1)
}

// end returns the position behind the last one of stream i, or maxPosition if it is the current one.
func (x *index) end(i int) uint64 {
	if i+1 < len(x.streams) {
		return x.streams[i+1].First
	}
	return maxPosition
}

// fork gives all positions from p on to a new stream. Streams that are left without a position vanish.
func (x *index) fork(id string, p uint64) {
	for len(x.streams) > 0 && x.streams[len(x.streams)-1].First >= p {
		x.streams = x.streams[:len(x.streams)-1]
	}
	x.streams = append(slices.Clip(x.streams), stream{ID: id, First: p})
}

// prune forgets what lies wholly before the head.
func (x *index) prune() {
	if i := x.streamAt(x.head); i > 0 {
		x.streams = slices.Clone(x.streams[i:])
	}
	for len(x.known) > 0 && x.known[0][1] < min(x.head, x.floor()) {
		x.known = x.known[1:]
	}
}

// floor returns the first position that is still there to be read.
func (x *index) floor() uint64 {
	floor := x.next
	if len(x.segments) > 0 {
		floor = x.segments[0].first
	} else if x.tail.len() > 0 {
		floor = x.tail.first()
	}
	return max(floor, x.streams[0].First)
}

// readable returns the position behind the last one that may be handed out.
func (x *index) readable() uint64 {
	if x.fault != nil {
		return x.next
	}
	return x.durable
}

// segmentFor returns the place of the segment that holds position p if any does, and -1 if p is before them all.
func (x *index) segmentFor(p uint64) int {
	return sort.Search(len(x.segments), func(i int) bool { return x.segments[i].first > p }) - 1
}

// segmentEnd returns the position that the segment cannot reach.
func (x *index) segmentEnd(i int) uint64 {
	if i+1 < len(x.segments) {
		return x.segments[i+1].first
	}
	if x.fault != nil { // what a failed segment holds behind durable is in the tail
		return max(x.durable, x.segments[i].first)
	}
	return x.next
}

// bytes is what the spool takes on disk, and in memory what is not on disk too.
func (x *index) bytes() int64 {
	if x.fault != nil {
		return x.diskBytes() + x.tail.bytes
	}
	return x.diskBytes()
}

// diskBytes is the size of all segments.
func (x *index) diskBytes() (n int64) {
	for _, s := range x.segments {
		n += s.size
	}
	return n
}

// unknown returns the parts of first..last that were not reported yet, and remembers them.
func (x *index) unknown(first, last uint64) (fresh []span) {
	for _, k := range x.known {
		if k[1] < first || k[0] > last {
			continue
		}
		if k[0] > first {
			fresh = append(fresh, span{first, k[0] - 1})
		}
		if first = k[1] + 1; first > last {
			return fresh
		}
	}
	fresh = append(fresh, span{first, last})
	for _, s := range fresh {
		x.know(s)
	}
	return fresh
}

// know remembers that a span is missing and reported.
func (x *index) know(s span) {
	merged := make([]span, 0, len(x.known)+1)
	for _, k := range x.known {
		if k[1]+1 < s[0] || k[0] > s[1]+1 {
			merged = append(merged, k)
			continue
		}
		s = span{min(s[0], k[0]), max(s[1], k[1])}
	}
	merged = append(merged, s)
	slices.SortFunc(merged, func(a, b span) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	x.known = merged[max(0, len(merged)-maxKnown):]
}

// advance moves the head to p, and on over what is missing there and reported: nothing of it will ever be acknowledged.
func (x *index) advance(p uint64) {
	x.head = max(x.head, p)
	for _, k := range x.known {
		if k[0] <= x.head && x.head <= k[1] {
			x.head = k[1] + 1
		}
	}
	x.sent = max(x.sent, x.head)
	if x.fault != nil {
		x.tail.popBefore(x.head)
	}
}

// state returns what the small file has to say.
func (x *index) state(clean bool) *state {
	return &state{
		Head: x.head, Sent: x.sent, Next: x.durable, Clean: clean,
		Streams: slices.Clone(x.streams), Known: slices.Clone(x.known),
	}
}
