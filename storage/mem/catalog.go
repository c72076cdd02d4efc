package mem

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"telemetryhub/storage"
)

// Catalog is a storage.Catalog in memory. It is safe for use by many goroutines at once.
type Catalog struct {
	mu     sync.Mutex // guards the fields below and what data points to
	data   *catalogData
	closed bool
}

type catalogData struct {
	items map[string]storage.Item // values are immutable
	last  storage.Revision
}

var (
	_ storage.Catalog    = (*Catalog)(nil)
	_ storage.BulkPutter = (*Catalog)(nil)
)

// NewCatalog returns an empty catalog.
func NewCatalog() *Catalog {
	return &Catalog{data: &catalogData{items: make(map[string]storage.Item)}}
}

// Reopen closes the catalog and returns another one with the same content.
func (c *Catalog) Reopen() *Catalog {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return &Catalog{data: &catalogData{items: maps.Clone(c.data.items), last: c.data.last}}
}

// Get implements storage.Catalog.
func (c *Catalog) Get(ctx context.Context, key string) ([]byte, storage.Revision, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, 0, storage.ErrClosed
	}
	item, ok := c.data.items[key]
	if !ok {
		return nil, 0, fmt.Errorf("get %q: %w", key, storage.ErrNotFound)
	}
	return clone(item.Value), item.Revision, nil
}

// Put implements storage.Catalog.
func (c *Catalog) Put(ctx context.Context, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := checkItem(key, value); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, storage.ErrClosed
	}
	if err := c.expectLocked("put", key, expect); err != nil {
		return 0, err
	}
	return c.putLocked(key, value), nil
}

// PutAll implements storage.BulkPutter.
func (c *Catalog) PutAll(ctx context.Context, items []storage.Item) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, item := range items {
		if err := checkItem(item.Key, item.Value); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return storage.ErrClosed
	}
	for _, item := range items {
		c.putLocked(item.Key, item.Value)
	}
	return nil
}

// Delete implements storage.Catalog.
func (c *Catalog) Delete(ctx context.Context, key string, expect storage.Revision) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return storage.ErrClosed
	}
	if err := c.expectLocked("delete", key, expect); err != nil {
		return err
	}
	delete(c.data.items, key)
	return nil
}

// List implements storage.Catalog.
func (c *Catalog) List(ctx context.Context, prefix string, yield func(storage.Item) bool) error {
	items, err := c.withPrefix(prefix)
	if err != nil {
		return err
	}
	for _, item := range items {
		if err := ctx.Err(); err != nil {
			return err
		}
		item.Value = clone(item.Value)
		if !yield(item) {
			return nil
		}
	}
	return ctx.Err()
}

func (c *Catalog) withPrefix(prefix string) ([]storage.Item, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, storage.ErrClosed
	}
	var items []storage.Item
	for key, item := range c.data.items {
		if strings.HasPrefix(key, prefix) {
			items = append(items, item)
		}
	}
	slices.SortFunc(items, func(a, b storage.Item) int { return strings.Compare(a.Key, b.Key) })
	return items, nil
}

// Close makes every later call fail with storage.ErrClosed.
func (c *Catalog) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func (c *Catalog) expectLocked(deed, key string, expect storage.Revision) error {
	// An absent key has the zero Item and with it the revision Absent.
	if have := c.data.items[key].Revision; expect != storage.Any && have != expect {
		return fmt.Errorf("%s %q: %w: it has revision %d, not %d", deed, key, storage.ErrConflict, have, expect)
	}
	return nil
}

// putLocked counts revisions over all keys, so that they also grow across deletion and re-creation.
func (c *Catalog) putLocked(key string, value []byte) storage.Revision {
	c.data.last++
	c.data.items[key] = storage.Item{Key: key, Value: clone(value), Revision: c.data.last}
	return c.data.last
}

func checkItem(key string, value []byte) error {
	if len(key) == 0 || len(key) > storage.MaxKey {
		return fmt.Errorf("put a key of %d bytes: %w: 1 to %d are allowed", len(key), storage.ErrTooLarge, storage.MaxKey)
	}
	if len(value) > storage.MaxValue {
		return fmt.Errorf("put %d bytes under %q: %w: at most %d", len(value), key, storage.ErrTooLarge, storage.MaxValue)
	}
	return nil
}
