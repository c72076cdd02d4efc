package bolt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"telemetryhub/storage"
)

// ChunksOptions configure a Chunks. The zero value works.
type ChunksOptions struct {
	// OpenFiles is how many slice files stay open when nobody uses them. Zero means 8. Negative is an error.
	OpenFiles int
	// SliceBytes limits each file, in steps of 64 KiB. A Write beyond it fails with storage.ErrFull. Zero means no limit.
	SliceBytes int64
	// ReadOnly opens an existing folder and never writes. What is damaged then stays as it is.
	ReadOnly bool
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *ChunksOptions) fill() error {
	if o.OpenFiles == 0 {
		o.OpenFiles = 8
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OpenFiles < 0 || o.SliceBytes < 0 {
		return fmt.Errorf("chunks options: %d open files, %d bytes a slice", o.OpenFiles, o.SliceBytes)
	}
	return nil
}

// Chunks is a storage.Chunks with one file for each slice. Files are opened when they are used.
//
// A file that turns out to be damaged is replaced by a new one with everything that can be proven right; the damaged one
// is kept beside it, and the damage is reported.
type Chunks struct {
	dir   string
	opts  ChunksOptions
	latch latch
	// windows keeps buffers of page readers, which would otherwise be most of what reading a block allocates.
	windows sync.Pool

	mu       sync.Mutex // guards the fields below; never held while a file is read or written
	closed   bool
	sizes    map[storage.Slice]int64      // of every file that exists
	open     map[storage.Slice]*sliceFile // at most one for each slice
	idle     []*sliceFile                 // those that nobody uses, the longest idle first
	rescues  map[storage.Slice]rescueState
	verified map[storage.Slice]verification
	damage   []Damage
}

// verification says what was checked of a file since this process began.
type verification struct{ directory, pages bool }

var _ storage.Chunks = (*Chunks)(nil)

const sliceSuffix = ".bolt"

// OpenChunks opens the folder, and makes it if it does not exist. Errors: storage.ErrNewerFormat if the newest slice is
// of a newer version of the program, storage.ErrReadOnly, storage.ErrFull.
func OpenChunks(dir string, opts ChunksOptions) (*Chunks, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	c := &Chunks{
		dir: dir, opts: opts, sizes: make(map[storage.Slice]int64), open: make(map[storage.Slice]*sliceFile),
		rescues: make(map[storage.Slice]rescueState), verified: make(map[storage.Slice]verification),
	}
	if !opts.ReadOnly {
		if err := makeDir(dir); err != nil {
			return nil, fmt.Errorf("open %s: %w", dir, err)
		}
	}
	if err := c.list(); err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	if err := c.checkVersion(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// makeDir makes a folder durably if it does not exist.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return openError(err)
	}
	return openError(syncDir(filepath.Dir(dir)))
}

// list finds the files of slices and removes what was not finished.
func (c *Chunks) list() error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return openError(err)
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasSuffix(name, sliceSuffix+tempSuffix) && !c.opts.ReadOnly {
			if err := removeTemp(filepath.Join(c.dir, name)); err != nil {
				return err
			}
			continue
		}
		num, isSlice := strings.CutSuffix(name, sliceSuffix)
		n, err := strconv.ParseInt(num, 10, 32)
		if !isSlice || err != nil || strconv.FormatInt(n, 10) != num {
			continue // damaged files that were kept, and what is not ours
		}
		info, err := e.Info()
		if err != nil {
			return openError(err)
		}
		c.sizes[storage.Slice(n)] = info.Size()
	}
	return nil
}

// checkVersion looks at the newest slice, so that a newer version of the program is noticed at the start.
func (c *Chunks) checkVersion() error {
	if len(c.sizes) == 0 {
		return nil
	}
	newest := slices.Max(slices.Collect(maps.Keys(c.sizes)))
	h, err := c.acquire(newest, false, nil)
	if err == nil {
		c.release(h)
	}
	if errors.Is(err, storage.ErrCorrupt) {
		return nil // it is rescued when it is used
	}
	return err
}

func (c *Chunks) path(slice storage.Slice) string {
	return filepath.Join(c.dir, strconv.FormatInt(int64(slice), 10)+sliceSuffix)
}

