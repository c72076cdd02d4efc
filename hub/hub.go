package hub

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
	"telemetryhub/storage/history"
)

const keyEpoch = "epoch"

// epochLength is in characters of 5 bits. They stand in every frame; that two epochs are the same by chance happens once in 3e10
// times that data is restored.
const epochLength = 7

// Hub takes readings from devices, makes them durable, and lets everybody else follow. Its methods are safe for
// concurrent use. Sessions and viewers may connect while Run runs.
type Hub struct {
	options  Options
	logger   *slog.Logger
	log      storage.Log
	chunks   storage.Chunks
	catalog  storage.Catalog
	registry *registry
	streams  *streamTable
	history  *history.Store
	queue    *queue
	workers  *workers
	tail     *tail
	outbox   *outbox
	live     *live
	views    views
	epoch    string
	run      string // tells this run from others with the same data
	opened   time.Time
	stats    counters

	applied  progress   // of the history's cursor
	shown    progress   // of the live cursor
	saving   sync.Mutex // held by one checkpoint at a time
	draining atomic.Bool
	readOnly atomic.Bool
	sessions atomic.Int64
	viewers  atomic.Int64
	idle     chan struct{}             // has room for one: the last session has ended
	failed   chan error                // has room for one: a flush that somebody asked for could not be made durable
	pause    atomic.Pointer[wire.Slow] // what devices are asked to keep to, nil if nothing
	pausedAt time.Time                 // of pause; the committer's own

	viewersMu sync.Mutex // guards viewerSet
	viewerSet map[*Viewer]struct{}
}

