package broker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"telemetryhub/device"
	"telemetryhub/hub/access"
)

// Auth is what the broker needs of identity; *access.Registry is one.
type Auth interface {
	// Authenticate returns who a token belongs to. It must not block.
	Authenticate(token string) (access.Identity, error)
	// Watch calls ended once when the identity is no longer what it was. ended returns at once. stop ends the watch.
	Watch(id access.Identity, ended func(access.Reason)) (stop func())
}

// Ingest stores what a device published to ingest/<device>, one of the forms by hand, and returns nil when it is on disk.
// An error that is a *hub.BadInput means that the same payload will never be taken; any other error means that it may be
// taken later, and lets the device send it again. The payload must not be kept after Ingest has returned.
type Ingest func(ctx context.Context, id device.ID, payload []byte) error

// Options configures a Broker. Auth and Ingest must be given. In all limits zero means the default, and negative is an
// error.
type Options struct {
	Auth   Auth
	Ingest Ingest

	// ConnectTimeout is how long a connection may take for the TLS handshake and for CONNECT together. Zero means 10 s.
	ConnectTimeout time.Duration
	// WriteTimeout is how long a write of up to 32 KiB may wait for the client to read. Zero means 10 s.
	WriteTimeout time.Duration
	// CloseTimeout is how long the last packets to a client may take, after which it is cut. Zero means 2 s.
	CloseTimeout time.Duration
	// IngestTimeout is how long Ingest may take. Zero means 10 s.
	IngestTimeout time.Duration
	// MaxKeepAlive is the longest keep-alive, and the one of clients that want none. A client that is silent for 1.5
	// times as long is cut. Zero means 300 s; more than 300 s is an error.
	MaxKeepAlive time.Duration
	// SessionExpiry is how long the session of a client is kept after its connection, if the client wants that. Zero
	// means 1 h; more is an error.
	SessionExpiry time.Duration

	// MaxPacket is the largest packet in bytes. Zero means 64 KiB. Before CONNECT was found good it is 8 KiB.
	MaxPacket int
	// MaxConns is the most connections at a time. Zero means 10,000.
	MaxConns int
	// MaxStrangers is the most connections that have not authenticated. One more closes the oldest of the address that
	// has most of them. Zero means 1,024.
	MaxStrangers int
	// MaxOffline is the most sessions that are kept without a connection. One more ends the oldest. Zero means 256.
	MaxOffline int
	// MaxSubscriptions is the most subscriptions of one client. Zero means 64.
	MaxSubscriptions int
	// MaxPending is the most messages, and MaxPendingBytes the most bytes, that wait to be written to one client. Zero
	// means 512 and 1 MiB.
	MaxPending, MaxPendingBytes int
	// MaxInflight is the most messages of QoS 1 and 2 that one client has not acknowledged. Zero means 4,096.
	MaxInflight int
	// MaxOfflineBytes is the most bytes of messages that are kept for one client without a connection. Zero means 1 MiB.
	MaxOfflineBytes int
	// MaxRetainedBytes is the most bytes of retained messages. Zero means 64 MiB.
	MaxRetainedBytes int

	// Metrics is counted into. Nil means that nobody looks.
	Metrics *Metrics
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

// Bounds that are not for choosing.
const (
	maxConnect       = 8 << 10 // bytes of CONNECT
	maxKeepAlive     = 300 * time.Second
	maxSessionExpiry = time.Hour
	receiveMaximum   = 1024 // messages of QoS 2 that a client may have begun
)

func (o *Options) fill() error {
	if o.Auth == nil || o.Ingest == nil {
		return errors.New("broker options: Auth and Ingest are needed")
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.ConnectTimeout, 10 * time.Second}, {&o.WriteTimeout, 10 * time.Second}, {&o.CloseTimeout, 2 * time.Second},
		{&o.IngestTimeout, 10 * time.Second}, {&o.MaxKeepAlive, maxKeepAlive}, {&o.SessionExpiry, maxSessionExpiry},
	} {
		if *d.v < 0 {
			return errors.New("broker options: a duration is negative")
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	for _, n := range []struct {
		v   *int
		def int
	}{
		{&o.MaxPacket, 64 << 10}, {&o.MaxConns, 10_000}, {&o.MaxStrangers, 1024}, {&o.MaxOffline, 256},
		{&o.MaxSubscriptions, 64}, {&o.MaxPending, 512}, {&o.MaxPendingBytes, 1 << 20}, {&o.MaxInflight, 4096},
		{&o.MaxOfflineBytes, 1 << 20}, {&o.MaxRetainedBytes, 64 << 20},
	} {
		if *n.v < 0 {
			return errors.New("broker options: a limit is negative")
		}
		if *n.v == 0 {
			*n.v = n.def
		}
	}
	switch {
	case o.MaxKeepAlive < time.Second || o.MaxKeepAlive > maxKeepAlive:
		return errors.New("broker options: MaxKeepAlive is not within 1 s and 300 s")
	case o.SessionExpiry > maxSessionExpiry:
		return errors.New("broker options: SessionExpiry is longer than an hour")
	case o.MaxPacket > 1<<20 || o.MaxInflight > 1<<14 || o.MaxPending > 1<<14:
		return errors.New("broker options: a limit is too large: MaxPacket at most 1 MiB, MaxInflight and MaxPending 16,384")
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
