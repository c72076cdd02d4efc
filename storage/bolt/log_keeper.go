package bolt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/storage"
)

// nextName is the file that will become the next segment.
const nextName = "next" + tempSuffix

// keeper does for a log what need not delay an append, in one goroutine: it prepares the next segment, closes full ones,
// and reads through segments that were not read at the start. Its owner is the log.
type keeper struct {
	l        *Log
	wake     chan struct{}
	quit     chan struct{}
	done     chan struct{}
	reserved atomic.Int64 // bytes of the file that is prepared

	// trimming is held while a segment's file is exchanged or deleted.
	trimming sync.Mutex

	// building guards next and warned, and is held while next is made. It may be taken while Log.appending is held.
	building sync.Mutex
	next     *file
	warned   bool // that there is no room for next, which would be said at every group

	mu     sync.Mutex // guards the fields below
	wanted bool
	full   []*segment // to be sealed
	scrub  []*segment // to be read through, the oldest first
}

func (k *keeper) start(l *Log) {
	k.l, k.wake, k.quit, k.done = l, make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go k.run()
	k.poke()
}

// poke lets the goroutine look for work.
func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// prepare asks for the next segment to be made. It is cheap.
func (k *keeper) prepare() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.wanted {
		k.wanted = true
		k.poke()
	}
}

// seal asks for a segment to be closed for writing.
func (k *keeper) seal(s *segment) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.full = append(k.full, s)
	k.poke()
}

// take gives the next segment's file its name and returns it. It is made now if it is not there yet.
func (k *keeper) take(path string) (*file, error) {
	k.building.Lock()
	defer k.building.Unlock()
	if k.next == nil {
		if err := k.build(); err != nil {
			return nil, err
		}
	}
	f := k.next
	k.next = nil
	k.reserved.Store(0)
	k.mu.Lock()
	k.wanted = false
	k.mu.Unlock()
	if err := f.publish(path); err != nil {
		return nil, errors.Join(fmt.Errorf("begin segment %s: %w", path, err), f.close())
	}
	return f, nil
}

// build makes the next segment's file, if there is room for it. building is held.
func (k *keeper) build() error {
	n := k.l.opts.fileBytes()
	k.l.mu.Lock()
	size := k.l.sizeLocked()
	k.l.mu.Unlock()
	if k.l.opts.MaxBytes > 0 && size+n > k.l.opts.MaxBytes {
		return fmt.Errorf("%w: the log has %d of %d bytes", storage.ErrFull, size, k.l.opts.MaxBytes)
	}
	if k.l.opts.FreeBytes >= 0 {
		free, err := freeBytes(k.l.dir)
		if err != nil {
			return err
		}
		if free < n+k.l.opts.FreeBytes {
			return fmt.Errorf("%w: the disk has %d bytes free, the next file of the log needs %d and %d are to stay free",
				storage.ErrFull, free, n, k.l.opts.FreeBytes)
		}
	}
	f, err := buildSegment(filepath.Join(k.l.dir, nextName), k.l.opts, k.l.latch)
	if err != nil {
		err = fmt.Errorf("prepare a file for the log: %w", err)
		switch {
		case errors.Is(err, storage.ErrFull), errors.Is(err, storage.ErrUnknown):
		case errors.Is(err, storage.ErrReadOnly):
			k.l.latch.stop(err)
		default:
			err = fmt.Errorf("%w: %w", storage.ErrReadOnly, err)
			k.l.latch.stop(err)
		}
		return err
	}
	k.next = f
	k.reserved.Store(n)
	return nil
}

func (k *keeper) run() {
	defer close(k.done)
	for {
		select {
		case <-k.quit:
			return
		case <-k.wake:
		}
		for k.step() {
		}
	}
}

