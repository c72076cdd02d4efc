package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"telemetryhub/storage"
)

// Flush makes everything that was applied before the call durable in chunks and moves the checkpoint. Apply goes on
// meanwhile. When it fails the heads stay as they are and in every answer, and the next Flush tries again. With
// storage.ErrFull and storage.ErrReadOnly that is all; after storage.ErrUnknown the process should end.
func (s *Store) Flush(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	defer s.release()
	for {
		f, fresh, err := s.freeze()
		if err == nil {
			err = s.write(ctx, f)
		}
		if err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		if fresh {
			return nil
		}
	}
}

// take waits for the token of s.busy.
func (s *Store) take(ctx context.Context) error {
	select {
	case s.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Store) release() { <-s.busy }

// errHalf says that a group was applied only in part, so that no position tells what is in the heads.
var errHalf = errors.New("a group of the log is half applied: Apply must succeed first")

// freeze returns what a flush has to write, and whether everything that was applied is in it: what an earlier flush failed
// to write comes alone.
func (s *Store) freeze() (*frozen, bool, error) {
	h := &s.heads
	h.turn.Lock()
	defer h.turn.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.frozen != nil {
		return h.frozen, false, nil
	}
	if s.apply.pos > h.applied && s.apply.done > 0 {
		return nil, false, errHalf
	}
	return h.freezeLocked(), true, nil
}

// write makes frozen parts durable. The order is what makes a crash harmless: intent, chunks, what the catalog knows of
// devices, checkpoint.
func (s *Store) write(ctx context.Context, f *frozen) error {
	if f.before.pos == f.after.pos && len(f.devices) == 0 {
		f.after.flush = f.before.flush // nothing happened
		s.heads.thaw(f)
		return nil
	}
	if err := s.removeStale(ctx); err != nil {
		return err
	}
	slices.SortFunc(f.devices, func(a, b *deviceHeads) int { return cmp.Compare(a.num, b.num) })
	list := segments(f.devices)
	touched := slicesOf(list)
	if s.writer.revision == storage.Absent {
		// From here on a missing checkpoint means that it was lost.
		if err := s.saveCheckpoint(ctx, f.before); err != nil {
			return err
		}
	}
	if len(touched) > 0 {
		value := intent{f.after.flush, touched}.encode()
		if _, err := s.catalog.Put(ctx, keyIntent, value, storage.Any); err != nil {
			return fmt.Errorf("announce flush %d: %w", f.after.flush, err)
		}
	}
	for len(list) > 0 {
		n := 1
		for n < len(list) && list[n].slice == list[0].slice {
			n++
		}
		if err := s.writeSlice(ctx, list[:n], f.before); err != nil {
			return err
		}
		list = list[n:]
	}
	if err := s.saveLatest(ctx, f.devices); err != nil {
		return err
	}
	if err := s.saveGaps(ctx, f); err != nil {
		return err
	}
	if err := s.saveCheckpoint(ctx, f.after); err != nil {
		return err
	}
	s.index.changed(touched)
	s.heads.thaw(f)
	return nil
}

func (s *Store) saveCheckpoint(ctx context.Context, c checkpoint) error {
	rev, err := s.catalog.Put(ctx, keyCheckpoint, c.encode(), s.writer.revision)
	if err != nil {
		return fmt.Errorf("save the checkpoint of flush %d: %w", c.flush, err)
	}
	s.writer.revision = rev
	return nil
}

func (s *Store) writeSlice(ctx context.Context, list []segment, before checkpoint) error {
	slice := list[0].slice
	blocks, err := s.writer.blocks(ctx, list, before)
	if err != nil {
		return fmt.Errorf("slice %d: %w", slice, err)
	}
	if err := s.chunks.Write(ctx, slice, before.flush+1, blocks); err != nil {
		return fmt.Errorf("write %d blocks to slice %d: %w", len(blocks), slice, err)
	}
	return nil
}

// removeStale removes the blocks that an interrupted flush may have left.
func (s *Store) removeStale(ctx context.Context) error {
	stale := &s.writer.stale
	for len(stale.slices) > 0 {
		slice := stale.slices[0]
		list, err := s.index.list(ctx, slice)
		if err != nil {
			return err
		}
		if n := len(list.flushes); n > 0 && list.flushes[n-1].flush >= stale.flush {
			err = s.chunks.Write(ctx, slice, stale.flush, nil)
		}
		if damage(err) { // what stays there will be in the chunks twice; answers are the same
			s.o.Logger.Error("what an interrupted flush left cannot be removed", "slice", int(slice), "err", err)
		} else if err != nil {
			return fmt.Errorf("remove what an interrupted flush left in slice %d: %w", slice, err)
		}
		s.index.changed(stale.slices[:1])
		stale.slices = stale.slices[1:]
	}
	return nil
}

// putAll makes items durable, whatever they were before.
func (s *Store) putAll(ctx context.Context, items []storage.Item) error {
	bulk, ok := s.catalog.(storage.BulkPutter)
	if ok && len(items) > 1 {
		return bulk.PutAll(ctx, items)
	}
	for _, item := range items {
		if _, err := s.catalog.Put(ctx, item.Key, item.Value, storage.Any); err != nil {
			return err
		}
	}
	return nil
}