func (c *Chunks) fileOptions() fileOptions {
	return fileOptions{
		format: sliceFormat, version: sliceVersion, buckets: []string{blocksBucket, flushesBucket, tailBucket},
		readOnly: c.opts.ReadOnly, maxBytes: c.opts.SliceBytes, growBytes: minGrow, latch: &c.latch,
	}
}

// Write implements storage.Chunks.
func (c *Chunks) Write(ctx context.Context, slice storage.Slice, flush uint64, blocks [][]byte) error {
	for i, b := range blocks {
		if len(b) > storage.MaxBlock {
			return fmt.Errorf("write block %d of %d bytes: %w: at most %d", i, len(b), storage.ErrTooLarge, storage.MaxBlock)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.opts.ReadOnly {
		return storage.ErrReadOnly
	}
	if err := c.latch.err(); err != nil {
		return err
	}
	err := c.repairing(slice, true, func() (*sliceFile, error) {
		created := false
		h, err := c.acquire(slice, true, func(f *file) error {
			created = true
			return writeFlush(f, slice, flush, blocks, true)
		})
		if err != nil || created {
			return h, err
		}
		err = h.write(flush, blocks)
		c.mu.Lock()
		c.sizes[slice] = h.bytes()
		c.mu.Unlock()
		return h, err
	})
	if err != nil {
		return fmt.Errorf("write flush %d of slice %d: %w", flush, slice, err)
	}
	return nil
}

// Block implements storage.Chunks.
func (c *Chunks) Block(ctx context.Context, slice storage.Slice, key storage.BlockKey) (block []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = c.reading(slice, func(s *sliceView) (err error) {
		block, err = s.block(key)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("block %d of flush %d in slice %d: %w", key.Index, key.Flush, slice, err)
	}
	return block, nil
}

// Blocks implements storage.Chunks.
func (c *Chunks) Blocks(ctx context.Context, slice storage.Slice, yield func(storage.BlockKey, int) bool) error {
	var after *uint64
	var damage error // what could not be helped
	lost := uint64(0)
	for end := false; !end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var dirs []numberedDirectory
		err := c.reading(slice, func(s *sliceView) (err error) {
			dirs, end, err = s.someDirectories(after)
			return err
		})
		if err != nil && (!errors.Is(err, storage.ErrCorrupt) || len(dirs) == 0) {
			return fmt.Errorf("blocks of slice %d: %w", slice, err)
		}
		if damage == nil {
			damage = err
		}
		for _, d := range dirs {
			lost += uint64(d.lost)
			for i, e := range d.entries {
				if err := ctx.Err(); err != nil {
					return err
				}
				if !yield(storage.BlockKey{Flush: d.flush, Index: uint32(i)}, int(e.size&^lostBit)) {
					return nil
				}
			}
			after = &d.flush
		}
	}
	if damage == nil && lost > 0 {
		damage = fmt.Errorf("%w: %d flushes were %w", storage.ErrCorrupt, lost, errLost)
	}
	if damage != nil {
		return fmt.Errorf("blocks of slice %d: %w", slice, damage)
	}
	return nil
}

// Slices implements storage.Chunks.
func (c *Chunks) Slices(ctx context.Context) ([]storage.Slice, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, storage.ErrClosed
	}
	return slices.Sorted(maps.Keys(c.sizes)), nil
}

// Drop implements storage.Chunks. It waits for those who are reading the slice.
func (c *Chunks) Drop(ctx context.Context, slice storage.Slice) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.opts.ReadOnly {
		return storage.ErrReadOnly
	}
	if err := c.latch.err(); err != nil {
		return err
	}
	err := c.alone(slice, func() error {
		err := os.Remove(c.path(slice))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return openError(err)
		}
		c.mu.Lock()
		delete(c.sizes, slice)
		delete(c.verified, slice)
		c.mu.Unlock()
		if err := syncDir(c.dir); err != nil {
			err = fmt.Errorf("%w: %w", storage.ErrUnknown, err)
			c.latch.stop(err)
			return err
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop slice %d: %w", slice, err)
	}
	return nil
}

// Size implements storage.Chunks.
func (c *Chunks) Size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n int64
	for _, size := range c.sizes {
		n += size
	}
	return n
}

// Damage returns what has been found damaged since the folder was opened.
func (c *Chunks) Damage() []Damage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.damage)
}

func (c *Chunks) report(d Damage) {
	c.opts.Logger.Error("history is damaged", "file", d.File, "what", d.What, "action", d.Action)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.damage = append(c.damage, d)
}