// Open recovers a hub from its stores: it loads the devices and applies what the log holds after the last checkpoints.
// The stores stay the caller's. Errors wrap those of package storage.
func Open(ctx context.Context, st Stores, o Options) (*Hub, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	catalog := &twins{Catalog: st.Catalog, logger: o.Logger}
	if !o.ReadOnly {
		if err := catalog.mend(ctx); err != nil {
			return nil, err
		}
	}
	reg, err := openRegistry(ctx, catalog)
	if err != nil {
		return nil, err
	}
	h := &Hub{
		options: o, logger: o.Logger, log: st.Log, chunks: st.Chunks, catalog: catalog, registry: reg,
		streams:   &streamTable{catalog: catalog, logger: o.Logger, byKey: map[streamKey]*stream{}},
		queue:     newQueue(o.QueueBytes),
		workers:   newWorkers(),
		tail:      newTail(o.TailBytes, st.Log.Last()),
		outbox:    newOutbox(catalog, st.Log, max(o.OutboxBytes, 0), o.Logger),
		live:      newLive(reg),
		idle:      make(chan struct{}, 1),
		failed:    make(chan error, 1),
		viewerSet: map[*Viewer]struct{}{},
		views:     views{byKey: map[viewKey]*view{}},
		opened:    time.Now(),
		run:       strings.ToLower(rand.Text()[:6]),
	}
	if h.epoch, err = openEpoch(ctx, st.Catalog, o.ReadOnly); err != nil {
		return nil, err
	}
	ho := history.Options{HeadBytes: o.HeadBytes, Logger: o.Logger}
	if o.ReadOnly {
		h.readOnly.Store(true)
		ho.MaxBytes = math.MaxInt64 // what the log holds besides cannot be flushed
	}
	h.history, err = history.Open(ctx, st.Chunks, st.Catalog, reg, ho)
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	if err := h.recover(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// openEpoch returns the name of this data, which the tokens of viewers carry.
func openEpoch(ctx context.Context, c storage.Catalog, readOnly bool) (string, error) {
	v, _, err := c.Get(ctx, keyEpoch)
	if errors.Is(err, storage.ErrNotFound) || errors.Is(err, storage.ErrCorrupt) {
		v, err = []byte(strings.ToLower(rand.Text()[:epochLength])), nil
		if !readOnly {
			_, err = c.Put(ctx, keyEpoch, v, storage.Any)
		}
	}
	if err != nil {
		return "", fmt.Errorf("the epoch of the data: %w", err)
	}
	return string(v), nil
}

// Run works until ctx ends and then stops in this order: it accepts nobody new, tells devices to come back later and
// viewers that it is over, commits what has arrived, flushes history, and returns. It returns nil then, and an error that
// wraps storage.ErrUnknown as soon as nothing may be acknowledged any more. That is so too if the cause of the end of ctx
// wraps it: then another store has failed, and what has arrived is not committed.
func (h *Hub) Run(ctx context.Context) error {
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	g, work := errgroup.WithContext(work)
	commit, stopCommit := context.WithCancel(work)
	defer stopCommit()
	committed := make(chan struct{})
	shown := h.live.now().pos // before the first commit, so that the cursor misses none
	g.Go(func() error {
		defer close(committed)
		return h.commitLoop(commit)
	})
	g.Go(func() error { return h.historyLoop(work) })
	g.Go(func() error {
		return h.follow(work, shown, func(e storage.Entry) error {
			h.live.apply(work, e)
			h.shown.set(e.Position)
			return nil
		})
	})
	g.Go(func() error { return h.live.watchPresence(work) })

	var failure error // of no part of Run
	select {
	case failure = <-h.failed:
		stop(failure)
	case <-ctx.Done():
		if err := context.Cause(ctx); errors.Is(err, storage.ErrUnknown) {
			stop(err) // somebody else's store has failed
		}
	case <-work.Done():
	}
	h.drain(work)
	stopCommit()
	<-committed
	if work.Err() == nil && !h.options.ReadOnly {
		failure = h.lastFlush()
	}
	stop(nil)
	err := g.Wait()
	h.disconnect()
	h.workers.stop()
	return errors.Join(err, failure, h.history.Close())
}

// drain tells everybody to go and waits for the sessions to end, but not for ever.
func (h *Hub) drain(work context.Context) {
	h.draining.Store(true)
	h.disconnect()
	if work.Err() != nil {
		return // nothing can be committed any more
	}
	timeout := time.NewTimer(h.options.DrainTimeout)
	defer timeout.Stop()
	for h.sessions.Load() > 0 {
		select {
		case <-h.idle:
		case <-timeout.C:
			h.logger.Warn("some sessions did not end in time", "sessions", h.sessions.Load())
			return
		}
	}
}

// disconnect closes all sessions and viewers.
func (h *Hub) disconnect() {
	n := int(h.sessions.Load())
	for _, e := range h.registry.all() {
		if s := e.connected(); s != nil {
			s.farewell(n)
		}
	}
	h.viewersMu.Lock()
	viewers := make([]*Viewer, 0, len(h.viewerSet))
	for v := range h.viewerSet {
		viewers = append(viewers, v)
	}
	h.viewersMu.Unlock()
	for _, v := range viewers {
		v.peer.Close(wire.CloseDraining, wire.CloseDraining.Reason())
	}
}

func (h *Hub) sessionEnded() {
	if h.sessions.Load() == 0 {
		signal(h.idle)
	}
}

// commitLoop runs the committer. A log that can only be read any more ends ingestion but not the hub.
func (h *Hub) commitLoop(ctx context.Context) error {
	if h.options.ReadOnly {
		h.queue.close(storage.ErrReadOnly)
		<-ctx.Done()
		return nil
	}
	c := &committer{
		log: h.log, queue: h.queue, streams: h.streams, tail: h.tail, stats: &h.stats, logger: h.logger,
		interval: h.options.CommitInterval, last: h.log.Last(), held: h.held, noRoom: h.noRoom, outbox: h.outbox,
	}
	err := c.run(ctx)
	switch {
	case errors.Is(err, storage.ErrReadOnly):
		h.readOnly.Store(true)
		h.logger.Error("the log can only be read: no readings are taken any more", "err", err)
		h.disconnect()
		<-ctx.Done()
		return nil
	case ctx.Err() != nil && (errors.Is(err, ErrDraining) || errors.Is(err, storage.ErrFull)):
		h.logger.Warn("stopped with readings that found no room; devices still hold theirs", "err", err)
		return nil
	}
	return err
}

// Kick ends the session of a device, if it has one.
func (h *Hub) Kick(id device.ID, code wire.CloseCode, reason string) {
	h.registry.mu.RLock()
	e := h.registry.byID[id]
	h.registry.mu.RUnlock()
	if e == nil {
		return
	}
	if s := e.connected(); s != nil {
		s.peer.Close(code, clip(reason, 123))
	}
}
