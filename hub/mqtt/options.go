package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"
	"unicode/utf8"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
)

// Source is what the bridge needs from a hub to publish.
type Source interface {
	OpenCursor(ctx context.Context, name string) (*hub.Cursor, error)
	WatchPresence(ctx context.Context, tell func(hub.PresenceChange) error) error
}

// Ingester is what the bridge needs from a hub to take readings. An error that is *hub.BadInput or hub.ErrUnknownDevice is of the
// message and final; any other passes.
type Ingester interface {
	Ingest(ctx context.Context, id device.ID, f wire.Format, body []byte) (hub.IngestResult, error)
}

// Options configures a Bridge. Source, Dial and Name are required.
type Options struct {
	Source Source
	// Dial opens the connection to the broker. It must return when its context ends.
	Dial func(context.Context) (net.Conn, error)
	// Name is the name of the cursor, for which the rules of Hub.OpenCursor hold.
	Name string
	// ClientID is how the bridge calls itself; the broker knows it again by that. Empty means "hub-" and Name. Two bridges at one
	// broker need different ones.
	ClientID string
	// User and Password are for the broker. A password needs a user.
	User, Password string
	// Prefix stands before every topic, in and out. Empty means nothing.
	Prefix string
	// Retain makes the broker keep the newest reading of every metric, for ever: also that of a device that is deleted.
	Retain bool
	// Wanted reports whether anybody gets what is published, and if not, returns a channel that is closed when somebody does, before
	// that one knows. Until then readings are passed over, unless they are to be retained. Nil means always.
	Wanted func() (bool, <-chan struct{})
	// Patience is how long after the start readings are not passed over yet: those who got them before the hub was restarted may
	// come back. Zero means a minute.
	Patience time.Duration
	// Ingest takes what is published to ingest/+. Nil means that the bridge only publishes.
	Ingest Ingester
	// Window is how many messages may be unacknowledged, WindowBytes how large they may be together; a single one may be larger.
	// Zero means 512 and 1 MiB. More than 16,384 and 8 MiB is an error.
	Window, WindowBytes int
	// AckTimeout is how long the broker may take to acknowledge a message; after that the connection is given up. Zero means 30 s.
	AckTimeout time.Duration
	// Retry and RetryMax are about how long it waits before the next try: it grows from the first to the second with every
	// failure, any time up to that is as likely, and after a connection that lasted a minute it begins anew. Zero means 1 s and
	// 30 s.
	Retry, RetryMax time.Duration
	// Metrics is counted into. Nil means that nobody looks.
	Metrics *Metrics
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

// maxWindow stays far below the 65,535 numbers that MQTT has for messages under way.
const maxWindow = 16_384

func (o *Options) fill() error {
	if o.ClientID == "" {
		o.ClientID = "hub-" + o.Name
	}
	def(&o.Window, 512)
	def(&o.WindowBytes, 1<<20)
	def(&o.AckTimeout, 30*time.Second)
	def(&o.Patience, time.Minute)
	def(&o.Retry, time.Second)
	def(&o.RetryMax, max(30*time.Second, o.Retry))
	if o.Metrics == nil {
		o.Metrics = new(Metrics)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Source == nil, o.Dial == nil, o.Name == "":
		return errors.New("mqtt options: Source, Dial and Name are required")
	case o.Window < 0 || o.Window > maxWindow:
		return fmt.Errorf("mqtt options: Window is %d, at most %d is possible", o.Window, maxWindow)
	case o.WindowBytes > maxUnwritten/2:
		return fmt.Errorf("mqtt options: WindowBytes is %d, at most %d is possible", o.WindowBytes, maxUnwritten/2)
	case o.WindowBytes < 0 || o.AckTimeout < 0 || o.Patience < 0 || o.Retry < 0 || o.RetryMax < o.Retry:
		return errors.New("mqtt options: a limit is negative, or RetryMax is less than Retry")
	case o.Password != "" && o.User == "":
		return errors.New("mqtt options: a password needs a user")
	case len(o.Prefix) > 512 || !utf8.ValidString(o.Prefix) || strings.ContainsAny(o.Prefix, "+#\x00") || strings.HasPrefix(o.Prefix, "$"):
		return fmt.Errorf("mqtt options: %q cannot stand before a topic: no + or #, no $ in front, at most 512 bytes", o.Prefix)
	}
	return nil
}

func def[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}
