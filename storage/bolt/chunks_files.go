package bolt

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"telemetryhub/storage"
)

// Bounds of the step in which a slice file grows: an eighth of what it has.
const (
	minGrow = 64 << 10
	maxGrow = 4 << 20
)

// sliceFile is the open file of a slice: for reading only, or, once the slice is written to, through bbolt. There is at
// most one for a slice, so that whoever has it alone can replace or delete the file.
type sliceFile struct {
	slice storage.Slice
	// Set before ready is closed, then immutable.
	err  error
	file *file    // nil if the file is open for reading only
	os   *os.File // nil if file is set
	size int64
	meta meta

	windows *sync.Pool // of *[]byte, for reading pages; shared by all files

	ready chan struct{} // closed when it is open or has failed to open
	gone  chan struct{} // closed when it is closed and out of Chunks.open

	users   int  // guarded by Chunks.mu
	closing bool // guarded by Chunks.mu: no new users

	writing sync.Mutex // makes writes wait for each other; no other lock is taken under it
}

// acquire returns the open file of a slice, which the caller must release. forWriting asks for one that can be written.
// create fills the file if there is none yet; nil means that there must be one. It may wait for others who use the file.
func (c *Chunks) acquire(slice storage.Slice, forWriting bool, create func(f *file) error) (*sliceFile, error) {
	for {
		c.mu.Lock()
		_, exists := c.sizes[slice]
		h := c.open[slice]
		switch {
		case c.closed:
			c.mu.Unlock()
			return nil, storage.ErrClosed
		case h == nil && !exists && create == nil:
			c.mu.Unlock()
			return nil, storage.ErrNotFound
		case h == nil:
			h = c.placeLocked(slice)
			c.mu.Unlock()
			return c.opened(h, forWriting, exists, create)
		case h.closing || forWriting && h.isOpen() && h.file == nil && h.err == nil:
			c.closeLocked(h) // unlocks
			<-h.gone
			continue
		}
		c.useLocked(h)
		c.mu.Unlock()
		<-h.ready
		if h.err == nil && (h.file != nil || !forWriting) {
			return h, nil
		}
		err := h.err
		c.release(h)
		if err != nil {
			return nil, err
		}
	}
}

// placeLocked keeps the place of a slice for the caller, who uses it.
func (c *Chunks) placeLocked(slice storage.Slice) *sliceFile {
	h := &sliceFile{slice: slice, users: 1, windows: &c.windows, ready: make(chan struct{}), gone: make(chan struct{})}
	c.open[slice] = h
	return h
}

func (h *sliceFile) isOpen() bool {
	select {
	case <-h.ready:
		return true
	default:
		return false
	}
}

// opened opens the file for a place that placeLocked made.
func (c *Chunks) opened(h *sliceFile, forWriting, exists bool, create func(f *file) error) (*sliceFile, error) {
	h.err = h.open(c.path(h.slice), c.fileOptions(), c.seen(h.slice), forWriting, exists, create)
	if h.err == nil {
		c.mu.Lock()
		v := c.verified[h.slice]
		c.verified[h.slice] = verification{directory: true, pages: v.pages || h.file != nil}
		c.sizes[h.slice] = h.bytes()
		c.mu.Unlock()
	}
	close(h.ready)
	if h.err != nil {
		err := h.err
		if errors.Is(err, storage.ErrUnknown) {
			c.latch.stop(err)
		}
		c.release(h)
		return nil, err
	}
	return h, nil
}

// open opens the file in one of three ways. A panic about what is in it is damage: others wait for the file.
func (h *sliceFile) open(path string, fo fileOptions, seen verification, forWriting, exists bool, create func(*file) error) (err error) {
	defer recoverTo(&err)
	switch {
	case !exists:
		h.file, err = createFile(path, fo, create)
		return err
	case forWriting:
		return h.openWriter(path, fo, seen)
	}
	return h.openReader(path, fo, seen)
}

func (c *Chunks) seen(slice storage.Slice) verification {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.verified[slice]
}

