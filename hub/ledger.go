package hub

import (
	"slices"
	"sort"
	"sync"

	"telemetryhub/storage"
)

// ledger tells about how much of the log lies after a position and since when, without reading it. It keeps a mark for each of
// the newest groups and fewer and fewer of the older ones, so that what it says is off by a few percent, however much the log
// holds.
type ledger struct {
	mu    sync.Mutex // guards the fields below
	marks []milestone
	end   milestone // of the newest group
}

// milestone is what the log had come to with the group at a position.
type milestone struct {
	pos           storage.Position
	groups, bytes uint64 // from the beginning of the ledger up to that group
	atMS          int64  // when that group was committed, in Unix milliseconds, zero if not known
}

// maxMarks bounds the memory of a ledger, and the size of what the catalog holds of it.
const maxMarks = 1024

// begin makes the ledger one of a log of which nothing is known up to a position.
func (l *ledger) begin(pos storage.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end = milestone{pos: pos}
	l.marks = []milestone{l.end}
}

// note takes in a group. One that is in already is passed over.
func (l *ledger) note(pos storage.Position, size int, atMS int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if pos <= l.end.pos {
		return
	}
	l.end = milestone{pos, l.end.groups + 1, l.end.bytes + uint64(size), atMS}
	if l.marks = append(l.marks, l.end); len(l.marks) > maxMarks {
		l.thinLocked()
	}
}

// thinLocked drops marks where the neighbours do almost as well: the farther back, the wider apart they may be.
func (l *ledger) thinLocked() {
	for share := uint64(32); len(l.marks) > maxMarks*3/4; share /= 2 { // the first round does, unless groups are most uneven
		kept := l.marks[:1]
		for i := 1; i < len(l.marks)-1; i++ {
			before, next := &kept[len(kept)-1], &l.marks[i+1]
			if share > 0 && ((next.groups-before.groups)*share > l.end.groups-next.groups || (next.bytes-before.bytes)*share > l.end.bytes-next.bytes) {
				kept = append(kept, l.marks[i])
			}
		}
		l.marks = append(kept, l.end)
	}
}

// at returns what the log had come to at a position, or a little before it.
func (l *ledger) at(pos storage.Position) milestone {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.marks[max(l.afterLocked(pos)-1, 0)]
}

// after returns the first mark behind a position, and the end of the log if there is none.
func (l *ledger) after(pos storage.Position) (next, end milestone) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := l.afterLocked(pos); i < len(l.marks) {
		return l.marks[i], l.end
	}
	return l.end, l.end
}

func (l *ledger) afterLocked(pos storage.Position) int {
	return sort.Search(len(l.marks), func(i int) bool { return l.marks[i].pos > pos })
}

// reach returns the first mark with at least so many bytes up to it.
func (l *ledger) reach(bytes uint64) milestone {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].bytes >= bytes })
	return l.marks[min(i, len(l.marks)-1)]
}

// forget drops what is only needed for positions before first.
func (l *ledger) forget(first storage.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := l.afterLocked(first) - 1; n > 0 {
		l.marks = slices.Delete(l.marks, 0, n)
	}
}

// record returns the marks for the catalog: position, groups, bytes, time.
func (l *ledger) record() [][4]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	rec := make([][4]uint64, len(l.marks))
	for i, m := range l.marks {
		rec[i] = [4]uint64{uint64(m.pos), m.groups, m.bytes, uint64(m.atMS)}
	}
	return rec
}

// restore puts in what record returned, and reports whether it is in order.
func (l *ledger) restore(rec [][4]uint64) bool {
	marks := make([]milestone, len(rec))
	for i, r := range rec {
		marks[i] = milestone{storage.Position(r[0]), r[1], r[2], int64(r[3])}
		if i > 0 && (marks[i].pos <= marks[i-1].pos || marks[i].bytes < marks[i-1].bytes || marks[i].groups < marks[i-1].groups) {
			return false
		}
	}
	if len(marks) == 0 || len(marks) > maxMarks {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.marks, l.end = marks, marks[len(marks)-1]
	return true
}
