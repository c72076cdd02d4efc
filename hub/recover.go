package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"telemetryhub/storage"
	"telemetryhub/storage/history"
	"telemetryhub/storage/record"
)

// keyStreams is the position up to which the catalog knows the sequence numbers of all streams.
const keyStreams = "cursor/streams"

type cursorRecord struct {
	Version  int              `json:"v"`
	Position storage.Position `json:"pos"`
	Marks    [][4]uint64      `json:"log,omitempty"` // of the ledger
}

// recover brings the views over the log up to date: history and live state from the history's checkpoint on, the streams
// from theirs.
func (h *Hub) recover(ctx context.Context) error {
	began := time.Now()
	if err := h.restoreLatest(ctx); err != nil {
		return err
	}
	saved, err := h.loadCursor(ctx, keyStreams)
	if err != nil {
		return err
	}
	from := saved.Position
	if from > h.log.Last() || h.history.Checkpoint() > h.log.Last() {
		return fmt.Errorf("the checkpoint is at %d, but the log ends at %d: the end of the log is missing: %w; run hub check, or restore a backup",
			max(from, h.history.Checkpoint()), h.log.Last(), storage.ErrCorrupt)
	}
	from = min(from, h.history.Checkpoint())
	if err := h.outbox.load(ctx, max(from, h.log.First()), saved.Marks); err != nil {
		return err
	}
	groups, records := 0, 0
	var failed error
	err = h.log.Read(ctx, max(from, h.log.First()), func(e storage.Entry) bool {
		n, err := h.replay(ctx, e)
		groups, records, failed = groups+1, records+n, err
		return err == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("replay the log: %w", err)
	}
	h.history.LogEnds(time.Now().UnixMilli())
	if err := h.finishDeletions(ctx); err != nil {
		return err
	}
	h.applied.set(h.history.Applied())
	h.shown.set(h.log.Last())
	h.live.settle(h.log.Last(), time.Now())
	h.logger.Info("recovered", "devices", len(h.registry.byID), "groups", groups, "records", records,
		"position", uint64(h.log.Last()), "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// replay applies one group at the start.
func (h *Hub) replay(ctx context.Context, e storage.Entry) (records int, err error) {
	var r record.Reader
	if e.Damaged {
		h.logger.Error("a group of the log is damaged", "position", uint64(e.Position), "bytes", len(e.Group))
		r = record.Salvage(e.Group)
	} else if r, err = record.Read(e.Group); err != nil {
		return 0, err
	}
	for r.Next() {
		rec := r.Record()
		records++
		if rec.Stream != 0 && rec.Seq != 0 {
			h.streams.seen(streamKey{rec.Device, rec.Stream}, rec.Seq, rec.ArrivalMS)
		}
	}
	if err := r.Err(); err != nil { // the history takes what is readable and records the loss
		h.logger.Error("a group of the log is not readable to its end", "position", uint64(e.Position), "err", err)
	}
	h.outbox.ledger.note(e.Position, len(e.Group), groupMS(e.Group))
	for e.Position > h.history.Applied() && !h.stats.historyStuck.Load() {
		err := h.history.ApplyEntry(ctx, e)
		if errors.Is(err, storage.ErrFull) {
			err = h.checkpoint(ctx, e.Position)
			if noRoom(err) { // the history's cursor goes on from here when there is room
				h.logger.Error("the history cannot be written; what the log holds besides is not shown until it can", "err", err)
				h.stats.historyStuck.Store(true)
				break
			}
		}
		if err != nil {
			return records, err
		}
	}
	h.live.apply(ctx, e)
	return records, nil
}

// finishDeletions drops the history of devices whose deletion was interrupted.
func (h *Hub) finishDeletions(ctx context.Context) error {
	for _, e := range h.registry.gone() {
		if e.record().Dropped {
			continue
		}
		if err := h.dropHistory(ctx, e); noRoom(err) {
			h.logger.Warn("the history of a deleted device cannot be removed yet; the next start tries again", "device", e.id, "err", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// restoreLatest fills the live state with what history knows.
func (h *Hub) restoreLatest(ctx context.Context) error {
	var failed error
	err := h.history.Latest(ctx, func(num uint32, p history.Point, arrivalMS int64, pos storage.Position) bool {
		e := h.registry.number(num)
		if e == nil || e.deleted.Load() {
			return true
		}
		e.mu.Lock()
		b, err := e.bookLocked(ctx, h.registry)
		e.mu.Unlock()
		if errors.Is(err, storage.ErrCorrupt) { // nobody else has to suffer for that
			h.logger.Error("a device cannot be used, because what it declared is lost", "device", e.id, "err", err)
			return true
		}
		if failed = err; err != nil {
			return false
		}
		if p.Metric == 0 || p.Metric > uint32(len(b.metrics)) {
			return true
		}
		h.live.restore(e, cell{
			mark: mark{pos: pos}, metric: &b.metrics[p.Metric-1],
			timeMS: p.TimeMS, seenMS: arrivalMS, value: p.Value, quality: p.Quality,
		})
		return true
	})
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("read the newest values: %w", err)
	}
	return nil
}

func (h *Hub) loadCursor(ctx context.Context, key string) (cursorRecord, error) {
	v, rev, err := h.catalog.Get(ctx, key)
	var rec cursorRecord
	if err == nil {
		err = decodeRecord(storage.Item{Key: key, Value: v, Revision: rev}, &rec, func() int { return rec.Version })
	}
	switch {
	case errors.Is(err, storage.ErrNotFound):
		return cursorRecord{}, nil
	case errors.Is(err, storage.ErrCorrupt):
		h.logger.Error("a cursor is lost: the log is read from its beginning", "key", key, "err", err)
		return cursorRecord{}, nil
	}
	if err != nil {
		return cursorRecord{}, fmt.Errorf("read the cursor %s: %w", key, err)
	}
	return rec, nil
}

func (h *Hub) saveCursor(ctx context.Context, key string, pos storage.Position) error {
	v, err := json.Marshal(cursorRecord{Version: recordVersion, Position: pos, Marks: h.outbox.marks()})
	if err == nil {
		_, err = h.catalog.Put(ctx, key, v, storage.Any)
	}
	if err != nil {
		return fmt.Errorf("save the cursor %s: %w", key, err)
	}
	return nil
}

// checkpoint flushes history, saves the sequence numbers of the streams, which must be complete up to pos, and lets the log
// forget what both have. If there is no room for that, the outside cursors give up what the log holds for them.
func (h *Hub) checkpoint(ctx context.Context, pos storage.Position) error {
	h.saving.Lock()
	defer h.saving.Unlock()
	err := h.save(ctx, pos)
	if errors.Is(err, storage.ErrFull) && h.outbox.yield(ctx) {
		err = h.save(ctx, pos)
	}
	return err
}

func (h *Hub) save(ctx context.Context, pos storage.Position) error {
	if err := h.history.Flush(ctx); err != nil {
		return fmt.Errorf("flush the history: %w", err)
	}
	if err := h.streams.checkpoint(ctx); err != nil {
		return err
	}
	if err := h.saveCursor(ctx, keyStreams, pos); err != nil {
		return err
	}
	h.stats.flushes.Add(1)
	return h.outbox.trim(ctx, min(pos, h.history.Checkpoint()))
}

// historyLoop is the history's cursor. A flush runs beside it, one at a time.
func (h *Hub) historyLoop(ctx context.Context) error {
	if h.options.ReadOnly { // recovery has applied all that there will ever be
		<-ctx.Done()
		return nil
	}
	flushed := make(chan error, 1)
	flushing := false
	var notBefore time.Time // when to try again after a flush has failed
	start := func() {
		flushing = true
		go func() { flushed <- h.checkpoint(ctx, h.tail.end()) }()
	}
	finish := func(err error) error {
		flushing = false
		if err != nil {
			notBefore = time.Now().Add(fullRetry)
		}
		return h.flushError(ctx, err)
	}
	defer func() {
		if flushing {
			<-flushed
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	poll := func() error {
		select {
		case err := <-flushed:
			return finish(err)
		default:
		}
		if !flushing && h.history.Due() && !time.Now().Before(notBefore) {
			start()
		}
		return nil
	}
	apply := func(e storage.Entry) error {
		for {
			err := h.history.ApplyEntry(ctx, e)
			if err == nil {
				h.applied.set(e.Position)
			}
			if !errors.Is(err, storage.ErrFull) {
				return errors.Join(err, poll())
			}
			if !flushing {
				select {
				case <-time.After(time.Until(notBefore)):
				case <-ctx.Done():
				}
				start()
			}
			select {
			case err := <-flushed:
				if err := finish(err); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return h.followTicking(ctx, h.history.Applied(), apply, tick.C, poll)
}

// flushError decides what a failed flush means: a full disk is waited out, since the log holds everything; after a failed
// fsync the process must end.
func (h *Hub) flushError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		h.stats.historyStuck.Store(false)
		return nil
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, storage.ErrUnknown), errors.Is(err, storage.ErrClosed):
		return err
	}
	if !h.stats.historyStuck.Swap(true) {
		h.logger.Error("the history cannot be written; the log keeps everything and it is tried again", "err", err)
	}
	return nil
}

// lastFlush writes what is in memory before the stores are closed. If it fails nothing is lost: the log has it. It returns
// only an error that must be known outside.
func (h *Hub) lastFlush() error {
	ctx, cancel := context.WithTimeout(context.Background(), h.options.DrainTimeout)
	defer cancel()
	err := h.FlushHistory(ctx)
	if errors.Is(err, storage.ErrUnknown) {
		return err
	}
	if err != nil {
		h.logger.Warn("the last flush did not finish; the next start reads the log instead", "err", err)
	}
	return nil
}

// FlushHistory makes everything that is in the log durable in the history. It returns when that is done. After an error that
// wraps storage.ErrUnknown Run ends.
func (h *Hub) FlushHistory(ctx context.Context) error {
	end := h.tail.end()
	if err := h.applied.wait(ctx, end); err != nil {
		return fmt.Errorf("the history is still behind the log: %w", err)
	}
	err := h.checkpoint(ctx, end)
	if errors.Is(err, storage.ErrUnknown) {
		select {
		case h.failed <- err:
		default: // it has been told
		}
	}
	return err
}
