package storage

import (
	"context"
	"io"
)

// Limits of the catalog.
const (
	MaxKey   = 512
	MaxValue = 512 << 10
)

// Revision is the version of one key. It grows with every change of the key, also across deletion and re-creation.
type Revision uint64

// Expectations for Put and Delete, besides a revision as it was read.
const (
	// Absent expects that the key does not exist.
	Absent Revision = 0
	// Any expects nothing.
	Any Revision = ^Revision(0)
)

// Catalog is a small durable map with compare-and-set for each key. It is safe for use by many goroutines at once.
// There is no transaction across keys.
type Catalog interface {
	// Get returns the value, which is the caller's to keep, and its revision; ErrNotFound if there is none,
	// ErrCorrupt if it is damaged.
	Get(ctx context.Context, key string) ([]byte, Revision, error)
	// Put makes the value durable if the key has the expected revision, and returns the new one. A key has 1 to MaxKey
	// bytes. A damaged value has no revision that could be expected: only Any replaces it. Errors: ErrConflict,
	// ErrTooLarge, ErrFull, ErrReadOnly, ErrClosed: nothing was written. ErrUnknown: as for Appender.Append.
	Put(ctx context.Context, key string, value []byte, expect Revision) (Revision, error)
	// Delete removes the key if it has the expected revision. Deleting an absent key with Any is no error.
	Delete(ctx context.Context, key string, expect Revision) error
	// List calls yield for every key with the prefix, in byte order, until yield returns false. Keys changed while
	// List runs may or may not be seen. A damaged value is reported by an error that wraps ErrCorrupt after all
	// intact ones have been yielded. No lock is held while yield runs.
	List(ctx context.Context, prefix string, yield func(Item) bool) error
	io.Closer
}

// Item is one key of the catalog. Its value is the receiver's to keep.
type Item struct {
	Key      string
	Value    []byte
	Revision Revision
}

// BulkPutter is what a Catalog may offer besides: many unconditional writes for the price of one fsync.
type BulkPutter interface {
	// PutAll stores the values of items (their revisions are ignored) as Put with Any does. When it returns nil all
	// are durable. When it returns an error some may be.
	PutAll(ctx context.Context, items []Item) error
}
