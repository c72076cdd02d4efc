package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"golang.org/x/sync/errgroup"
)

// Broker is an MQTT broker for MQTT 3.1.1 and MQTT 5. It is safe for use by many goroutines at once.
type Broker struct {
	Options
	server    *mqtt.Server
	inner     *mqtt.Client // publishes wills
	retained  retained
	strangers strangers
	limited   limitedLog

	// spread is held while a message is distributed, for reading, and while a client takes up its session, for writing: a
	// message in between would go to the part of mochi that is just given up. It is taken before mu, and never while
	// somebody is waited for.
	spread sync.RWMutex

	started atomic.Bool
	locals  chan net.Conn
	over    chan struct{} // closed when Run is about to return

	mu       sync.Mutex // guards the fields below; may be held while mochi's locks are taken, never during I/O
	sessions map[string]*session
	open     int           // sessions with a connection from the network
	offline  int           // sessions without one
	readers  int           // sessions that have subscribed to what the hub publishes
	wanted   chan struct{} // closed and replaced when there is a first one
	stopping bool
}

// New returns a broker. It does no I/O and starts nothing.
func New(o Options) (*Broker, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	b := &Broker{
		Options:  o,
		retained: retained{max: o.MaxRetainedBytes, by: make(map[string][]byte)},
		limited:  limitedLog{log: o.Logger},
		locals:   make(chan net.Conn),
		over:     make(chan struct{}),
		sessions: make(map[string]*session),
		wanted:   make(chan struct{}),
	}
	b.strangers.max, b.strangers.metrics, b.strangers.by = o.MaxStrangers, o.Metrics, newStrangers()
	caps := mqtt.NewDefaultServerCapabilities()
	caps.MaximumMessageExpiryInterval = 0 // of which it takes care by the wall clock
	caps.MaximumClientWritesPending = int32(o.MaxPending)
	caps.MaximumSessionExpiryInterval = uint32(o.SessionExpiry / time.Second)
	caps.MaximumPacketSize = uint32(o.MaxPacket)
	caps.MaximumInflight = uint16(o.MaxInflight)
	caps.ReceiveMaximum = receiveMaximum
	caps.TopicAliasMaximum = 0 // its check of what may be published does not look behind an alias
	caps.RetainAvailable = 0   // see retained
	caps.MinimumProtocolVersion = 4
	caps.Compatibilities.NoInheritedPropertiesOnAck = true
	b.server = mqtt.New(&mqtt.Options{
		Capabilities: caps, ClientNetReadBufferSize: 512, Logger: slog.New(quiet{o.Logger.Handler()}),
	})
	if err := b.server.AddHook(&hooks{b: b}, nil); err != nil {
		return nil, fmt.Errorf("prepare the broker: %w", err)
	}
	b.inner = b.server.NewClient(nil, "hub", "$will", true)
	return b, nil
}

// Run accepts connections from the listeners, which it closes, and from Dial, until ctx ends. Then every client that
// speaks MQTT 5 gets DISCONNECT "server shutting down", all connections are closed within CloseTimeout and the time that
// Ingest takes to notice, and Run returns nil. Before that it returns only if a listener fails for good. It can be called
// once.
//
// A listener for TLS gives connections of type *tls.Conn, as those of tls.NewListener do: the handshake is made by Run.
//
// Not mochi's Serve but this is what listens: Serve gives up at the first error of Accept, publishes $SYS, forgets
// sessions without their subscriptions, and starts what nobody waits for.
func (b *Broker) Run(ctx context.Context, listeners ...net.Listener) error {
	if b.started.Swap(true) {
		return errors.New("run the broker: it has run already")
	}
	g, ctx := errgroup.WithContext(ctx)
	var conns sync.WaitGroup
	for _, ln := range listeners {
		g.Go(func() error { return b.accept(ctx, ln, &conns) })
	}
	g.Go(func() error {
		b.acceptLocal(ctx, &conns)
		return nil
	})
	g.Go(func() error {
		b.sweepUntil(ctx)
		return nil
	})
	<-ctx.Done()
	close(b.over)
	for _, ln := range listeners {
		_ = ln.Close() // accept notices, or has failed before
	}
	b.stop()
	err := g.Wait()
	conns.Wait()
	b.forget()
	return err
}

// accept serves what comes in. A lack of file descriptors and the like passes: it tries again.
func (b *Broker) accept(ctx context.Context, ln net.Listener, conns *sync.WaitGroup) error {
	wait := 5 * time.Millisecond
	for {
		raw, err := ln.Accept()
		switch {
		case err == nil:
			wait = 5 * time.Millisecond
			conns.Go(func() { b.serve(ctx, raw, false) })
			continue
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept MQTT connections: %w", err)
		}
		b.limited.info("cannot accept MQTT connections just now, trying again", "err", err, "wait", wait)
		b.strangers.displace()
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(2*wait, time.Second)
	}
}

func (b *Broker) acceptLocal(ctx context.Context, conns *sync.WaitGroup) {
	for {
		select {
		case raw := <-b.locals:
			conns.Go(func() { b.serve(ctx, raw, true) })
		case <-ctx.Done():
			return
		}
	}
}

// Dial returns a connection to the broker that does not leave the process. Whoever speaks MQTT on it is the hub itself: it
// needs no password, it may publish telemetry/# and homeassistant/#, also retained and as a will, subscribe to the same,
// and never gets back what it published itself. Its client ids are apart from those of the network. Writes wait until the
// broker reads. Dial waits until Run runs; it fails when ctx ends or Run has.
func (b *Broker) Dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case b.locals <- ours:
		return theirs, nil
	case <-b.over:
		return nil, errors.New("connect to the broker: it has stopped")
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to the broker: %w", context.Cause(ctx))
	}
}

// stop ends all connections.
func (b *Broker) stop() {
	b.strangers.closeAll()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stopping = true
	for _, s := range b.sessions {
		if s.conn != nil {
			s.conn.end(cutStopping, codeShuttingDown)
		}
	}
}

// forget ends what is left of sessions when no connection is left.
func (b *Broker) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		b.dropLocked(s)
	}
}
