package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// Bounds of what shares a commit.
const (
	batchItems = 4096
	batchBytes = 4 << 20
)

// change is what one caller wants written. Its items belong to the writer from the moment that taken is set until done
// is closed; the caller waits that long.
type change struct {
	items  []storage.Item
	expect storage.Revision
	remove bool

	taken    bool // guarded by catalogWriter.mu
	done     chan struct{}
	revision storage.Revision // of the last item, once done
	err      error
}

func (ch *change) size() int {
	n := 0
	for i := range ch.items {
		n += len(ch.items[i].Value)
	}
	return n
}

// catalogWriter is the one goroutine that writes to a catalog. While it commits, new changes gather for the next commit.
type catalogWriter struct {
	file    *file
	sum     summary // of what is durable; used by the goroutine only
	stopped chan struct{}
	wake    chan struct{} // has room for one

	mu     sync.Mutex // guards the fields below
	queue  []*change  // one for each waiting caller
	closed bool
}

func startCatalogWriter(f *file, sum summary) *catalogWriter {
	w := &catalogWriter{file: f, sum: sum, stopped: make(chan struct{}), wake: make(chan struct{}, 1)}
	go w.run()
	return w
}

// do queues a change and waits until it is durable or has failed. A cancelled ctx withdraws it unless its commit has
// begun.
func (w *catalogWriter) do(ctx context.Context, ch *change) error {
	ch.done = make(chan struct{})
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return storage.ErrClosed
	}
	w.queue = append(w.queue, ch)
	w.mu.Unlock()
	w.nudge()
	select {
	case <-ch.done:
		return ch.err
	case <-ctx.Done():
	}
	if w.withdraw(ch) {
		return ctx.Err()
	}
	<-ch.done
	return ch.err
}

func (w *catalogWriter) nudge() {
	select {
	case w.wake <- struct{}{}:
	default: // a wake-up is pending already
	}
}

func (w *catalogWriter) withdraw(ch *change) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ch.taken {
		return false
	}
	w.queue = slices.DeleteFunc(w.queue, func(other *change) bool { return other == ch })
	return true
}

// stop refuses new changes, lets the queue run empty and waits for the goroutine.
func (w *catalogWriter) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.nudge()
	<-w.stopped
}

func (w *catalogWriter) run() {
	defer close(w.stopped)
	for {
		batch, more := w.take()
		if len(batch) > 0 {
			w.commit(batch)
			continue
		}
		if !more {
			return
		}
		<-w.wake
	}
}

// take returns the changes of the next commit. If there are none, more tells whether there may be some later.
func (w *catalogWriter) take() (batch []*change, more bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, items, size := 0, 0, 0
	for n < len(w.queue) && items < batchItems && size < batchBytes {
		ch := w.queue[n]
		ch.taken = true
		items, size = items+len(ch.items), size+ch.size()
		n++
	}
	batch = slices.Clone(w.queue[:n])
	w.queue = slices.Delete(w.queue, 0, n)
	return batch, !w.closed
}

// errNothing ends a transaction that would change nothing.
var errNothing = errors.New("nothing to write")

// commit writes a batch in one transaction and tells every caller. A conflict was decided against what the batch would
// have stored, so if the commit fails its callers get that error too.
func (w *catalogWriter) commit(batch []*change) {
	var next summary
	err := w.file.update(func(tx *bolt.Tx) error {
		b := newCatalogTx(tx, w.sum)
		for _, ch := range batch {
			if err := b.apply(ch); err != nil {
				return err
			}
		}
		if !b.changed {
			return errNothing
		}
		next = b.sum
		return b.finish()
	})
	switch {
	case err == nil:
		w.sum = next
	case errors.Is(err, errNothing):
		err = nil
	}
	for _, ch := range batch {
		if err != nil {
			ch.err = err
		}
		close(ch.done)
	}
}

// catalogTx is a write transaction of a catalog.
type catalogTx struct {
	tx            *bolt.Tx
	items, pieces *bolt.Bucket
	sum           summary
	changed       bool
}

func newCatalogTx(tx *bolt.Tx, sum summary) *catalogTx {
	return &catalogTx{tx: tx, sum: sum, items: tx.Bucket([]byte(itemsBucket)), pieces: tx.Bucket([]byte(piecesBucket))}
}

// finish stores the summary.
func (t *catalogTx) finish() error {
	t.sum.tx = uint64(t.tx.ID())
	return t.tx.Bucket([]byte(summaryBucket)).Put([]byte(summaryKey), t.sum.encode())
}

// apply makes one change. What only concerns its caller goes into ch.err; an error that it returns ends the transaction.
func (t *catalogTx) apply(ch *change) error {
	if ch.expect != storage.Any {
		if ch.err = t.expect(ch.items[0].Key, ch.expect); ch.err != nil {
			return nil
		}
	}
	for i := range ch.items {
		key := []byte(ch.items[i].Key)
		if err := t.remove(key); err != nil {
			return err
		}
		if ch.remove {
			continue
		}
		t.sum.last++
		ch.revision = t.sum.last
		if err := t.put(key, ch.items[i].Value, newRecord(ch.items[i].Key, ch.items[i].Value, ch.revision)); err != nil {
			return err
		}
	}
	return nil
}

// expect returns an error unless the key has the revision. A damaged record has none.
func (t *catalogTx) expect(key string, expect storage.Revision) error {
	have := storage.Absent
	if b := t.items.Get([]byte(key)); b != nil {
		r, _, err := decodeRecord([]byte(key), b)
		if err != nil {
			return fmt.Errorf("%w: %w", storage.ErrConflict, err)
		}
		have = r.revision
	}
	if have != expect {
		return fmt.Errorf("%w: it has revision %d, not %d", storage.ErrConflict, have, expect)
	}
	return nil
}

// remove deletes a key if it is there, with the pieces of its value.
func (t *catalogTx) remove(key []byte) error {
	b := t.items.Get(key)
	if b == nil {
		return nil
	}
	t.changed = true
	r, _, err := decodeRecord(key, b)
	t.sum.remove(&r)
	if err != nil {
		// The summary does not fit any more, which the next start will find; whose pieces they are nobody knows.
		return t.items.Delete(key)
	}
	for i := range r.pieces() {
		if err := t.pieces.Delete(pieceKey(r.revision, i)); err != nil {
			return err
		}
	}
	return t.items.Delete(key)
}

// put stores a record and its value under a key that is not there. It does not keep key.
func (t *catalogTx) put(key, value []byte, r record) error {
	t.changed = true
	t.sum.add(&r)
	b := r.put(make([]byte, 0, recordHead+len(value)))
	if r.kind == recordInline {
		b = append(b, value...)
	}
	for i := range r.pieces() {
		if err := t.pieces.Put(pieceKey(r.revision, i), value[i*pieceMax:min((i+1)*pieceMax, len(value))]); err != nil {
			return err
		}
	}
	return t.items.Put(bytes.Clone(key), b)
}
