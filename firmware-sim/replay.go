package firmwaresim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/spool"
)

// ErrLost means that readings were played and did not get into the hub: it refused them, or a spool lost them.
var ErrLost = errors.New("not every reading is in the hub")

// ReplayOptions says how a recording is played.
type ReplayOptions struct {
	// Hub is where the hub is. Its Token is ignored: each device gets its own.
	Hub agent.Endpoint
	// Token is an API token that may add devices.
	Token string
	// Speed scales recorded gaps: 2 plays twice as fast. Zero means as fast as the hub takes it. Negative is an error.
	Speed float64
	// MaxGap shortens longer gaps. Zero leaves them as recorded.
	MaxGap time.Duration
	// Loop begins again at the end, and stamps each row with the time at which it is played.
	Loop bool
	// SpoolDir is the folder for the spools, one below it for each device. Empty keeps them in memory.
	SpoolDir string
	// StateFile remembers device tokens and how far the replay came. Empty means replay.json in SpoolDir, or none without one.
	StateFile string
	// Patience is how long to wait for the hub to answer when devices are added. Zero means 30 s.
	Patience time.Duration
	// Progress is called now and then from one goroutine, and once at the end. Nil means never.
	Progress func(Progress)
	// Every is the time between two calls of Progress. Zero means 1 s.
	Every time.Duration
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *ReplayOptions) fill() error {
	if o.Speed < 0 || o.MaxGap < 0 || o.Patience < 0 || o.Every < 0 {
		return errors.New("replay options: speed and times must not be negative")
	}
	if o.Patience == 0 {
		o.Patience = 30 * time.Second
	}
	if o.Every == 0 {
		o.Every = time.Second
	}
	if o.StateFile == "" && o.SpoolDir != "" {
		o.StateFile = filepath.Join(o.SpoolDir, "replay.json")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// fleet is a replay that runs.
type fleet struct {
	rec     *Recording
	opts    ReplayOptions
	state   *progressFile
	members []*member
	began   time.Time

	rows int // that were given to the agents, counting those of earlier runs
}

// member is one device.
type member struct {
	id    device.ID
	agent *agent.Agent
	spool *spool.Spool
}

// Replay plays the recording and returns nil when the hub has acknowledged every reading. With Loop it plays until ctx ends, and
// returns nil if what was played until then is acknowledged within a few seconds. It goes on over restarts of the hub. Errors
// wrap ErrRefused, ErrUnreachable, ErrLost, ErrRecording, an *agent.StopError, or the cause of ctx.
func Replay(ctx context.Context, rec *Recording, opts ReplayOptions) (err error) {
	if err := opts.fill(); err != nil {
		return err
	}
	f := &fleet{rec: rec, opts: opts, began: time.Now()}
	if f.state, err = loadProgress(opts.StateFile, opts.Hub.URL, rec.Path); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	if err := f.enlist(ctx); err != nil {
		return err
	}
	return f.run(ctx)
}

// enlist adds the devices to the hub and makes their agents.
func (f *fleet) enlist(ctx context.Context) error {
	c, err := newClient(f.opts.Hub, f.opts.Token, f.opts.Patience)
	if err != nil {
		return err
	}
	defer c.http.CloseIdleConnections()
	interval := int64(0)
	if f.opts.Loop && f.opts.Speed > 0 {
		interval = int64(float64(f.rec.IntervalMS) / f.opts.Speed)
	}
	schema := f.rec.Schema(interval)
	f.opts.Hub.URL = c.base + "/device/v1"
	for _, id := range f.rec.Devices {
		token := f.state.Tokens[id]
		if token == "" {
			if token, err = c.deviceToken(ctx, id); err != nil {
				return err
			}
			f.state.Tokens[id] = token
			if err := f.state.save(f.opts.StateFile); err != nil {
				return err
			}
		}
		if err := f.add(id, token, schema); err != nil {
			return fmt.Errorf("device %s: %w", id, err)
		}
	}
	return nil
}

func (f *fleet) add(id device.ID, token string, schema *device.Schema) error {
	e := f.opts.Hub
	e.Token = token
	dial, err := agent.WebSocket(e)
	if err != nil {
		return err
	}
	log := f.opts.Logger.With("device", id)
	so := spool.Options{Full: spool.Refuse, SyncEvery: 250 * time.Millisecond, MaxBytes: 8 << 20, Logger: log}
	m := &member{id: id}
	if f.opts.SpoolDir == "" {
		m.spool, err = spool.NewMemory(so)
	} else {
		so.MaxBytes = 0
		m.spool, err = spool.Open(filepath.Join(f.opts.SpoolDir, string(id)), so)
	}
	if err != nil {
		return err
	}
	f.members = append(f.members, m)
	ao := agent.Options{
		Device: id, Firmware: "replay", Model: "firmware-sim", MaxRows: 1024, MaxAge: 250 * time.Millisecond,
		MinRetry: 200 * time.Millisecond, MaxRetry: 5 * time.Second, Logger: log,
	}
	if m.agent, err = agent.New(m.spool, dial, ao); err != nil {
		return err
	}
	return m.agent.Declare(schema)
}

// run plays until all is acknowledged, an agent gives up, or ctx ends.
func (f *fleet) run(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	outlive := context.WithoutCancel(ctx) // agents deliver and progress is shown after ctx has ended
	agents, agentsCtx := errgroup.WithContext(outlive)
	agentsCtx, stopAgents := context.WithCancel(agentsCtx)
	defer stopAgents()
	for _, m := range f.members {
		agents.Go(func() error {
			err := m.agent.Run(agentsCtx)
			if err != nil {
				err = fmt.Errorf("device %s: %w", m.id, err)
				stop(err)
			}
			return err
		})
	}
	shown := make(chan struct{})
	showCtx, stopShow := context.WithCancel(outlive)
	go func() {
		defer close(shown)
		f.show(showCtx)
	}()
	err := f.play(ctx)
	if err == nil {
		err = f.drain(ctx)
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if errors.Is(err, context.Canceled) {
		err = f.finish(outlive, err)
	}
	stopAgents()
	err = errors.Join(err, ignoreIf(err, agents.Wait()))
	stopShow()
	<-shown
	if err == nil {
		err = f.lost()
	}
	return err
}

// ignoreIf leaves out what err says already.
func ignoreIf(err, also error) error {
	if err != nil && errors.Is(err, also) {
		return nil
	}
	return also
}

// play feeds the agents.
func (f *fleet) play(ctx context.Context) error {
	p := pacer{speed: f.opts.Speed, maxGap: f.opts.MaxGap, stamp: f.opts.Loop}
	saved := time.Now()
	skip := 0
	if !f.opts.Loop {
		skip = f.state.Rows
		f.rows = skip
	}
	row := device.Row{Ref: device.SetRef(0)}
	for {
		first := true
		err := f.rec.Play(skip, func(dev int, at int64, values []device.Value) error {
			if first {
				p.again(at)
				first = false
			}
			var err error
			if row.TimeMS, err = p.next(ctx, at); err != nil {
				return err
			}
			row.Values = values
			if err := f.members[dev].agent.Append(ctx, row); err != nil {
				return fmt.Errorf("device %s: %w", f.members[dev].id, err)
			}
			f.rows++
			if f.opts.StateFile != "" && time.Since(saved) >= 2*time.Second {
				saved = time.Now()
				return f.checkpoint(ctx)
			}
			return ctx.Err()
		})
		if err != nil || !f.opts.Loop {
			return err
		}
	}
}

// checkpoint remembers the rows that are durable in the spools.
func (f *fleet) checkpoint(ctx context.Context) error {
	for _, m := range f.members {
		if err := m.agent.Flush(ctx); err != nil {
			return fmt.Errorf("device %s: %w", m.id, err)
		}
	}
	if !f.opts.Loop {
		f.state.Rows = f.rows
	}
	return f.state.save(f.opts.StateFile)
}

// drain waits until everything is acknowledged, and then forgets the place in the recording.
func (f *fleet) drain(ctx context.Context) error {
	if f.opts.StateFile != "" {
		if err := f.checkpoint(ctx); err != nil {
			return err
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range f.members {
		g.Go(func() error { return m.agent.Wait(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	f.state.Rows = 0
	return f.state.save(f.opts.StateFile)
}

// finish ends a replay that was interrupted: with Loop that is the usual end, and what was played gets a little time.
func (f *fleet) finish(ctx context.Context, err error) error {
	if !f.opts.Loop {
		if f.opts.SpoolDir == "" {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return errors.Join(err, f.checkpoint(ctx))
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return f.drain(ctx)
}

// lost returns an error if the hub refused readings or a spool dropped some.
func (f *fleet) lost() error {
	var refused, dropped uint64
	for _, m := range f.members {
		refused += m.agent.Stats().Refused
		dropped += m.spool.Status().Lost
	}
	if refused+dropped > 0 {
		return fmt.Errorf("%w: the hub refused %d and the spools dropped %d", ErrLost, refused, dropped)
	}
	return nil
}

func (f *fleet) close() (err error) {
	for _, m := range f.members {
		err = errors.Join(err, m.spool.Close())
	}
	return err
}
