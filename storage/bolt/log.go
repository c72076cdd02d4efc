package bolt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// LogOptions configure a Log. The zero value works.
type LogOptions struct {
	// SegmentBytes is how much is put into one file before the next is begun. Zero means 64 MiB. Negative is an error.
	SegmentBytes int64
	// MaxBytes limits the disk space of the log; at the limit Append fails with storage.ErrFull until Trim has made room.
	// Zero means no limit. It must have room for two segments, each SegmentBytes and 1 MiB.
	MaxBytes int64
	// FreeBytes is what a new segment must leave free on the disk; otherwise Append fails with storage.ErrFull. Zero means
	// 32 MiB, negative means nothing.
	FreeBytes int64
	// ReadOnly opens an existing folder and never writes, locks nothing, and makes do with a disk that takes no writes. What
	// is damaged stays as it is.
	ReadOnly bool
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *LogOptions) fill() error {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 64 << 20
	}
	if o.FreeBytes == 0 {
		o.FreeBytes = 32 << 20
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.SegmentBytes < 0:
		return fmt.Errorf("log options: segments of %d bytes", o.SegmentBytes)
	case o.MaxBytes != 0 && o.MaxBytes < 2*o.fileBytes():
		return fmt.Errorf("log options: a limit of %d bytes has no room for two segments of %d bytes", o.MaxBytes, o.fileBytes())
	}
	return nil
}

// fileBytes is the disk space that a segment gets when it is made. A segment may exceed SegmentBytes by one group, for
// which there is room in the slack, with all that bbolt rewrites around it.
func (o *LogOptions) fileBytes() int64 {
	return (o.SegmentBytes+groupSlack)/pageSize*pageSize + pageSize
}

const groupSlack = 1 << 20

// Log is a storage.Log in segment files. It is safe for use by many goroutines at once.
//
// A Read that is overtaken by Trim ends with storage.ErrTrimmed. Missing groups are told by an entry whose position is
// that of the last one missing.
type Log struct {
	dir   string
	opts  LogOptions
	lock  *DirLock
	latch *latch
	keep  keeper
	last  atomic.Uint64 // the position of the last durable group

	// appending guards the fields below. It is held while a group is written: there is one writer at a time. Where locks
	// nest, the order is keep.trimming, appending, keep.building, mu, keep.mu.
	appending sync.Mutex
	active    *segment
	tip       link // the last group
	put       func(tx *bolt.Tx) error
	group     []byte // what put writes
	sum       uint32 // of the seal that put wrote
	head      [logPieceSize]byte
	marked    bool // the segment carries the mark of a clean end
	used      int64

	// mu guards the fields below.
	mu       sync.Mutex
	segments []*segment // in order; the last one is active
	first    storage.Position
	damage   []Damage
	suspect  bool // something was found damaged, so this run must not end with a clean mark
	closed   bool
}

var _ storage.Log = (*Log)(nil)

// errRoll is how put says that the segment has no room for another group.
var errRoll = errors.New("segment is full")

// Append implements storage.Appender. Exactly one transaction is committed for each group.
func (l *Log) Append(ctx context.Context, group []byte, last storage.Position) (storage.Position, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if len(group) > storage.MaxGroup {
		return 0, fmt.Errorf("append %d bytes: %w: at most %d", len(group), storage.ErrTooLarge, storage.MaxGroup)
	}
	if l.opts.ReadOnly {
		return 0, storage.ErrReadOnly
	}
	l.appending.Lock()
	defer l.appending.Unlock()
	if l.active == nil {
		return 0, storage.ErrClosed
	}
	if last != l.tip.pos {
		return 0, fmt.Errorf("append after %d: %w: the last position is %d", last, storage.ErrFenced, l.tip.pos)
	}
	if err := l.append(group); err != nil {
		return 0, fmt.Errorf("append to the log: %w", err)
	}
	return l.tip.pos, nil
}

// append writes a group to the active segment, or to the next if that is full. appending is held.
func (l *Log) append(group []byte) error {
	l.group = group
	err := errRoll
	if !l.active.retired {
		err = l.active.file.update(l.put)
	}
	if err == errRoll {
		if err = l.roll(); err == nil {
			err = l.active.file.update(l.put)
		}
	}
	l.group = nil
	if err != nil {
		return l.refuse(err)
	}
	l.tip = link{pos: l.tip.pos + 1, sum: l.sum}
	l.marked = false
	l.last.Store(uint64(l.tip.pos))
	return nil
}

// refuse makes of an error one that callers of Append know. After one that nobody foresaw nothing more is written.
func (l *Log) refuse(err error) error {
	for _, known := range []error{storage.ErrFull, storage.ErrReadOnly, storage.ErrUnknown, storage.ErrClosed} {
		if errors.Is(err, known) {
			return err
		}
	}
	err = fmt.Errorf("%w until the next start: %w", storage.ErrReadOnly, err)
	l.latch.stop(err)
	return err
}

// putGroup is what put does: it stores l.group behind l.tip.
func (l *Log) putGroup(tx *bolt.Tx) error {
	if l.used = tx.Size(); l.used > l.opts.SegmentBytes {
		return errRoll
	}
	if l.used > l.opts.SegmentBytes/2 {
		l.keep.prepare()
	}
	if l.marked {
		if err := tx.Bucket([]byte(headerBucket)).Delete([]byte(cleanKey)); err != nil {
			return err
		}
	}
	b := tx.Bucket([]byte(logBucket))
	b.FillPercent = 1 // keys ascend, so a page that was split is never added to
	pos := l.tip.pos + 1
	l.sum = sealGroup(l.head[:], pos, l.tip, l.group)
	n := groupHeaderSize + copy(l.head[groupHeaderSize:], l.group)
	piece, rest := l.head[:n], l.group[n-groupHeaderSize:]
	var key [logKeySize]byte
	for i := 0; ; i++ {
		if err := b.Put(logKey(&key, pos, i), piece); err != nil {
			return err
		}
		if len(rest) == 0 {
			break
		}
		n := min(len(rest), logPieceSize)
		piece, rest = rest[:n], rest[n:]
	}
	return b.SetSequence(uint64(pos))
}