// openReader opens the file for reading page by page. Only what is read is checked, and the directory once.
func (h *sliceFile) openReader(path string, fo fileOptions, seen verification) error {
	f, err := openLocked(path, true)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	h.os = f
	err = h.checkReader(fo, seen)
	if err != nil {
		h.os = nil
		return errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return nil
}

func (h *sliceFile) checkReader(fo fileOptions, seen verification) error {
	if !seen.directory {
		if err := forget(h.os); err != nil && !fo.readOnly {
			return fmt.Errorf("%w: what was written last cannot be made durable: %w", storage.ErrUnknown, err)
		}
	}
	p, err := pagesOf(h.os)
	if err != nil {
		return err
	}
	if err := p.checkHeader(fo.format, fo.version); err != nil {
		return err
	}
	if len(p.notes) > 0 {
		return corruptf("%s", p.notes[0])
	}
	h.size, h.meta = p.size, p.meta
	if seen.directory {
		return nil
	}
	return (&sliceView{slice: h.slice, p: p}).audit()
}

// openWriter opens the file with bbolt, after all its pages were checked once.
func (h *sliceFile) openWriter(path string, fo fileOptions, seen verification) error {
	fo.unchecked = seen.pages
	f, err := openFile(path, fo)
	if err != nil {
		return err
	}
	h.file = f
	if seen.directory {
		return nil
	}
	if err := h.view((*sliceView).audit); err != nil {
		h.file = nil
		return errors.Join(fmt.Errorf("open %s: %w", path, err), f.close())
	}
	return nil
}

// view runs fn on the newest state of the file.
func (h *sliceFile) view(fn func(s *sliceView) error) (err error) {
	defer recoverTo(&err)
	window, ok := h.windows.Get().(*[]byte)
	if !ok {
		window = new([]byte)
	}
	run := func(p *pages) error {
		p.window = *window
		err := fn(&sliceView{slice: h.slice, p: p})
		*window = p.window
		return err
	}
	if h.file == nil {
		err = run(&pages{r: h.os, size: h.size, meta: h.meta})
	} else {
		err = h.file.viewPages(run)
	}
	h.windows.Put(window)
	return err
}

// write stores one flush. The file must be open for writing.
func (h *sliceFile) write(flush uint64, blocks [][]byte) error {
	h.writing.Lock()
	defer h.writing.Unlock()
	h.file.db.AllocSize = int(min(max(h.bytes()/8, minGrow), maxGrow))
	return writeFlush(h.file, h.slice, flush, blocks, false)
}

// bytes returns the size of the file, as far as it can be told.
func (h *sliceFile) bytes() int64 {
	f := h.os
	if h.file != nil {
		f = h.file.os
	}
	info, err := f.Stat()
	if err != nil {
		return h.size
	}
	return info.Size()
}

func (h *sliceFile) close() error {
	switch {
	case h.file != nil:
		return h.file.close()
	case h.os != nil:
		return h.os.Close()
	}
	return nil
}

// useLocked adds a user.
func (c *Chunks) useLocked(h *sliceFile) {
	if h.users == 0 {
		c.idle = slices.DeleteFunc(c.idle, func(o *sliceFile) bool { return o == h })
	}
	h.users++
}

// release ends the use of a file. It is closed if that was asked for, if it could not be opened, or if too many are open.
func (c *Chunks) release(h *sliceFile) {
	c.mu.Lock()
	h.users--
	if h.users > 0 {
		c.mu.Unlock()
		return
	}
	if h.err != nil || h.closing {
		h.closing = true
		c.finishLocked(h) // unlocks
		return
	}
	c.idle = append(c.idle, h)
	if len(c.open) > c.opts.OpenFiles {
		c.closeLocked(c.idle[0]) // unlocks
		return
	}
	c.mu.Unlock()
}

// closeLocked lets a file be closed as soon as nobody uses it. It unlocks c.mu.
func (c *Chunks) closeLocked(h *sliceFile) {
	if h.closing || h.users > 0 {
		h.closing = true
		c.mu.Unlock()
		return
	}
	h.closing = true
	c.idle = slices.DeleteFunc(c.idle, func(o *sliceFile) bool { return o == h })
	c.finishLocked(h)
}

// finishLocked closes a file that nobody uses and nobody will. It unlocks c.mu.
func (c *Chunks) finishLocked(h *sliceFile) {
	c.mu.Unlock()
	if err := h.close(); err != nil {
		// What was acknowledged was durable before.
		c.opts.Logger.Warn("slice file does not close", "slice", int(h.slice), "err", err)
	}
	c.mu.Lock()
	delete(c.open, h.slice)
	c.mu.Unlock()
	close(h.gone)
}

// alone runs fn while nobody has the slice's file open, and nobody can open it.
func (c *Chunks) alone(slice storage.Slice, fn func() error) error {
	for {
		c.mu.Lock()
		if c.closed {
			c.mu.Unlock()
			return storage.ErrClosed
		}
		h := c.open[slice]
		if h == nil {
			h = c.placeLocked(slice)
			h.closing = true
			c.mu.Unlock()
			close(h.ready)
			err := fn()
			c.release(h)
			return err
		}
		c.closeLocked(h) // unlocks
		<-h.gone
	}
}

// Close waits for everything that is under way and closes the files.
func (c *Chunks) Close() error {
	c.mu.Lock()
	c.closed = true
	for len(c.open) > 0 {
		var h *sliceFile
		for _, h = range c.open {
			break
		}
		c.closeLocked(h) // unlocks
		<-h.gone
		c.mu.Lock()
	}
	c.mu.Unlock()
	return nil
}
