package storage

import (
	"context"
	"io"
)

// MaxGroup is the largest group in bytes.
const MaxGroup = 512 << 10

// Position is the place of a group in the log. Later groups have greater positions. Zero is before every group.
// Callers compare and keep positions but must not compute with them.
type Position uint64

// Entry is one group as it is read back.
type Entry struct {
	Position Position
	// Group holds the bytes that were appended. It is the caller's to keep.
	Group []byte
	// Damaged means that the group failed its checksum: Group holds what could be read (it may be empty), and only
	// parts with checksums of their own may be believed. Where groups are known to be missing without a trace, an
	// entry with the position of the last missing one and an empty Group stands for them all.
	Damaged bool
}

// Appender is the writing side of a log. It has one caller at a time.
type Appender interface {
	// Append makes group durable and returns its position. last must be the position of the last group, as Append or
	// Last returned it, so that two writers cannot both go on.
	//
	// Errors: ErrTooLarge, ErrFull (try again later), ErrFenced, ErrReadOnly, ErrClosed: nothing was written. What the
	// system lacks for a moment (files, memory) is ErrFull; an error nobody foresaw is ErrReadOnly until the next Open.
	// ErrUnknown: the group may or may not be there; every later Append fails with ErrUnknown too. Append does not
	// keep group. A cancelled ctx stops it only before the write begins.
	Append(ctx context.Context, group []byte, last Position) (Position, error)
}

// Reader is the reading side of a log. It is safe for use by many goroutines at once and never delays Append.
type Reader interface {
	// Read calls yield for every group after the position, oldest first, until yield returns false or the end of the
	// log as it stood when Read was called. It returns ErrTrimmed if groups after the position have been trimmed away,
	// before the first call or, if Trim overtakes it, later. No lock and no transaction is held while yield runs.
	Read(ctx context.Context, after Position, yield func(Entry) bool) error
	// First returns the position after which everything is still there: Read(First()) reads the whole log.
	First() Position
	// Last returns the position of the last durable group, zero for a log that was never written.
	Last() Position
	// Size returns the bytes that the log takes up in the store.
	Size() int64
}

// Log is the ordered, durable sequence of everything that devices sent.
type Log interface {
	Appender
	Reader
	// Trim allows the log to forget groups up to and including upTo. It may keep some or all of them.
	Trim(ctx context.Context, upTo Position) error
	io.Closer
}
