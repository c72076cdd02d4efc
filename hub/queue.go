package hub

import (
	"context"
	"sync"

	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// entry is one batch or gap on its way to the log.
type entry struct {
	session *Session     // told when the entry is durable; nil for Ingest
	done    chan<- error // told the outcome; only for Ingest; has room for one
	told    bool         // done was told already: the entry failed and must not be stored
	stream  *stream      // nil for what has no number
	frame   int          // size of the frame, to be given back to the session's limits
	release bool         // no batch: the session lets go of the stream, everything before it is decided
	head    record.Header
	// body and refused are the sizes of the record's body and of the body of a gap record for rows that were refused,
	// which follow each other in the queue's buffer.
	body, refused   int
	firstMS, lastMS int64 // times of the first and the newest row
	readings        int
}

// entrySize is about what an entry takes besides its bodies, which is most of what small batches take.
const entrySize = 128

// queue is the bounded way to the committer. Bodies are copied into one buffer, so that putting does not allocate.
type queue struct {
	max    int
	ready  chan struct{} // has room for one: something waits
	urgent chan struct{} // has room for one: a full group waits

	mu      sync.Mutex // guards the fields below
	entries []entry
	buf     []byte
	size    int           // of both
	err     error         // why nothing is taken any more
	space   chan struct{} // closed when a waiter may try again; nil if nobody waits
}

func newQueue(max int) *queue {
	return &queue{max: max, ready: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
}

// put adds an entry, waiting for room if need be. If it fails the entry was not taken.
func (q *queue) put(ctx context.Context, e entry, body, refused []byte) error {
	q.mu.Lock()
	for q.fullLocked(body, refused) {
		if q.space == nil {
			q.space = make(chan struct{})
		}
		space := q.space
		q.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	q.addLocked(e, body, refused)
	return nil
}

// try is put if that need not wait. It reports false if it must.
func (q *queue) try(e entry, body, refused []byte) (done bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fullLocked(body, refused) {
		return false, nil
	}
	if q.err == nil {
		q.addLocked(e, body, refused)
	}
	return true, q.err
}

func (q *queue) fullLocked(body, refused []byte) bool {
	return q.err == nil && q.size > 0 && q.size+entrySize+len(body)+len(refused) > q.max
}

func (q *queue) addLocked(e entry, body, refused []byte) {
	e.body, e.refused = len(body), len(refused)
	q.entries = append(q.entries, e)
	q.buf = append(append(q.buf, body...), refused...)
	q.size += entrySize + len(body) + len(refused)
	signal(q.ready)
	if len(q.buf) >= storage.MaxGroup {
		signal(q.urgent)
	}
}

// release lets go of a session's stream once everything that was put before is decided. It never waits.
func (q *queue) release(t *streamTable, s *stream) {
	q.mu.Lock()
	if q.err == nil {
		q.addLocked(entry{stream: s, release: true}, nil, nil)
		q.mu.Unlock()
		return
	}
	q.mu.Unlock()
	t.release(s)
}

// take returns all that waits and leaves the caller's memory in its place.
func (q *queue) take(entries []entry, buf []byte) ([]entry, []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	entries, q.entries = q.entries, entries[:0]
	buf, q.buf = q.buf, buf[:0]
	q.size = 0
	select {
	case <-q.urgent:
	default:
	}
	q.wakeLocked()
	return entries, buf
}

// close makes every put fail with err.
func (q *queue) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.err = err
	}
	q.wakeLocked()
}

func (q *queue) wakeLocked() {
	if q.space != nil {
		close(q.space)
		q.space = nil
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
