package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/storage"
)

// Limits of the streams of one device.
const (
	streamBurst    = 64 // new streams at once …
	streamInterval = time.Minute
)

// stream is one numbered sequence of batches of one device, as far as the log says.
type stream struct {
	key streamKey

	// last is the greatest sequence number that the committer has put into a group, durable or not, and lastMS the newest
	// time in it. Only the committer (and recovery, before it) touches them.
	last   uint64
	lastMS int64

	durable   atomic.Uint64 // greatest durable sequence number
	durableMS atomic.Int64  // lastMS at that time

	mark uint64 // committer only: the group that touched the stream

	refs  int  // sessions and queued batches, guarded by streamTable.mu
	dirty bool // durable has changed since the last checkpoint, guarded by streamTable.mu
}

type streamKey struct{ dev, num uint32 }

func (k streamKey) catalogKey() string { return fmt.Sprintf("%s%08x/%08x", keySeq, k.dev, k.num) }

// streamRecord is what the catalog holds under the name of a stream. It never changes.
type streamRecord struct {
	Version int    `json:"v"`
	Num     uint32 `json:"num"`
	Start   uint64 `json:"start,omitempty"` // sequence number before the first
}

// seqRecord is what a checkpoint leaves about a stream.
type seqRecord struct {
	Version int    `json:"v"`
	Seq     uint64 `json:"seq"`
	MS      int64  `json:"ms,omitempty"`
}

// streamTable holds the streams in use and those whose newest sequence numbers are not in the catalog yet. The numbers
// are a view over the log: recovery completes them by replay.
type streamTable struct {
	catalog storage.Catalog
	logger  *slog.Logger

	mu    sync.Mutex // guards the fields below and those of streams that say so
	byKey map[streamKey]*stream
}

// seen notes at recovery that the log holds seq of a stream.
func (t *streamTable) seen(key streamKey, seq uint64, ms int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byKey[key]
	if s == nil {
		s = &stream{key: key}
		t.byKey[key] = s
	}
	if seq > s.last {
		s.last, s.lastMS, s.dirty = seq, ms, true
		s.durable.Store(seq)
		s.durableMS.Store(ms)
	}
}

// attach returns the stream of that name, which it makes durable first if it is new: then it starts after have-1. release
// gives it back. The caller holds entity.mu of the device.
func (t *streamTable) attach(ctx context.Context, e *entity, name string, have uint64) (*stream, error) {
	rec, err := t.open(ctx, e, name, have)
	if err != nil {
		return nil, fmt.Errorf("stream %q of %s: %w", name, e.id, err)
	}
	key := streamKey{e.num, rec.Num}
	if s := t.use(key, nil); s != nil {
		return s, nil
	}
	at := seqRecord{Seq: rec.Start}
	v, rev, err := t.catalog.Get(ctx, key.catalogKey())
	if err == nil {
		err = decodeRecord(storage.Item{Key: key.catalogKey(), Value: v, Revision: rev}, &at, func() int { return at.Version })
	}
	switch {
	case errors.Is(err, storage.ErrCorrupt):
		// What the device has no more was acknowledged. What it sends again may be in the log already; answers are the same.
		at = seqRecord{Seq: max(rec.Start, have, 1) - 1}
		t.logger.Error("how far a stream has come is lost: it goes on where the device does", "device", e.id, "stream", name, "seq", at.Seq, "err", err)
	case err != nil && !errors.Is(err, storage.ErrNotFound):
		return nil, fmt.Errorf("stream %q of %s: %w", name, e.id, err)
	}
	return t.use(key, &at), nil
}

// use takes a reference to the stream in memory. If there is none it makes one from at, or returns nil if at is nil.
func (t *streamTable) use(key streamKey, at *seqRecord) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byKey[key]
	if s == nil {
		if at == nil {
			return nil
		}
		s = &stream{key: key, last: at.Seq, lastMS: at.MS}
		s.durable.Store(at.Seq)
		s.durableMS.Store(at.MS)
		t.byKey[key] = s
	}
	s.refs++
	return s
}

