package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// index finds chunks. Directories are read when they are first asked for, and a bounded number of them is kept.
type index struct {
	chunks storage.Chunks
	logger *slog.Logger

	mu         sync.Mutex // guards the fields below; never held during I/O
	generation uint64     // counts the flushes: a list that was read before one ended is not kept
	lists      *lru[storage.Slice, *flushList]
	dirs       *lru[dirKey, *directory]
}

type dirKey struct {
	slice storage.Slice
	flush uint64
}

// flushList says which flushes have written to a slice.
type flushList struct {
	flushes []flushBlocks // ascending
	damaged error         // some may be missing
}

// flushBlocks says which blocks of a flush the store knows.
type flushBlocks struct {
	flush uint64
	end   uint32 // one more than the greatest index
	holes bool   // not every index below is there
}

func newIndex(chunks storage.Chunks, bytes int64, logger *slog.Logger) *index {
	return &index{
		chunks: chunks, logger: logger,
		lists: newLRU[storage.Slice, *flushList](bytes / 2),
		dirs:  newLRU[dirKey, *directory](bytes / 2),
	}
}

// changed forgets what is known of slices. It is called after a flush has written them and before its rows leave the
// heads.
func (x *index) changed(slices []storage.Slice) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.generation++
	for _, s := range slices {
		x.lists.remove(s)
	}
}

// list returns the flushes of a slice. A slice that does not exist has none.
func (x *index) list(ctx context.Context, slice storage.Slice) (*flushList, error) {
	x.mu.Lock()
	l, ok := x.lists.find(slice)
	generation := x.generation
	x.mu.Unlock()
	if ok {
		return l, nil
	}
	l, size := new(flushList), int64(64)
	err := x.chunks.Blocks(ctx, slice, func(key storage.BlockKey, _ int) bool {
		n := len(l.flushes) - 1
		if n < 0 || l.flushes[n].flush != key.Flush {
			l.flushes = append(l.flushes, flushBlocks{flush: key.Flush})
			size += 16
			n++
		}
		f := &l.flushes[n]
		f.holes = f.holes || key.Index != f.end
		f.end = key.Index + 1
		return true
	})
	switch {
	case errors.Is(err, storage.ErrNotFound):
	case errors.Is(err, storage.ErrCorrupt):
		l.damaged = err
	case err != nil:
		return nil, fmt.Errorf("list the blocks of slice %d: %w", slice, err)
	}
	x.mu.Lock()
	if x.generation == generation && l.damaged == nil {
		x.lists.put(slice, l, size)
	}
	x.mu.Unlock()
	return l, nil
}

// directory returns the directory of a complete flush in a slice. If it is damaged the blocks themselves are read.
func (x *index) directory(ctx context.Context, slice storage.Slice, f flushBlocks) (*directory, error) {
	key := dirKey{slice, f.flush}
	x.mu.Lock()
	d, ok := x.dirs.find(key)
	x.mu.Unlock()
	if ok {
		return d, nil
	}
	d, err := x.readDirectory(ctx, slice, f.flush)
	if damage(err) {
		d, err = x.rebuild(ctx, slice, f, err)
	}
	if err != nil {
		return nil, fmt.Errorf("directory of flush %d in slice %d: %w", f.flush, slice, err)
	}
	x.mu.Lock()
	x.dirs.put(key, d, int64(len(d.entries)*entryBytes+128))
	x.mu.Unlock()
	return d, nil
}

// damage reports whether an error means that data is gone, and not that it cannot be read just now.
func damage(err error) bool {
	return errors.Is(err, storage.ErrCorrupt) || errors.Is(err, storage.ErrNotFound)
}

func (x *index) readDirectory(ctx context.Context, slice storage.Slice, flush uint64) (*directory, error) {
	d := new(directory)
	for i, n := 0, 1; i < n; i++ {
		key := storage.BlockKey{Flush: flush, Index: uint32(i)}
		p, err := x.chunks.Block(ctx, slice, key)
		if err != nil {
			return nil, err
		}
		if n, err = readDirectory(d, p, slice, key); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// rebuild makes a directory from what the blocks of a flush hold. If one of them cannot be read nobody knows whose chunks
// stood in it, so the slice is damaged for everybody.
func (x *index) rebuild(ctx context.Context, slice storage.Slice, f flushBlocks, cause error) (*directory, error) {
	x.logger.Error("a directory of the history is damaged: its blocks are read instead", "slice", int(slice),
		"flush", f.flush, "err", cause)
	d, whole := new(directory), !f.holes
	start := chunk.StartMS(slice)
	for i := uint32(1); i < f.end; i++ { // block 0 is the directory
		p, err := x.chunks.Block(ctx, slice, storage.BlockKey{Flush: f.flush, Index: i})
		if err != nil && !damage(err) {
			return nil, err
		}
		if len(p) >= blockHeader && p[0] == valueVersion && p[1] == blockDirectory {
			continue
		}
		ok := walkBlock(p, slice, func(offset int, c *chunk.Chunk, length int) {
			d.entries = append(d.entries, entry{
				series: c.Series, device: c.Device, first: uint32(c.FirstMS - start), last: uint32(c.LastMS - start),
				block: i, offset: uint32(offset), length: uint32(length),
			})
		})
		whole = whole && ok
	}
	slices.SortStableFunc(d.entries, func(a, b entry) int { return int(int64(a.device) - int64(b.device)) })
	if !whole {
		d.damaged = sliceGap(slice)
	}
	return d, nil
}

// sliceGap says that nobody knows what a slice has lost.
func sliceGap(slice storage.Slice) []Gap {
	start := chunk.StartMS(slice)
	return []Gap{{FromMS: start, ToMS: start + chunk.SliceMS - 1, Cause: device.CauseDamaged, Anybody: true}}
}
