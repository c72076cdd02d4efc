package door

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// Options configures a Listener. The zero value works.
type Options struct {
	// MaxStrangers is the most strangers at a time. Zero means 1,024, and 512 with TLS.
	MaxStrangers int
	// Timeout bounds each stage of a stranger. Zero means 10 s.
	Timeout time.Duration
	// TLS makes the connections speak TLS. Nil means plain text. Protocols other than HTTP/1.1 in it are ignored.
	TLS *tls.Config
	// Metrics is counted into. Nil means that nobody looks.
	Metrics *Metrics
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

// Metrics counts connections. The zero value is ready, and all fields are only to be read.
type Metrics struct {
	Accepted  atomic.Uint64
	Admitted  atomic.Uint64 // strangers that turned out to be somebody
	Displaced atomic.Uint64 // strangers closed to make room for others
	TimedOut  atomic.Uint64 // strangers that took too long
	Handshake atomic.Uint64 // TLS handshakes that failed
	Strangers atomic.Int64  // strangers now
}

func (o *Options) fill() error {
	if o.MaxStrangers < 0 || o.Timeout < 0 {
		return errors.New("door options: a limit is negative")
	}
	if o.MaxStrangers == 0 {
		if o.MaxStrangers = 1024; o.TLS != nil {
			o.MaxStrangers = 512
		}
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.TLS != nil {
		o.TLS = o.TLS.Clone()
		o.TLS.NextProtos = []string{"http/1.1"}
	}
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
