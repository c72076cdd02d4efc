package history

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// Open makes the history of chunks and catalog ready: it removes what an interrupted flush left, and finds out from where
// the log must be applied ([Store.Checkpoint]). It reads no chunk, unless the checkpoint in the catalog is damaged or
// missing. All arguments are lent: they must outlive the store. Errors: storage.ErrNewerFormat.
func Open(ctx context.Context, chunks storage.Chunks, catalog storage.Catalog, schemas Schemas, o Options) (*Store, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	enc, err := chunk.NewEncoder()
	if err != nil {
		return nil, err
	}
	dec, err := chunk.NewDecoder()
	if err != nil {
		return nil, err
	}
	s := &Store{
		chunks: chunks, catalog: catalog, schemas: schemas, o: o, dec: dec,
		index:  newIndex(chunks, o.IndexBytes, o.Logger),
		busy:   make(chan struct{}, 1),
		writer: writer{enc: enc},
	}
	s.heads.devices = make(map[uint32]*deviceHeads)
	s.heads.dropped = make(map[uint32]bool)
	if err := s.load(ctx); err != nil {
		dec.Close()
		return nil, fmt.Errorf("open history: %w", err)
	}
	return s, nil
}

// Close releases the memory of the store. A query that still runs fails with storage.ErrClosed when it needs the next chunk.
// Close does not flush, and it closes neither chunks nor catalog.
func (s *Store) Close() error {
	s.dec.Close()
	return nil
}

func (s *Store) load(ctx context.Context) error {
	if err := s.loadDropped(ctx); err != nil {
		return err
	}
	saved, err := s.loadCheckpoint(ctx)
	if err != nil {
		return err
	}
	s.heads.saved, s.heads.applied, s.heads.arrivalMS = saved, saved.pos, saved.arrivalMS
	s.apply.arrivalMS = saved.arrivalMS
	if err := s.findStale(ctx, saved.flush); err != nil {
		return err
	}
	err = s.removeStale(ctx)
	if errors.Is(err, storage.ErrFull) || errors.Is(err, storage.ErrReadOnly) {
		s.o.Logger.Warn("what an interrupted flush left cannot be removed yet", "err", err)
		return nil
	}
	return err
}

// loadDropped reads which devices are dropped. A mark that is damaged keeps nobody from the rest: who it was of is not known
// here, but the one who gives the numbers does not ask for that device any more.
func (s *Store) loadDropped(ctx context.Context) error {
	err := s.catalog.List(ctx, prefixDropped, func(item storage.Item) bool {
		if num, err := strconv.ParseUint(item.Key[len(prefixDropped):], 10, 32); err == nil {
			s.heads.dropped[uint32(num)] = true
		}
		return true
	})
	if errors.Is(err, storage.ErrCorrupt) {
		s.o.Logger.Error("the mark of a deleted device is damaged: its history is on the disk like that of any other", "err", err)
		return nil
	}
	if err != nil {
		return fmt.Errorf("list dropped devices: %w", err)
	}
	return nil
}

// loadCheckpoint reads the checkpoint, or derives it from the chunks if it is damaged, or missing although there are
// chunks.
func (s *Store) loadCheckpoint(ctx context.Context) (checkpoint, error) {
	p, revision, err := s.catalog.Get(ctx, keyCheckpoint)
	var c checkpoint
	if err == nil {
		c, err = decodeCheckpoint(p)
	}
	if err == nil {
		s.writer.revision = revision
		return c, nil
	}
	if !damage(err) {
		return c, err
	}
	all, listed := s.chunks.Slices(ctx)
	if listed != nil {
		return c, fmt.Errorf("list slices: %w", listed)
	}
	if errors.Is(err, storage.ErrNotFound) && len(all) == 0 {
		s.writer.revision = storage.Absent
		return checkpoint{}, nil
	}
	s.writer.revision = storage.Any
	c, derived := s.derive(ctx, all)
	if derived != nil {
		return c, fmt.Errorf("derive the checkpoint from the chunks, after %w: %w", err, derived)
	}
	s.o.Logger.Error("the checkpoint of the history is lost: it was derived from the chunks", "err", err,
		"position", uint64(c.pos), "flush", c.flush)
	return c, nil
}

// derive returns a checkpoint that is not later than the lost one: where the newest flush that left a directory began. It
// removes nothing, be it of an interrupted flush or not, since the log may have been trimmed. What is applied again is in
// the chunks twice then; answers are the same.
func (s *Store) derive(ctx context.Context, all []storage.Slice) (checkpoint, error) {
	places := make(map[uint64][]storage.Slice)
	for _, slice := range all {
		list, err := s.index.list(ctx, slice)
		if err != nil {
			return checkpoint{}, err
		}
		for _, f := range list.flushes {
			places[f.flush] = append(places[f.flush], slice)
		}
	}
	flushes := slices.Sorted(maps.Keys(places))
	slices.Reverse(flushes)
	for _, flush := range flushes {
		for _, slice := range places[flush] {
			d, err := s.index.readDirectory(ctx, slice, flush)
			if damage(err) {
				continue
			}
			if err != nil {
				return checkpoint{}, err
			}
			d.before.flush = flushes[0]
			return d.before, nil
		}
	}
	var c checkpoint
	if len(flushes) > 0 {
		c.flush = flushes[0]
	}
	return c, nil
}

// findStale finds the slices that an interrupted flush may have left blocks in.
func (s *Store) findStale(ctx context.Context, saved uint64) error {
	existing, err := s.chunks.Slices(ctx)
	if err != nil {
		return fmt.Errorf("list slices: %w", err)
	}
	p, _, err := s.catalog.Get(ctx, keyIntent)
	var i intent
	if err == nil {
		i, err = decodeIntent(p)
	}
	switch {
	case damage(err):
		i = intent{saved + 1, existing} // the intent is lost, or was never written: look at every slice
	case err != nil:
		return fmt.Errorf("read the intent of the last flush: %w", err)
	case i.flush <= saved:
		return nil
	}
	s.writer.stale = intent{saved + 1, slices.DeleteFunc(i.slices, func(slice storage.Slice) bool {
		_, found := slices.BinarySearch(existing, slice)
		return !found
	})}
	return nil
}
