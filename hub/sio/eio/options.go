package eio

import (
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
)

// Options configures a Server. The zero value works.
type Options struct {
	// PingInterval is how often a client is pinged. Zero means 25 s.
	PingInterval time.Duration
	// PingTimeout is how long it may take to answer. Zero means 20 s.
	PingTimeout time.Duration
	// UpgradeTimeout is how long a WebSocket may take to become the transport of a polling session. Zero means 10 s.
	UpgradeTimeout time.Duration
	// WriteTimeout is how long a write may wait for the client to read at most, and three quarters of it at least, and a request
	// for its body. Zero means 10 s.
	WriteTimeout time.Duration
	// CloseTimeout is how long closing may take, after which a connection is cut. Zero means 2 s.
	CloseTimeout time.Duration
	// MaxPayload is the most bytes of a message or of a polling request from an admitted session. Zero means 1 MiB.
	MaxPayload int
	// MaxStrangers, StrangerPayload and StrangerTimeout bound the sessions that were not admitted yet: their number, their
	// messages and requests, and how long they may take. Zero means 256, 16 KiB and 5 s. For a fifth of their time they do not
	// give way to others from their own address.
	MaxStrangers    int
	StrangerPayload int
	StrangerTimeout time.Duration
	// MaxSessions is the most sessions at a time; more are refused with 503. Zero means 20,000.
	MaxSessions int
	// Identify returns who stands behind a request by what its header says, nobody if that says nothing. Where that is a
	// cookie it also checks the Origin of what is no plain GET, as access.Origins.CheckSession does. An error that wraps
	// access.ErrDenied refuses the request with 403, others of package access with 401. Nil means that everybody is nobody.
	Identify func(*http.Request) (access.Identity, error)
	// Admit is told of every request that belongs to an admitted session. Nil means that nobody wants to know.
	Admit func(*http.Request)
	// Source tells the address that a request comes from, as a hub behind a proxy needs it. Nil means that of the connection.
	Source func(*http.Request) netip.Addr
	// Crew writes to the connections. Nil means one of its own.
	Crew *crew.Crew
	// Metrics is counted into. Nil means that nobody looks.
	Metrics *Metrics
	// Logger receives diagnostics, never a sid or what messages say. Nil discards them.
	Logger *slog.Logger
}

// away is how late a timer must be for us to conclude that the process did not run for a while.
const away = 2 * time.Second

func (o *Options) fill() error {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.PingInterval, 25 * time.Second}, {&o.PingTimeout, 20 * time.Second}, {&o.UpgradeTimeout, 10 * time.Second},
		{&o.WriteTimeout, 10 * time.Second}, {&o.CloseTimeout, 2 * time.Second}, {&o.StrangerTimeout, 5 * time.Second},
	} {
		if *d.v < 0 {
			return errors.New("eio options: a duration is negative")
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	for _, n := range []struct {
		v   *int
		def int
	}{{&o.MaxPayload, 1 << 20}, {&o.MaxStrangers, 256}, {&o.StrangerPayload, 16 << 10}, {&o.MaxSessions, 20_000}} {
		if *n.v < 0 {
			return errors.New("eio options: a limit is negative")
		}
		if *n.v == 0 {
			*n.v = n.def
		}
	}
	o.StrangerPayload = min(o.StrangerPayload, o.MaxPayload)
	if o.Identify == nil {
		o.Identify = func(*http.Request) (access.Identity, error) { return access.Identity{}, nil }
	}
	if o.Admit == nil {
		o.Admit = func(*http.Request) {}
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