// open returns the record of a stream's name, making it if there is none.
func (t *streamTable) open(ctx context.Context, e *entity, name string, have uint64) (streamRecord, error) {
	key := fmt.Sprintf("%s%08x/%s", keyStream, e.num, name)
	var rec streamRecord
	v, rev, err := t.catalog.Get(ctx, key)
	if err == nil {
		err = decodeRecord(storage.Item{Key: key, Value: v, Revision: rev}, &rec, func() int { return rec.Version })
	}
	if !errors.Is(err, storage.ErrNotFound) {
		return rec, err
	}
	if !e.mayAddStream() {
		return rec, &BadInput{Code: "rate", Text: fmt.Sprintf("new streams come too fast: at most %d at once and one every %v", streamBurst, streamInterval)}
	}
	num, err := t.nextNumber(ctx, e.num)
	if err != nil {
		return rec, err
	}
	rec = streamRecord{Version: recordVersion, Num: num}
	if have > 0 {
		rec.Start = have - 1
	}
	if v, err = json.Marshal(rec); err != nil {
		return rec, err
	}
	_, err = t.catalog.Put(ctx, key, v, storage.Absent)
	return rec, err
}

// nextNumber returns a number that neither a name nor a checkpoint of the device uses.
func (t *streamTable) nextNumber(ctx context.Context, dev uint32) (uint32, error) {
	next := uint32(1)
	var bad error
	names := fmt.Sprintf("%s%08x/", keyStream, dev)
	err := t.catalog.List(ctx, names, func(it storage.Item) bool {
		var rec streamRecord
		bad = decodeRecord(it, &rec, func() int { return rec.Version })
		next = max(next, rec.Num+1)
		return bad == nil
	})
	seqs := fmt.Sprintf("%s%08x/", keySeq, dev)
	seqErr := t.catalog.List(ctx, seqs, func(it storage.Item) bool {
		var num uint32
		_, bad = fmt.Sscanf(it.Key[len(seqs):], "%08x", &num)
		next = max(next, num+1)
		return bad == nil
	})
	if errors.Is(seqErr, storage.ErrCorrupt) {
		seqErr = nil // the name of that stream is known, and so is its number
	}
	return next, errors.Join(err, seqErr, bad)
}

// release gives up attach.
func (t *streamTable) release(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.refs--
	t.forgetLocked(s)
}

// forgetLocked drops a stream that nobody uses and whose number the catalog knows.
func (t *streamTable) forgetLocked(s *stream) {
	if s.refs == 0 && !s.dirty {
		delete(t.byKey, s.key)
	}
}

// committed notes that everything up to s.last is durable. Only the committer calls it.
func (t *streamTable) committed(list []*stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range list {
		s.durable.Store(s.last)
		s.durableMS.Store(s.lastMS)
		s.dirty = true
	}
}

// checkpoint makes the sequence numbers of all streams durable in the catalog, as they are in the log now or later, and
// forgets the streams that nobody uses. It runs before a checkpoint of history, which allows the log to forget.
func (t *streamTable) checkpoint(ctx context.Context) error {
	type mark struct {
		s   *stream
		seq uint64
	}
	var marks []mark
	var items []storage.Item
	t.mu.Lock()
	for _, s := range t.byKey {
		if !s.dirty {
			continue
		}
		seq := s.durable.Load()
		v, err := json.Marshal(seqRecord{Version: recordVersion, Seq: seq, MS: s.durableMS.Load()})
		if err != nil {
			t.mu.Unlock()
			return err
		}
		marks = append(marks, mark{s, seq})
		items = append(items, storage.Item{Key: s.key.catalogKey(), Value: v})
	}
	t.mu.Unlock()

	if err := putAll(ctx, t.catalog, items); err != nil {
		return fmt.Errorf("checkpoint %d streams: %w", len(items), err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range marks {
		if m.s.durable.Load() == m.seq {
			m.s.dirty = false
			t.forgetLocked(m.s)
		}
	}
	return nil
}

// putAll stores items in few commits where the catalog can, else one by one.
func putAll(ctx context.Context, c storage.Catalog, items []storage.Item) error {
	if bulk, ok := c.(storage.BulkPutter); ok {
		for batch := range slices.Chunk(items, 1000) {
			if err := bulk.PutAll(ctx, batch); err != nil {
				return err
			}
		}
		return nil
	}
	for _, it := range items {
		if _, err := c.Put(ctx, it.Key, it.Value, storage.Any); err != nil {
			return err
		}
	}
	return nil
}