// step does one piece of work and reports whether there may be more.
func (k *keeper) step() bool {
	select {
	case <-k.quit:
		return false
	default:
	}
	k.mu.Lock()
	var full, scrub *segment
	wanted := k.wanted
	switch {
	case len(k.full) > 0:
		full = k.full[0]
	case !wanted && len(k.scrub) > 0:
		scrub = k.scrub[0]
	}
	k.mu.Unlock()
	switch {
	case full != nil:
		k.sealNow(full)
		k.mu.Lock()
		k.full = k.full[1:]
		k.mu.Unlock()
	case wanted:
		k.buildNow()
		k.mu.Lock()
		k.wanted = false
		k.mu.Unlock()
	case scrub != nil:
		k.scrubNow(scrub)
		k.mu.Lock()
		k.scrub = k.scrub[1:]
		k.mu.Unlock()
	default:
		return false
	}
	return true
}

// buildNow leaves a failure to the append that will need the file: it tries again and tells its caller.
func (k *keeper) buildNow() {
	k.building.Lock()
	defer k.building.Unlock()
	k.mu.Lock()
	wanted := k.wanted // take may have been faster
	k.mu.Unlock()
	if k.next != nil || !wanted {
		return
	}
	err := k.build()
	if err != nil && !k.warned {
		k.l.opts.Logger.Warn("cannot prepare the next file of the log yet", "err", err)
	}
	k.warned = err != nil
}

func (k *keeper) sealNow(s *segment) {
	k.trimming.Lock()
	defer k.trimming.Unlock()
	if s.sealed() || !k.l.has(s) {
		return
	}
	if err := s.seal(); err != nil {
		// It stays as it is, open through bbolt, which costs memory but no data.
		k.l.opts.Logger.Warn("cannot close a full file of the log", "file", s.path, "err", err)
	}
}

// seal lets a segment be read without bbolt and gives back the disk space that it did not need. Nothing is written to
// it when seal is called.
func (s *segment) seal() error {
	fd, err := os.Open(s.path)
	if err != nil {
		return err
	}
	p, err := pagesOf(fd)
	if err != nil {
		return errors.Join(err, fd.Close())
	}
	src, err := newSealedSource(fd, p)
	if err != nil {
		return errors.Join(err, fd.Close())
	}
	old := s.source()
	s.use(src)
	err = old.Close()
	s.file = nil
	size := int64(p.meta.high) * pageSize
	if err == nil && size < p.size {
		err = os.Truncate(s.path, size)
	}
	if err == nil {
		s.size.Store(size)
	}
	return err
}

// scrubNow reads through a segment as slowly as not to be in the way.
func (k *keeper) scrubNow(s *segment) {
	src, ok := s.source().(*sealedSource)
	if !ok {
		return
	}
	p, err := openPages(&slowReader{r: src.fd, quit: k.quit}, src.size)
	if err == nil {
		var v verified
		if v, err = verifySegment(p, s.first); err == nil {
			k.l.report(v.damage(s.path)...)
			return
		}
	}
	if errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, errStopped) && !errors.Is(err, os.ErrClosed) {
		k.l.report(Damage{File: s.path, What: err.Error(), Action: "the file is rescued at the next start"})
	}
}

var errStopped = errors.New("stopped")

// slowReader reads at most about 32 MiB a second.
type slowReader struct {
	r    io.ReaderAt
	quit <-chan struct{}
	n    int
}

func (s *slowReader) ReadAt(b []byte, off int64) (int, error) {
	if s.n += len(b); s.n >= 1<<20 {
		t := time.NewTimer(30 * time.Millisecond)
		defer t.Stop()
		s.n = 0
		select {
		case <-t.C:
		case <-s.quit:
			return 0, errStopped
		}
	}
	return s.r.ReadAt(b, off)
}

// stop ends the goroutine and removes the file that was prepared in vain.
func (k *keeper) stop() error {
	close(k.quit)
	<-k.done
	k.building.Lock()
	defer k.building.Unlock()
	if k.next == nil {
		return nil
	}
	path := k.next.path
	err := k.next.close()
	k.next = nil
	return errors.Join(err, removeTemp(path))
}
