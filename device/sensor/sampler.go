package sensor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"periph.io/x/conn/v3/i2c"

	"telemetryhub/device"
)

// Buses opens the buses of a machine. A bus is opened once and closed by who opened it.
type Buses interface {
	// I2C opens a bus by its name, as "I2C1"; empty means the first one. The error says which there are.
	I2C(name string) (i2c.BusCloser, error)
}

// Sink takes what is read. Its methods are called from several goroutines, one for each bus.
type Sink interface {
	// Sample takes a row that was read at a moment. Its TimeMS is zero, and its values are lent for the call. An error ends
	// the Sampler.
	Sample(ctx context.Context, at time.Time, row device.Row) error
	// Fault tells that the chip whose first metric has the alias does not work, or with a nil error that it works again.
	// It is called when that changes.
	Fault(alias uint16, source string, err error)
}

// Options configures a Sampler. The zero value works.
type Options struct {
	// Quality is set on every row, as device.Simulated.
	Quality device.Quality
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

// ErrHung means that a bus did not come back when the Sampler was told to end. Only the end of the process frees it.
var ErrHung = errors.New("a bus hangs")

const (
	// retryOpen is the least time between two tries to make a chip ready.
	retryOpen = time.Second
	// hungAfter is how long a bus may be busy beyond what a chip may take before its chips are reported.
	hungAfter = 2 * time.Second
	// farewell is how long Run waits for buses when it ends.
	farewell = 2 * time.Second
)

// Sampler reads chips on a schedule. Each chip is read at multiples of its interval on the clock (every 10 s: at :00, :10, …).
// One that is late is skipped and not caught up. A chip that fails is reported once, made ready again from the start and
// tried at its next turn; the others go on. Each bus has a goroutine of its own, so one that hangs stops only its chips.
type Sampler struct {
	opts   Options
	sink   Sink
	buses  Buses
	lines  []*line
	schema device.Schema
}

// line is one bus.
type line struct {
	name   string
	places []*place

	mu    sync.Mutex // guards the fields below
	since time.Time  // when the operation that runs began; zero if none runs
	at    *place     // whose it is
	hung  bool       // it was reported
}

// place is a chip at its place. Its bus's goroutine owns it; the watch only reports faults, under line.mu.
type place struct {
	spec   Spec
	model  *model
	ref    device.Ref
	alias  uint16
	chip   Chip // nil until it is ready
	values []device.Value
	next   time.Time
	faulty bool // guarded by line.mu
}

// NewSampler checks what is to be read. It does no I/O.
func NewSampler(specs []Spec, buses Buses, sink Sink, o Options) (*Sampler, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Sampler{opts: o, sink: sink, buses: buses}
	for _, spec := range specs {
		if err := s.add(spec); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Sampler) add(spec Spec) error {
	m, err := spec.fill()
	if err != nil {
		return err
	}
	metrics, err := spec.metricsOf(m)
	if err != nil {
		return err
	}
	p := &place{spec: spec, model: m, alias: uint16(len(s.schema.Metrics) + 1), values: make([]device.Value, len(metrics))}
	set := device.Set{Index: uint16(len(s.schema.Sets) + 1)}
	for _, metric := range metrics {
		if slices.ContainsFunc(s.schema.Metrics, func(o device.Metric) bool { return o.Name == metric.Name }) {
			return fmt.Errorf("two sensors measure %q: give one of them a prefix", metric.Name)
		}
		metric.Alias = uint16(len(s.schema.Metrics) + 1)
		set.Metrics = append(set.Metrics, len(s.schema.Metrics))
		s.schema.Metrics = append(s.schema.Metrics, metric)
	}
	p.ref = device.SetRef(len(s.schema.Sets))
	s.schema.Sets = append(s.schema.Sets, set)
	i := slices.IndexFunc(s.lines, func(l *line) bool { return l.name == spec.Bus })
	if i < 0 {
		i = len(s.lines)
		s.lines = append(s.lines, &line{name: spec.Bus})
	}
	l := s.lines[i]
	if slices.ContainsFunc(l.places, func(o *place) bool { return o.spec.Addr == spec.Addr }) {
		return fmt.Errorf("two sensors at %#02x on the bus %q", spec.Addr, spec.Bus)
	}
	l.places = append(l.places, p)
	return nil
}

// Schema returns what the rows mean: each chip is a set. It must not be changed.
func (s *Sampler) Schema() *device.Schema { return &s.schema }

// Run reads until ctx ends or the sink fails. It returns nil after ctx has ended, or ErrHung if a bus did not come back;
// that is the one case in which a goroutine is left.
func (s *Sampler) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range s.lines {
		g.Go(func() error { return s.runLine(ctx, l) })
	}
	ended := make(chan error, 1)
	go func() { ended <- g.Wait() }()
	watch := time.NewTicker(time.Second)
	defer watch.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-watch.C:
			for _, l := range s.lines {
				s.reportHung(l)
			}
			continue
		case <-ctx.Done():
		}
		select {
		case err := <-ended:
			return err
		case <-time.After(farewell):
			return ErrHung
		}
	}
}

