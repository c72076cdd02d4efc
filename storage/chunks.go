package storage

import (
	"context"
	"io"
)

// MaxBlock is the largest block in bytes.
const MaxBlock = 256 << 10

// Slice names a part of the time line, one file or bucket in the store: the number of the UTC day since 1970-01-01.
type Slice int32

// BlockKey is the place of a block in a slice. Flush numbers grow; Index counts the blocks of a flush from 0.
type BlockKey struct {
	Flush uint64
	Index uint32
}

// Chunks keeps blocks of encoded history in slices. It is safe for use by many goroutines at once; writes to one slice
// happen one after the other. What a block contains is not its concern, except that what it gives back is what it was
// given: every block has a checksum that covers slice and key, and every slice has a checked directory of its blocks,
// so that a block cannot vanish without an error.
type Chunks interface {
	// Write makes the blocks of one flush durable in the slice, under the keys {flush, 0}, {flush, 1}, and so on. If the
	// slice already has blocks of that flush or of a later one, they are replaced: it was interrupted. A flush without
	// blocks is one too: the slice exists after it. Errors: ErrTooLarge,
	// ErrFull, ErrReadOnly, ErrClosed: nothing was written. ErrUnknown: as for Appender.Append.
	Write(ctx context.Context, slice Slice, flush uint64, blocks [][]byte) error
	// Block returns one block, which is the caller's to keep. Errors: ErrNotFound, ErrCorrupt.
	Block(ctx context.Context, slice Slice, key BlockKey) ([]byte, error)
	// Slices returns the slices that exist, in order.
	Slices(ctx context.Context) ([]Slice, error)
	// Blocks calls yield for the key of every block of the slice according to its directory, in order, until yield returns
	// false. Blocks that the directory no longer knows because it is damaged are reported by an error that wraps ErrCorrupt,
	// after all known ones have been yielded. ErrNotFound if there is no such slice. No lock is held while yield runs.
	Blocks(ctx context.Context, slice Slice, yield func(key BlockKey, size int) bool) error
	// Drop removes a slice with all its blocks. Dropping a slice that does not exist is no error.
	Drop(ctx context.Context, slice Slice) error
	// Size returns the bytes that the chunks take up in the store.
	Size() int64
	io.Closer
}
