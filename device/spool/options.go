package spool

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Errors that callers branch on.
var (
	// ErrClosed means that the spool is closed.
	ErrClosed = errors.New("spool closed")
	// ErrFull means that there is no room and the policy is Refuse. Nothing was written; room comes with acknowledgements.
	ErrFull = errors.New("spool full")
	// ErrLocked means that another process uses the folder.
	ErrLocked = errors.New("spool in use by another process: is the agent already running?")
	// ErrNewerFormat means that the folder was written by a newer version of this program. Nothing was touched.
	ErrNewerFormat = errors.New("spool written by a newer version: update this program")
	// ErrTooLarge means that an entry or a context is over MaxBody, or spans more than MaxSpan.
	ErrTooLarge = errors.New("spool entry too large")
	// ErrForked means that somebody else uses the stream: what was never sent now belongs to a new stream.
	ErrForked = errors.New("the hub knows more of this stream than this spool ever sent")
	// ErrStream means that the spool has no such stream any more.
	ErrStream = errors.New("no such stream in the spool")
	// ErrAck means that the hub acknowledged what was never sent.
	ErrAck = errors.New("acknowledged before it was sent")
)

// MaxBody is the longest data body or context in bytes.
const MaxBody = 64 << 10

// MaxSpan is the longest time between the first and the last reading of an entry.
const MaxSpan = (1<<32 - 1) * time.Millisecond

// Policy says what happens when the spool is full.
type Policy int

// The policies.
const (
	// DropOldest drops the oldest segment and reports it as a gap.
	DropOldest Policy = iota
	// Refuse makes Append return ErrFull.
	Refuse
)

// Options configures a Spool. The zero value works.
type Options struct {
	// SegmentBytes is the size of a segment file, the unit of deletion. Zero means 1 MiB, but at most a quarter of
	// MaxBytes. Less than 4 KiB is an error.
	SegmentBytes int64
	// MaxBytes limits all segments together, and a spool made by NewMemory. Zero means 64 MiB.
	MaxBytes int64
	// MaxAge drops segments whose newest reading is older than this, measured from the newest reading in the spool, so
	// that a wrong clock alone cannot empty it. Zero means no limit.
	MaxAge time.Duration
	// MinFree is what must stay free on the disk: below it the spool drops its oldest segments, then goes to RAM mode.
	// Zero means 64 MiB. Negative means no such rule.
	MinFree int64
	// RAMBytes limits what is held in memory while the disk fails. Zero means 1 MiB.
	RAMBytes int64
	// SyncEvery is how often Run makes appended records durable, and how much a power cut can cost. Zero means 5 s.
	// Negative means that each Append is durable when it returns.
	SyncEvery time.Duration
	// SyncBytes makes Append sync by itself when so much waits. Zero means 64 KiB.
	SyncBytes int64
	// Full says what happens when the spool is full.
	Full Policy
	// Rand is where stream names and nonces come from. Nil means crypto/rand. Streams of two spools must never be equal.
	Rand io.Reader
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger

	fs filesystem // nil means the real one; tests put faults here
}

func (o *Options) fill() error {
	defaultTo(&o.MaxBytes, 64<<20)
	defaultTo(&o.SegmentBytes, min(1<<20, o.MaxBytes/4))
	defaultTo(&o.MinFree, 64<<20)
	defaultTo(&o.RAMBytes, 1<<20)
	defaultTo(&o.SyncBytes, 64<<10)
	if o.SyncEvery == 0 {
		o.SyncEvery = 5 * time.Second
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.SegmentBytes < 4<<10:
		return fmt.Errorf("spool options: segments of %d bytes are too small, use 4096 or more (and MaxBytes 16384 or more)", o.SegmentBytes)
	case o.MaxBytes < 4*o.SegmentBytes:
		return fmt.Errorf("spool options: MaxBytes %d holds fewer than four segments of %d", o.MaxBytes, o.SegmentBytes)
	case o.MaxAge < 0, o.RAMBytes < 0, o.SyncBytes < 0:
		return errors.New("spool options: MaxAge, RAMBytes and SyncBytes cannot be negative")
	case o.Full != DropOldest && o.Full != Refuse:
		return fmt.Errorf("spool options: unknown policy %d", o.Full)
	}
	return nil
}

func defaultTo(v *int64, def int64) {
	if *v == 0 {
		*v = def
	}
}
