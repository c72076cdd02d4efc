package mem

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"

	"telemetryhub/storage"
)

// positionStep leaves room between positions, so that a caller who computes with them is found out.
const positionStep = 3

// Log is a storage.Log in memory. It is safe for use by many goroutines at once.
type Log struct {
	mu     sync.Mutex // guards the fields below and what data points to
	data   *logData
	closed bool
}

type logData struct {
	groups      []storage.Entry // immutable entries, in order
	first, last storage.Position
	size        int64
}

var _ storage.Log = (*Log)(nil)

// NewLog returns an empty log.
func NewLog() *Log { return &Log{data: new(logData)} }

// Reopen closes the log and returns another one with the same content.
func (l *Log) Reopen() *Log {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	data := *l.data
	return &Log{data: &data}
}

// Append implements storage.Appender.
func (l *Log) Append(ctx context.Context, group []byte, last storage.Position) (storage.Position, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(group) > storage.MaxGroup {
		return 0, fmt.Errorf("append %d bytes: %w: at most %d", len(group), storage.ErrTooLarge, storage.MaxGroup)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, storage.ErrClosed
	}
	if last != l.data.last {
		return 0, fmt.Errorf("append after %d: %w: the last position is %d", last, storage.ErrFenced, l.data.last)
	}
	l.data.last += positionStep
	l.data.groups = append(l.data.groups, storage.Entry{Position: l.data.last, Group: clone(group)})
	l.data.size += int64(len(group))
	return l.data.last, nil
}

// Read implements storage.Reader.
func (l *Log) Read(ctx context.Context, after storage.Position, yield func(storage.Entry) bool) error {
	groups, err := l.after(after)
	if err != nil {
		return err
	}
	for _, e := range groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		e.Group = clone(e.Group)
		if !yield(e) {
			return nil
		}
	}
	return ctx.Err()
}

func (l *Log) after(after storage.Position) ([]storage.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, storage.ErrClosed
	}
	if after < l.data.first {
		return nil, fmt.Errorf("read after %d: %w: the log begins after %d", after, storage.ErrTrimmed, l.data.first)
	}
	return l.data.groups[l.data.upTo(after):], nil
}

// upTo returns how many groups have a position of at most p.
func (d *logData) upTo(p storage.Position) int {
	return sort.Search(len(d.groups), func(i int) bool { return d.groups[i].Position > p })
}

// Trim implements storage.Log. It forgets every group that it may.
func (l *Log) Trim(ctx context.Context, upTo storage.Position) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return storage.ErrClosed
	}
	n := l.data.upTo(upTo)
	if n == 0 {
		return nil
	}
	for _, e := range l.data.groups[:n] {
		l.data.size -= int64(len(e.Group))
	}
	l.data.first = l.data.groups[n-1].Position
	l.data.groups = slices.Clone(l.data.groups[n:]) // a copy, so that what was trimmed is given back to the runtime
	return nil
}

// First implements storage.Reader.
func (l *Log) First() storage.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.first
}

// Last implements storage.Reader.
func (l *Log) Last() storage.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.last
}

// Size implements storage.Reader.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.data.size
}

// Close makes every later call fail with storage.ErrClosed.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return nil
}

// clone never returns nil, so that an empty value and no value stay apart for callers that compare with nil.
func clone(p []byte) []byte { return append([]byte{}, p...) }
