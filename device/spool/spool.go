package spool

import (
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// stateEvery is how long an acknowledgement may stay unsaved. What is lost by a crash is sent again and dropped by the hub.
const stateEvery = time.Minute

// errMemory is the fault of a spool that never had a disk.
var errMemory = errors.New("kept in memory by choice")

// Spool is a durable queue. Open or NewMemory makes one.
type Spool struct {
	opts   Options
	log    *slog.Logger
	fs     filesystem // nil in memory
	unlock func() error
	ready  chan struct{}

	w         sync.Mutex // guards files and the fields below; taken before mu and held across I/O
	active    *writer    // nil until something is written
	scratch   []byte
	savedAt   time.Time
	savedHead uint64
	newest    int64  // the latest time that was appended
	oldest    string // the segment that oldestTo was found for
	oldestTo  int64
	litter    []string // files that are to be removed
	closed    bool

	mu     sync.Mutex // guards the fields below; never held across I/O
	x      index
	reader *Reader // the one that is valid
	lost   uint64  // readings dropped since open
}

// NewMemory returns a spool that lives and dies with the process and holds up to MaxBytes. It fails only on bad options.
func NewMemory(opts Options) (*Spool, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	opts.RAMBytes = opts.MaxBytes
	s := newSpool(opts, nil)
	return s, s.begin(errMemory)
}

// Open opens the spool in the folder dir, and makes it if it is missing. It returns an error that wraps ErrLocked or
// ErrNewerFormat, or says what is wrong with the folder. A full or read-only disk is no error: the spool starts in RAM mode.
func Open(dir string, opts Options) (*Spool, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	if opts.fs == nil {
		opts.fs = folder(dir)
	}
	s := newSpool(opts, opts.fs)
	unlock, err := s.fs.Lock()
	if err != nil {
		if !diskFault(err) {
			return nil, fmt.Errorf("open spool: %w", err)
		}
		s.log.Warn("spool folder cannot be made, keeping data in memory until the next start", "err", err)
		s.fs = nil
		return s, s.begin(err)
	}
	s.unlock = unlock
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open spool: %w", err), unlock())
	}
	return s, nil
}

func newSpool(opts Options, fs filesystem) *Spool {
	return &Spool{
		opts: opts, fs: fs, log: opts.Logger.With("component", "spool"),
		unlock: func() error { return nil }, ready: make(chan struct{}, 1), savedAt: time.Now(),
		x: index{contexts: make(map[uint64][]byte)},
	}
}

// begin starts an empty spool in RAM mode.
func (s *Spool) begin(fault error) error {
	id, err := s.newStream()
	if err != nil {
		return err
	}
	s.x.head, s.x.sent, s.x.durable, s.x.next = 1, 1, 1, 1
	s.x.streams = []stream{{ID: id, First: 1}}
	s.x.fault = fault
	return nil
}

// newStream returns a name of 80 random bits.
func (s *Spool) newStream() (string, error) {
	var b [10]byte
	if _, err := io.ReadFull(s.opts.Rand, b[:]); err != nil {
		return "", fmt.Errorf("random stream name: %w", err)
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(b[:])), nil
}

// Close makes everything durable and marks the spool as cleanly closed. After an error the next Open takes a new stream;
// nothing that was durable is lost. What is only in memory is lost, and the error says how much.
func (s *Spool) Close() error {
	s.w.Lock()
	defer s.w.Unlock()
	if s.closed {
		return nil
	}
	err := s.syncLocked()
	s.closed = true
	s.mu.Lock()
	s.reader = nil
	inMemory := s.x.tail.len()
	s.mu.Unlock()
	s.signal()
	if s.fs == nil {
		return nil
	}
	if err == nil {
		err = s.saveState(true)
	}
	if inMemory > 0 {
		err = errors.Join(fmt.Errorf("%d spooled batches were in memory only and are lost", inMemory), err)
	}
	if s.active != nil {
		err = errors.Join(err, s.active.f.Close())
	}
	if err = errors.Join(err, s.unlock()); err != nil {
		return fmt.Errorf("close spool: %w", err)
	}
	return nil
}

// Ready delivers a value after new records became readable since the last value was taken.
func (s *Spool) Ready() <-chan struct{} { return s.ready }

func (s *Spool) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

// Status tells how the spool is doing.
type Status struct {
	// Waiting counts the batches and gaps that are not acknowledged yet, durable or not.
	Waiting uint64
	// InMemory counts those that are not on disk.
	InMemory int
	// Bytes is what the spool takes, on disk and in memory.
	Bytes int64
	// Lost counts the readings that were dropped since the spool was opened, as far as they could be counted.
	Lost uint64
	// Fault says why the spool is in RAM mode. Nil if it is not, or is there by choice.
	Fault error
}

// Status returns a snapshot.
func (s *Spool) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{
		Waiting: s.x.next - s.x.head, InMemory: s.x.tail.len(), Bytes: s.x.bytes(),
		Lost: s.lost, Fault: s.x.fault,
	}
	if st.Fault == errMemory {
		st.Fault = nil
	}
	return st
}

// saveState writes the small file. The caller holds s.w.
func (s *Spool) saveState(clean bool) error {
	s.mu.Lock()
	s.x.prune()
	st := s.x.state(clean)
	s.mu.Unlock()
	if err := st.write(s.fs); err != nil {
		return err
	}
	s.savedAt, s.savedHead = time.Now(), st.Head
	return nil
}
