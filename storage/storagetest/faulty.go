package storagetest

import (
	"context"
	"sync/atomic"

	"telemetryhub/storage"
)

// faultyLog hides a group whose Append failed although it was done: Last is the last group known to be durable.
type faultyLog struct {
	storage.Log
	gate

	last atomic.Uint64
}

func (l *faultyLog) Append(ctx context.Context, group []byte, last storage.Position) (storage.Position, error) {
	var p storage.Position
	err := l.write(ctx, func() (err error) {
		p, err = l.Log.Append(ctx, group, last)
		return err
	}, nil)
	if err != nil {
		return 0, err
	}
	l.last.Store(uint64(p))
	return p, nil
}

func (l *faultyLog) Read(ctx context.Context, after storage.Position, yield func(storage.Entry) bool) error {
	if err := l.read(ctx); err != nil {
		return err
	}
	last := l.Last()
	return l.Log.Read(ctx, after, func(e storage.Entry) bool { return e.Position <= last && yield(e) })
}

func (l *faultyLog) Last() storage.Position { return storage.Position(l.last.Load()) }

func (l *faultyLog) Trim(ctx context.Context, upTo storage.Position) error {
	return l.write(ctx, func() error { return l.Log.Trim(ctx, upTo) }, nil)
}

type faultyCatalog struct {
	storage.Catalog
	gate
}

func (c *faultyCatalog) Get(ctx context.Context, key string) ([]byte, storage.Revision, error) {
	if err := c.read(ctx); err != nil {
		return nil, 0, err
	}
	return c.Catalog.Get(ctx, key)
}

func (c *faultyCatalog) Put(ctx context.Context, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
	var rev storage.Revision
	err := c.write(ctx, func() (err error) {
		rev, err = c.Catalog.Put(ctx, key, value, expect)
		return err
	}, nil)
	if err != nil {
		return 0, err
	}
	return rev, nil
}

func (c *faultyCatalog) Delete(ctx context.Context, key string, expect storage.Revision) error {
	return c.write(ctx, func() error { return c.Catalog.Delete(ctx, key, expect) }, nil)
}

func (c *faultyCatalog) List(ctx context.Context, prefix string, yield func(storage.Item) bool) error {
	if err := c.read(ctx); err != nil {
		return err
	}
	return c.Catalog.List(ctx, prefix, yield)
}

type faultyBulk struct {
	*faultyCatalog
	bulk storage.BulkPutter
}

// PutAll counts as one operation. When it fails, half of the items are stored: its contract allows that.
func (c *faultyBulk) PutAll(ctx context.Context, items []storage.Item) error {
	return c.write(ctx,
		func() error { return c.bulk.PutAll(ctx, items) },
		func() error { return c.bulk.PutAll(ctx, items[:len(items)/2]) })
}

type faultyChunks struct {
	storage.Chunks
	gate
}

func (c *faultyChunks) Write(ctx context.Context, slice storage.Slice, flush uint64, blocks [][]byte) error {
	return c.write(ctx, func() error { return c.Chunks.Write(ctx, slice, flush, blocks) }, nil)
}

func (c *faultyChunks) Block(ctx context.Context, slice storage.Slice, key storage.BlockKey) ([]byte, error) {
	if err := c.read(ctx); err != nil {
		return nil, err
	}
	return c.Chunks.Block(ctx, slice, key)
}

func (c *faultyChunks) Slices(ctx context.Context) ([]storage.Slice, error) {
	if err := c.read(ctx); err != nil {
		return nil, err
	}
	return c.Chunks.Slices(ctx)
}

func (c *faultyChunks) Blocks(ctx context.Context, slice storage.Slice, yield func(storage.BlockKey, int) bool) error {
	if err := c.read(ctx); err != nil {
		return err
	}
	return c.Chunks.Blocks(ctx, slice, yield)
}

func (c *faultyChunks) Drop(ctx context.Context, slice storage.Slice) error {
	return c.write(ctx, func() error { return c.Chunks.Drop(ctx, slice) }, nil)
}
