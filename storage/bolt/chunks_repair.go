package bolt

import (
	"errors"

	"telemetryhub/storage"
)

// rescueState is what has been done about a damaged slice since the start.
type rescueState struct {
	done   int   // how often it was replaced
	failed error // why it cannot be; only a write tries again, and only if there was no room
}

// reading runs fn on the newest state of a slice.
func (c *Chunks) reading(slice storage.Slice, fn func(s *sliceView) error) error {
	return c.repairing(slice, false, func() (*sliceFile, error) {
		h, err := c.acquire(slice, false, nil)
		if err != nil {
			return nil, err
		}
		return h, h.view(fn)
	})
}

// repairing runs try, which returns the file that it used, if any. If it meets damage that is news, the file is rescued
// and try runs once more.
func (c *Chunks) repairing(slice storage.Slice, writing bool, try func() (*sliceFile, error)) error {
	c.mu.Lock()
	before := c.rescues[slice]
	c.mu.Unlock()
	for first := true; ; first = false {
		h, err := try()
		if h != nil {
			c.release(h)
		}
		if !first || !errors.Is(err, storage.ErrCorrupt) || errors.Is(err, errLost) || c.opts.ReadOnly || c.latch.err() != nil {
			return err
		}
		if failed := c.rescue(slice, writing, before.done, err); writing && errors.Is(failed, storage.ErrFull) {
			return errors.Join(err, storage.ErrFull) // the same may succeed later
		} else if failed != nil {
			return err // the failure has been reported
		}
	}
}

// rescue replaces a damaged file, unless somebody else has done so since done was read.
func (c *Chunks) rescue(slice storage.Slice, writing bool, done int, why error) error {
	return c.alone(slice, func() error {
		c.mu.Lock()
		state := c.rescues[slice]
		c.mu.Unlock()
		again := writing && errors.Is(state.failed, storage.ErrFull)
		if state.failed != nil && !again || state.done != done {
			return state.failed
		}
		d, err := salvageSlice(c.path(slice), slice, c.fileOptions(), why)
		if err != nil {
			d = Damage{File: c.path(slice), What: why.Error(), Action: "it stays as it is until the next start: " + err.Error()}
			if errors.Is(err, storage.ErrFull) {
				d.Action = "it stays as it is until there is room: " + err.Error()
			}
		}
		if !again || !errors.Is(err, storage.ErrFull) {
			c.report(d)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rescues[slice] = rescueState{done: state.done + 1, failed: err}
		delete(c.verified, slice)
		return err
	})
}
