package mem

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"sync"

	"telemetryhub/storage"
)

// Chunks is a storage.Chunks in memory. It is safe for use by many goroutines at once.
type Chunks struct {
	mu     sync.Mutex // guards the fields below
	slices map[storage.Slice][]flush
	closed bool
}

// flush is what one Write stored. It is immutable.
type flush struct {
	num    uint64
	blocks [][]byte
}

var _ storage.Chunks = (*Chunks)(nil)

// NewChunks returns an empty store.
func NewChunks() *Chunks { return &Chunks{slices: make(map[storage.Slice][]flush)} }

// Reopen closes the store and returns another one with the same content.
func (c *Chunks) Reopen() *Chunks {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return &Chunks{slices: maps.Clone(c.slices)}
}

// Write implements storage.Chunks.
func (c *Chunks) Write(ctx context.Context, slice storage.Slice, num uint64, blocks [][]byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	kept := flush{num: num, blocks: make([][]byte, len(blocks))}
	for i, b := range blocks {
		if len(b) > storage.MaxBlock {
			return fmt.Errorf("write block %d of %d bytes: %w: at most %d", i, len(b), storage.ErrTooLarge, storage.MaxBlock)
		}
		kept.blocks[i] = clone(b)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return storage.ErrClosed
	}
	old := c.slices[slice]
	earlier := sort.Search(len(old), func(i int) bool { return old[i].num >= num })
	// Clip makes append copy: a reader may be walking over the old slice.
	c.slices[slice] = append(slices.Clip(old[:earlier]), kept)
	return nil
}

// Block implements storage.Chunks.
func (c *Chunks) Block(ctx context.Context, slice storage.Slice, key storage.BlockKey) ([]byte, error) {
	flushes, err := c.flushes(ctx, slice)
	if err != nil {
		return nil, err
	}
	i, ok := slices.BinarySearchFunc(flushes, key.Flush, func(f flush, num uint64) int {
		switch {
		case f.num < num:
			return -1
		case f.num > num:
			return 1
		}
		return 0
	})
	if !ok || uint64(key.Index) >= uint64(len(flushes[i].blocks)) {
		return nil, fmt.Errorf("block %d of flush %d in slice %d: %w", key.Index, key.Flush, slice, storage.ErrNotFound)
	}
	return clone(flushes[i].blocks[key.Index]), nil
}

// Slices implements storage.Chunks.
func (c *Chunks) Slices(ctx context.Context) ([]storage.Slice, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, storage.ErrClosed
	}
	return slices.Sorted(maps.Keys(c.slices)), nil
}

// Blocks implements storage.Chunks.
func (c *Chunks) Blocks(ctx context.Context, slice storage.Slice, yield func(storage.BlockKey, int) bool) error {
	flushes, err := c.flushes(ctx, slice)
	if err != nil {
		return err
	}
	for _, f := range flushes {
		for i, b := range f.blocks {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !yield(storage.BlockKey{Flush: f.num, Index: uint32(i)}, len(b)) {
				return nil
			}
		}
	}
	return nil
}

// Drop implements storage.Chunks.
func (c *Chunks) Drop(ctx context.Context, slice storage.Slice) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return storage.ErrClosed
	}
	delete(c.slices, slice)
	return nil
}

// Size implements storage.Chunks.
func (c *Chunks) Size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n int64
	for _, flushes := range c.slices {
		for _, f := range flushes {
			for _, b := range f.blocks {
				n += int64(len(b))
			}
		}
	}
	return n
}

// Close makes every later call fail with storage.ErrClosed.
func (c *Chunks) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *Chunks) flushes(ctx context.Context, slice storage.Slice) ([]flush, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, storage.ErrClosed
	}
	flushes, ok := c.slices[slice]
	if !ok {
		return nil, fmt.Errorf("slice %d: %w", slice, storage.ErrNotFound)
	}
	return flushes, nil
}