// reportHung tells of the chips of a bus that does not come back.
func (s *Sampler) reportHung(l *line) {
	l.mu.Lock()
	hung := !l.since.IsZero() && !l.hung && time.Since(l.since) > l.at.model.budget+hungAfter
	l.hung = l.hung || hung
	at := l.at
	l.mu.Unlock()
	if !hung {
		return
	}
	for _, c := range l.places {
		s.report(l, c, fmt.Errorf("%s: the bus hangs since %s was read: check the wiring, or restart the machine", c.spec.source(), at.spec.source()))
	}
}

// report tells the sink if the state of a chip has changed.
func (s *Sampler) report(l *line, c *place, err error) {
	l.mu.Lock()
	changed := c.faulty != (err != nil)
	c.faulty = err != nil
	l.mu.Unlock()
	if !changed {
		return
	}
	if err != nil {
		s.opts.Logger.Warn("a sensor does not work", "sensor", c.spec.source(), "err", err)
	} else {
		s.opts.Logger.Info("a sensor works again", "sensor", c.spec.source())
	}
	s.sink.Fault(c.alias, c.spec.source(), err)
}

// runLine reads the chips of one bus.
func (s *Sampler) runLine(ctx context.Context, l *line) error {
	var bus i2c.BusCloser
	defer func() {
		if bus != nil {
			_ = bus.Close() // nothing was written to it that could be lost
		}
	}()
	for _, c := range l.places {
		c.next = slot(time.Now(), c.spec.Every)
	}
	for {
		c := slices.MinFunc(l.places, func(a, b *place) int { return a.next.Compare(b.next) })
		if err := c.wait(ctx); err != nil {
			return nil
		}
		var err error
		if bus == nil {
			bus, err = s.buses.I2C(l.name)
		}
		if err == nil {
			err = s.sense(l, c, bus)
		}
		if c.next = slot(time.Now(), c.spec.Every); err != nil {
			c.chip = nil // it may have lost its settings with its supply
			c.next = slot(time.Now().Add(retryOpen), c.spec.Every)
			s.report(l, c, err)
			continue
		}
		s.report(l, c, nil)
		row := device.Row{Ref: c.ref, Values: c.values, Quality: s.opts.Quality}
		if err := s.sink.Sample(ctx, time.Now(), row); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s: %w", c.spec.source(), err)
		}
	}
}

// sense reads a chip, after making it ready if need be.
func (s *Sampler) sense(l *line, c *place, bus i2c.Bus) (err error) {
	l.mu.Lock()
	l.since, l.at = time.Now(), c
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		l.since, l.hung = time.Time{}, false
		l.mu.Unlock()
	}()
	if c.chip == nil {
		if c.chip, err = Open(bus, c.spec); err != nil {
			return err
		}
	}
	return c.chip.Sense(c.values)
}

// slot returns the next multiple of every after t.
func slot(t time.Time, every time.Duration) time.Time { return t.Truncate(every).Add(every) }

// wait waits for the chip's turn. The clock may be set meanwhile: no wait is longer than the interval, and a turn that has
// become far away is moved.
func (c *place) wait(ctx context.Context) error {
	for {
		d := time.Until(c.next)
		if d <= 0 {
			return nil
		}
		if d > c.spec.Every+retryOpen {
			c.next = slot(time.Now(), c.spec.Every)
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(d, c.spec.Every)):
		}
	}
}
