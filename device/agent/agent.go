package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

// Agent brings rows to the hub. New makes one; its methods may be called concurrently.
type Agent struct {
	spool *spool.Spool
	dial  Dialer
	opts  Options
	log   *slog.Logger

	credit   credit
	stats    counters
	maxFrame atomic.Uint32 // the hub's limit

	notices notices // to people at the hub

	in    sync.Mutex // guards batch; held across writes to the spool
	batch batch

	mu        sync.Mutex // guards the fields below
	changed   chan struct{}
	ended     error // nil while Run may still do something
	connected bool
	lastErr   error
}

type counters struct {
	appended, sent, acked, refused, batches, connects atomic.Uint64
}

// Stats counts what the agent did since New.
type Stats struct {
	// Appended, Sent and Acked count readings. Sent counts those that were sent again once more.
	Appended, Sent, Acked uint64
	// Refused counts the readings that the hub did not take.
	Refused uint64
	// Batches counts the batches and gaps that were sent, Connects the connections that came to a welcome.
	Batches, Connects uint64
	// Connected says whether there is a welcome now. If not, LastErr says why, nil before the first try has failed.
	Connected bool
	LastErr   error
}

// New returns an agent that keeps its rows in sp, which the caller closes after Run has returned. It fails only on bad options.
func New(sp *spool.Spool, dial Dialer, opts Options) (*Agent, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	a := &Agent{
		spool: sp, dial: dial, opts: opts, log: opts.Logger.With("component", "agent"),
		credit: credit{wake: make(chan struct{}, 1)}, changed: make(chan struct{}),
	}
	a.maxFrame.Store(wire.MaxFrame)
	a.batch.reset()
	return a, nil
}

// Run keeps the agent connected until ctx ends, and then returns nil. Before it returns, rows that were appended are put into
// the spool. An error means that trying again is pointless: it wraps a *StopError if the hub refused the device for good, or
// an error of package spool: ErrFull if there was no room for the last rows, which are lost then.
func (a *Agent) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.spool.Run(gctx) })
	g.Go(func() error { return a.closeOld(gctx) })
	g.Go(func() error { return a.keepConnected(gctx) })
	err := g.Wait()
	a.in.Lock()
	left, lost := a.closeBatch(), a.batch.readings
	a.in.Unlock()
	if errors.Is(left, spool.ErrFull) {
		left = fmt.Errorf("%d readings are lost: %w", lost, left)
	}
	if !errors.Is(left, spool.ErrClosed) {
		err = errors.Join(err, left)
	}
	a.mu.Lock()
	a.ended = ErrEnded
	if err != nil {
		a.ended = fmt.Errorf("%w: %w", ErrEnded, err)
	}
	a.mu.Unlock()
	a.notify()
	return err
}

// keepConnected has one session after the other.
func (a *Agent) keepConnected(ctx context.Context) error {
	tries := backoff{min: a.opts.MinRetry, max: a.opts.MaxRetry, random: a.opts.Rand}
	for {
		s := newSession(a)
		err := s.run(ctx)
		a.setState(false, err)
		if ctx.Err() != nil {
			return nil
		}
		if stop := final(err); stop != nil {
			return stop
		}
		if errors.Is(err, spool.ErrClosed) {
			return err
		}
		delay := tries.next(s.progress(), s.retry, errors.Is(err, errNextStream))
		level := slog.LevelWarn
		if errors.Is(err, errNextStream) {
			level = slog.LevelInfo
		}
		a.log.Log(ctx, level, "not connected, trying again", "err", err, "in", delay)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(delay):
		}
	}
}

// Wait flushes and returns nil when everything that was appended is acknowledged. It returns an error that wraps ErrEnded
// when Run has returned before that, or the cause of ctx.
func (a *Agent) Wait(ctx context.Context) error {
	if err := a.Flush(ctx); err != nil && a.spool.Status().Fault == nil {
		return err
	}
	for {
		changed, ended := a.watch()
		switch {
		case a.spool.Status().Waiting == 0:
			return nil
		case ended != nil:
			return ended
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d batches are not acknowledged: %w", a.spool.Status().Waiting, context.Cause(ctx))
		case <-changed:
		}
	}
}

// Stats returns a snapshot.
func (a *Agent) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	return Stats{
		Appended: a.stats.appended.Load(), Sent: a.stats.sent.Load(), Acked: a.stats.acked.Load(),
		Refused: a.stats.refused.Load(), Batches: a.stats.batches.Load(), Connects: a.stats.connects.Load(),
		Connected: a.connected, LastErr: a.lastErr,
	}
}

func (a *Agent) setState(connected bool, err error) {
	a.mu.Lock()
	a.connected = connected
	if err != nil {
		a.lastErr = err
	}
	a.mu.Unlock()
	a.notify()
}

// watch returns a channel that is closed when something changes: an ack, the end of Run.
func (a *Agent) watch() (changed <-chan struct{}, ended error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed, a.ended
}

func (a *Agent) notify() {
	a.mu.Lock()
	defer a.mu.Unlock()
	close(a.changed)
	a.changed = make(chan struct{})
}
