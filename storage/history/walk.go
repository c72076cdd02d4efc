package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// DamageError reports that parts of an answer are missing because they are damaged. It wraps storage.ErrCorrupt.
type DamageError struct {
	// Gaps are the ranges in which readings may be missing, with cause damaged, by time.
	Gaps []Gap
	// First is the first damage that was met.
	First error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%d ranges are damaged and were left out: %v", len(e.Gaps), e.First)
}

func (e *DamageError) Unwrap() []error { return []error{storage.ErrCorrupt, e.First} }

// ref is a chunk of a device that a walk has yet to read.
type ref struct {
	entry
	flush uint64
	seq   int // in the flush
}

// walk reads the chunks and heads of one device in order of time.
type walk struct {
	store  *Store
	device uint32
	merge  *merge
	saved  uint64 // number of the last complete flush, as of the beginning

	slice storage.Slice
	refs  []ref // of the slice, by time
	// block is the one that was read last: chunks of a device lie beside each other.
	block    []byte
	blockKey storage.BlockKey

	gaps  gapList
	first error
}

// walk fills m from heads and chunks and calls emit for every time at which there is a reading.
func (s *Store) walk(ctx context.Context, num uint32, m *merge, emit func() bool) error {
	saved, ok := s.heads.view(num, m)
	if !ok || m.from >= m.to {
		return nil
	}
	w := &walk{store: s, device: num, merge: m, saved: saved}
	all, err := s.chunks.Slices(ctx)
	if err != nil && !errors.Is(err, storage.ErrCorrupt) {
		return fmt.Errorf("list slices: %w", err)
	} else if err != nil {
		w.lose(Gap{FromMS: m.from, ToMS: m.to - 1, Anybody: true}, err)
	}
	for _, slice := range all {
		start := chunk.StartMS(slice)
		if start+chunk.SliceMS <= m.from || start >= m.to {
			continue
		}
		if more, err := w.until(ctx, start, emit); err != nil || !more {
			return err
		}
		if err := w.open(ctx, slice); err != nil {
			return err
		}
	}
	if more, err := w.until(ctx, m.to, emit); err != nil || !more {
		return err
	}
	if w.first != nil {
		return &DamageError{Gaps: tidy(w.gaps), First: w.first}
	}
	return nil
}

// lose remembers damage.
func (w *walk) lose(g Gap, err error) {
	g.Cause = device.CauseDamaged
	w.gaps.add(g)
	if w.first == nil {
		w.first = err
	}
}

// open finds the chunks of the device in a slice.
func (w *walk) open(ctx context.Context, slice storage.Slice) error {
	w.slice, w.refs, w.block = slice, w.refs[:0], nil
	list, err := w.store.index.list(ctx, slice)
	if err != nil {
		return err
	}
	if list.damaged != nil {
		w.lose(sliceGap(slice)[0], list.damaged)
	}
	start := chunk.StartMS(slice)
	for _, f := range list.flushes {
		if f.flush > w.saved {
			continue
		}
		d, err := w.store.index.directory(ctx, slice, f)
		if err != nil {
			return err
		}
		for _, g := range d.damaged {
			w.lose(g, fmt.Errorf("%w: flush %d in slice %d", storage.ErrCorrupt, f.flush, slice))
		}
		for seq, e := range d.of(w.device) {
			if num, ok := e.series.Single(); ok && !w.merge.wants([]uint32{num}) {
				continue
			}
			if start+int64(e.last) >= w.merge.from && start+int64(e.first) < w.merge.to {
				w.refs = append(w.refs, ref{e, f.flush, seq})
			}
		}
	}
	slices.SortStableFunc(w.refs, func(a, b ref) int { return cmp.Compare(a.first, b.first) })
	return nil
}

// until calls emit for every time before the bound at which there is a reading. It reports whether emit wants more.
func (w *walk) until(ctx context.Context, bound int64, emit func() bool) (bool, error) {
	m, start := w.merge, chunk.StartMS(w.slice)
	for n := 0; ; n++ {
		if n%256 == 0 && ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		t := bound
		if len(m.open) > 0 {
			t = min(t, m.open[0].time())
		}
		if len(w.refs) > 0 && start+int64(w.refs[0].first) <= t {
			if err := w.read(ctx, &w.refs[0]); err != nil {
				return false, err
			}
			w.refs = w.refs[1:]
			continue
		}
		if t == bound {
			return true, nil
		}
		if m.take(t); len(m.touched) > 0 && !emit() {
			return false, nil
		}
	}
}

// read opens a chunk. Damage is remembered, other errors are returned.
func (w *walk) read(ctx context.Context, r *ref) error {
	c, err := w.chunk(ctx, r)
	if err == nil && w.merge.wants(c.Metrics) {
		var rows *chunk.Rows
		if rows, err = w.store.dec.Rows(c, w.merge.wantsOne); err == nil {
			w.merge.addRows(rows, r)
			return nil
		}
	}
	if damage(err) {
		start := chunk.StartMS(w.slice)
		w.lose(Gap{FromMS: start + int64(r.first), ToMS: start + int64(r.last)}, err)
		return nil
	}
	return err
}

// chunk reads and checks a chunk.
func (w *walk) chunk(ctx context.Context, r *ref) (*chunk.Chunk, error) {
	key := storage.BlockKey{Flush: r.flush, Index: r.block}
	if w.block == nil || w.blockKey != key {
		p, err := w.store.chunks.Block(ctx, w.slice, key)
		if err != nil {
			return nil, fmt.Errorf("block %d of flush %d in slice %d: %w", key.Index, key.Flush, w.slice, err)
		}
		w.block, w.blockKey = p, key
	}
	return readEntry(w.block, w.slice, r.entry)
}

// readEntry reads the chunk of an entry from its block and checks that it is the one that the directory promised.
func readEntry(block []byte, slice storage.Slice, e entry) (*chunk.Chunk, error) {
	if uint64(e.offset)+uint64(e.length) > uint64(len(block)) {
		return nil, fmt.Errorf("chunk of device %d at %d: %w: the block ends before", e.device, e.offset, storage.ErrCorrupt)
	}
	c, err := chunk.Read(block[e.offset:e.offset+e.length], slice)
	if err != nil {
		return nil, err
	}
	if c.Device != e.device || c.Series != e.series {
		return nil, fmt.Errorf("chunk of device %d, %s: %w: it lies where one of device %d, %s should be", c.Device, c.Series,
			storage.ErrCorrupt, e.device, e.series)
	}
	return c, nil
}
