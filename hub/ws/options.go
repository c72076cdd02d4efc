package ws

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
)

// Options configures a Devices or a Viewers. The zero value works.
type Options struct {
	// Ping is how often a peer is pinged. One that has sent no frame for 2.5 times as long is cut. Zero means 25 s.
	Ping time.Duration
	// FirstFrame is how long a peer may take after the upgrade until its first valid frame. Zero means 10 s.
	FirstFrame time.Duration
	// WriteTimeout is how long a write may wait for the peer to read at most, and three quarters of it at least. Zero means
	// 10 s.
	WriteTimeout time.Duration
	// CloseTimeout is how long the closing handshake may take, after which the connection is cut. Zero means 2 s.
	CloseTimeout time.Duration
	// MaxConns is the most connections at a time; more are refused with 503. Zero means 20,000.
	MaxConns int
	// Connects limits the upgrades of everybody together, SourceConnects those of one address; what is over is refused
	// with 503 and Retry-After. Zero means 1,000 a second (2,000 at once) and 50 a second (500 at once).
	Connects, SourceConnects Rate
	// Source tells the address that a request comes from, as a hub behind a proxy needs it. Nil means the address of the
	// connection. Loopback and invalid addresses have no limit of their own: there simulators and proxies live.
	Source func(*http.Request) netip.Addr
	// Crew writes to the connections. Nil means one of its own.
	Crew *crew.Crew
	// Metrics is counted into. Nil means that nobody looks.
	Metrics *Metrics
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

// Rate is a limit on how often something may happen.
type Rate struct {
	PerSecond float64 // in the long run; negative means no limit
	Burst     int     // at once
}

// deadAfter is how many pings may go unanswered, as wire's welcome promises.
const deadAfter = 2.5

// away is how late a timer must be for the hub to conclude that its process did not run for a while.
const away = 2 * time.Second

func (o *Options) fill() error {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.Ping, 25 * time.Second}, {&o.FirstFrame, 10 * time.Second},
		{&o.WriteTimeout, 10 * time.Second}, {&o.CloseTimeout, 2 * time.Second},
	} {
		if *d.v < 0 {
			return errors.New("ws options: a duration is negative")
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.MaxConns < 0 {
		return errors.New("ws options: MaxConns is negative")
	}
	if o.MaxConns == 0 {
		o.MaxConns = 20_000
	}
	if o.Connects == (Rate{}) {
		o.Connects = Rate{PerSecond: 1000, Burst: 2000}
	}
	if o.SourceConnects == (Rate{}) {
		o.SourceConnects = Rate{PerSecond: 50, Burst: 500}
	}
	if o.Source == nil {
		o.Source = access.ConnSource
	}
	if o.Crew == nil {
		o.Crew = crew.New()
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