// roll begins the next segment. appending is held.
func (l *Log) roll() error {
	if err := l.latch.err(); err != nil {
		return err
	}
	s, err := l.begin(l.tip.pos + 1)
	if err != nil {
		return err
	}
	full := l.active
	l.active, l.marked = s, false
	l.keep.seal(full)
	return nil
}

// begin adds a new segment to the log.
func (l *Log) begin(first storage.Position) (*segment, error) {
	path := filepath.Join(l.dir, segmentName(first))
	f, err := l.keep.take(path)
	if err != nil {
		return nil, err
	}
	s := newActive(first, path, f, l.opts.fileBytes())
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments = append(l.segments, s)
	return s, nil
}

// First implements storage.Reader.
func (l *Log) First() storage.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// Last implements storage.Reader.
func (l *Log) Last() storage.Position { return storage.Position(l.last.Load()) }

// Size implements storage.Reader. Space that was set aside for groups to come is counted.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sizeLocked() + l.keep.reserved.Load()
}

func (l *Log) sizeLocked() int64 {
	var n int64
	for _, s := range l.segments {
		n += s.size.Load()
	}
	return n
}

// Damage returns what has been found damaged: when the log was opened, and since; the first 256 findings. What is still
// in the log is found again at every start. It is for people: gaps are to be made of what Read yields.
func (l *Log) Damage() []Damage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.damage)
}

// maxDamage limits how much is remembered for Damage.
const maxDamage = 256

// report keeps what was found, and logs it the first time.
func (l *Log) report(ds ...Damage) {
	for _, d := range ds {
		if l.remember(d) {
			l.opts.Logger.Error("log is damaged", "file", d.File, "what", d.What, "from", d.From, "to", d.To, "action", d.Action)
		}
	}
}

func (l *Log) remember(d Damage) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspect = true
	if len(l.damage) == maxDamage || slices.Contains(l.damage, d) {
		return false
	}
	l.damage = append(l.damage, d)
	return true
}

// Trim implements storage.Log. It deletes the files in which no group after upTo is. After an fsync that failed it returns
// storage.ErrUnknown, and so does every later Append.
func (l *Log) Trim(ctx context.Context, upTo storage.Position) error {
	if l.opts.ReadOnly {
		return storage.ErrReadOnly
	}
	l.keep.trimming.Lock()
	defer l.keep.trimming.Unlock()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		s, next, err := l.oldest(upTo)
		if err != nil || s == nil {
			return err
		}
		if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("trim the log: %w", openError(err))
		}
		// One after the other, so that a power cut never leaves a hole in the middle.
		if err := syncDir(l.dir); err != nil {
			var path *os.PathError
			if !errors.As(err, &path) || path.Op != "sync" {
				return fmt.Errorf("trim the log: %w", openError(err))
			}
			err = fmt.Errorf("trim the log: %w: %w", storage.ErrUnknown, err)
			l.latch.stop(err)
			return err
		}
		l.mu.Lock()
		l.segments = l.segments[1:]
		l.first = next - 1
		l.mu.Unlock()
		if err := s.close(); err != nil {
			return fmt.Errorf("trim the log: %w", err)
		}
	}
}

// oldest returns the first segment if nothing after upTo is in it, and the first position of the one behind it.
func (l *Log) oldest(upTo storage.Position) (*segment, storage.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, storage.ErrClosed
	}
	if len(l.segments) < 2 || l.segments[1].first-1 > upTo {
		return nil, 0, nil
	}
	return l.segments[0], l.segments[1].first, nil
}

// has reports whether the segment is still part of the log. keep.trimming is held, so that it stays so.
func (l *Log) has(s *segment) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed && slices.Contains(l.segments, s)
}

// Close implements io.Closer. It leaves a mark that everything was found in order and is durable, so that the next
// start need not read all of it. Running reads end with storage.ErrClosed. Closing again does nothing.
func (l *Log) Close() error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	if l.opts.ReadOnly {
		return l.closeReadOnly()
	}
	err := l.keep.stop()
	l.keep.trimming.Lock()
	defer l.keep.trimming.Unlock()
	l.appending.Lock()
	defer l.appending.Unlock()
	l.mu.Lock()
	clean := !l.suspect
	l.mu.Unlock()
	if l.marked != clean && l.latch.err() == nil && !l.active.retired {
		err = errors.Join(err, l.mark(clean))
	}
	l.active = nil
	for _, s := range l.segments {
		err = errors.Join(err, s.close())
	}
	return errors.Join(err, l.lock.Close())
}

// mark writes the mark of a clean end, or takes away that of the run before, so that the next start reads everything. On
// a full disk it does neither: without a mark the next start takes longer, with it the damage is found once more.
func (l *Log) mark(clean bool) error {
	err := l.active.file.update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(headerBucket))
		if clean {
			return b.Put([]byte(cleanKey), encodeClean(l.tip))
		}
		return b.Delete([]byte(cleanKey))
	})
	if errors.Is(err, storage.ErrFull) {
		return nil
	}
	return err
}
