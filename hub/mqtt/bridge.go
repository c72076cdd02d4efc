package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"telemetryhub/hub"
	"telemetryhub/storage"
)

// stable is how long a connection must have lasted for the next failure to be one of its own.
const stable = time.Minute

// Bridge hands on what a hub receives to an MQTT broker.
type Bridge struct {
	o     Options
	skips time.Time // from then on what nobody wants is passed over

	said  string // the kind of failure that was logged last, "" once that is over
	brief int    // how many connections in a row did not last
	pause time.Duration
}

// New returns a bridge. It does not connect.
func New(o Options) (*Bridge, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	o.Logger = o.Logger.With("bridge", o.Name)
	return &Bridge{o: o, pause: o.Retry}, nil
}

// Run works until ctx ends, and then returns nil. What the broker does, or that there is none, is no error: it is tried again.
// An error means that the hub's store does not work, or that the cursor is in use.
func (b *Bridge) Run(ctx context.Context) error {
	b.skips = time.Now().Add(b.o.Patience)
	c, err := b.o.Source.OpenCursor(ctx, b.o.Name) // also without a broker, since readings count from now on
	for {
		if err == nil {
			err = b.try(ctx, c)
			c.Close()
		}
		switch {
		case ctx.Err() != nil && !errors.Is(err, storage.ErrUnknown):
			return nil
		case fatal(err):
			return fmt.Errorf("the bridge %s: %w", b.o.Name, err)
		}
		b.o.Metrics.Failures.Add(1)
		b.complain(err)
		if !b.wait(ctx) {
			return nil
		}
		c, err = b.o.Source.OpenCursor(ctx, b.o.Name)
	}
}

// fatal reports whether an error of a cursor will not pass by itself.
func fatal(err error) bool {
	var bad *hub.BadInput
	for _, last := range []error{storage.ErrUnknown, storage.ErrReadOnly, storage.ErrConflict, storage.ErrClosed} {
		if errors.Is(err, last) {
			return true
		}
	}
	return errors.As(err, &bad)
}

// failure is an error with its kind, of which each is told once.
type failure struct {
	kind string
	err  error
}

func (f *failure) Error() string { return f.kind + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(kind string, err error) error {
	var f *failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	return &failure{kind, err}
}

// complain logs a failure, unless it is of the kind that was logged last: then it is the same trouble as before.
func (b *Bridge) complain(err error) {
	kind := "the bridge failed"
	var f *failure
	if errors.As(err, &f) {
		kind, err = f.kind, f.err
	}
	if kind == b.said {
		b.o.Logger.Debug("still no connection to the MQTT broker", "failure", kind, "err", err)
		return
	}
	b.said = kind
	b.o.Logger.Warn("no connection to the MQTT broker: readings are kept and sent when there is one", "failure", kind, "err", err)
}

// try makes one connection and uses it until it ends.
func (b *Bridge) try(ctx context.Context, c *hub.Cursor) error {
	s := newSession(&b.o, c)
	s.skips = b.skips
	if err := s.connect(ctx); err != nil {
		return err
	}
	began := time.Now()
	level := slog.LevelInfo
	if b.brief > 1 { // it comes and goes, which has been said
		level = slog.LevelDebug
	} else {
		b.said = ""
	}
	b.o.Metrics.Connects.Add(1)
	b.o.Metrics.Connected.Store(1)
	defer b.o.Metrics.Connected.Store(0)
	b.o.Logger.Log(ctx, level, "connected to the MQTT broker")
	err := s.run(ctx)
	b.brief++
	if time.Since(began) >= stable {
		b.pause, b.brief = b.o.Retry, 0
	}
	return err
}

// wait waits until it is time for the next try. It reports false when ctx has ended.
func (b *Bridge) wait(ctx context.Context) bool {
	t := time.NewTimer(b.o.Retry/2 + rand.N(b.pause)) // the whole range is jitter, so that bridges that fell together rise apart
	defer t.Stop()
	b.pause = min(2*b.pause, b.o.RetryMax)
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
