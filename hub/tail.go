package hub

import (
	"sync"

	"telemetryhub/storage"
)

// tail keeps the newest groups of the log in memory, so that cursors that keep up never read the store. It is bounded in
// bytes; a cursor that falls behind it reads the log itself.
type tail struct {
	max int

	mu     sync.Mutex // guards the fields below
	groups []tailGroup
	bytes  int
	floor  storage.Position // everything after it is in groups
	last   storage.Position
	grown  chan struct{} // closed and replaced when last grows
}

type tailGroup struct {
	pos   storage.Position
	group []byte // immutable
}

func newTail(max int, last storage.Position) *tail {
	return &tail{max: max, floor: last, last: last, grown: make(chan struct{})}
}

// push adds a group, which must not be changed any more.
func (t *tail) push(pos storage.Position, group []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups = append(t.groups, tailGroup{pos, group})
	t.bytes += len(group)
	drop := 0
	for t.bytes > t.max && drop < len(t.groups)-1 {
		t.bytes -= len(t.groups[drop].group)
		t.floor = t.groups[drop].pos
		t.groups[drop] = tailGroup{}
		drop++
	}
	t.groups = t.groups[drop:]
	t.last = pos
	close(t.grown)
	t.grown = make(chan struct{})
}

// after appends the groups after pos to dst. It reports false if some of them are no longer in memory. If there are none
// yet, the channel is closed when there are.
func (t *tail) after(pos storage.Position, dst []tailGroup) ([]tailGroup, <-chan struct{}, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if pos < t.floor {
		return dst, t.grown, false
	}
	i := len(t.groups)
	for i > 0 && t.groups[i-1].pos > pos {
		i--
	}
	return append(dst, t.groups[i:]...), t.grown, true
}

// end returns the position of the newest group.
func (t *tail) end() storage.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last
}
