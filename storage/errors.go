package storage

import "errors"

// Errors that callers branch on. Backends wrap them with what happened and what to do.
var (
	// ErrNotFound means that there is no such key, block or slice.
	ErrNotFound = errors.New("not found")
	// ErrConflict means that the revision was not the expected one. Nothing was written.
	ErrConflict = errors.New("changed by somebody else")
	// ErrFull means that there is no room. Nothing was written, reads go on, and the same call may succeed later.
	ErrFull = errors.New("storage full")
	// ErrUnknown means that nobody can say whether the write is durable: an fsync failed. The store takes no further
	// write in this process; the caller must not acknowledge anything more, and must find out by opening again.
	ErrUnknown = errors.New("outcome of the write unknown")
	// ErrFenced means that another writer appended: the last position was not the expected one. Nothing was written.
	ErrFenced = errors.New("fenced by another writer")
	// ErrTrimmed means that the position asked for is no longer in the log.
	ErrTrimmed = errors.New("trimmed")
	// ErrCorrupt means that data failed its checksum or its chain. What is intact stays readable.
	ErrCorrupt = errors.New("damaged data")
	// ErrReadOnly means that the store was opened, or has become, read-only.
	ErrReadOnly = errors.New("read-only")
	// ErrNewerFormat means that a file was written by a newer version of this program. It was left untouched.
	ErrNewerFormat = errors.New("written by a newer version")
	// ErrLocked means that another process has the store open.
	ErrLocked = errors.New("in use by another process")
	// ErrClosed means that the store is closed.
	ErrClosed = errors.New("store closed")
	// ErrTooLarge means that a group, block, key or value is over its limit. Nothing was written.
	ErrTooLarge = errors.New("too large")
)
