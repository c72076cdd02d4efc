package live

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Mode says what the hub tells.
type Mode string

// The modes.
const (
	// Latest tells the newest value of each metric. What changes within a tick is told once.
	Latest Mode = "latest"
	// All tells every reading, in the order in which the hub stored them.
	All Mode = "all"
)

// Transport is a way over which the feed comes.
type Transport string

// The transports, best first.
const (
	WebSocket Transport = "websocket"
	Events    Transport = "sse"
	LongPoll  Transport = "poll"
)

// Options configures Follow. Only URL is required.
type Options struct {
	// URL is the hub's address: http, https, ws or wss. A path is that under which a proxy serves the hub.
	URL string
	// Token is a viewer's token. Empty sends none, as suits the control socket.
	Token string
	// Devices and Metrics are names, or beginnings with * after them. None means all.
	Devices, Metrics []string
	// Mode is what is told. Empty means Latest.
	Mode Mode
	// Tick is the least time between two frames. Zero means 100 ms, negative none.
	Tick time.Duration
	// After is the token of the last frame that an earlier run has taken. Empty begins with a snapshot.
	After string

	// TLS is the client side of TLS. Nil means the system's roots. agent.Endpoint makes one that pins a hub's certificate.
	TLS *tls.Config
	// Dial connects to the hub. Nil means TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Proxy is asked for a proxy for server-sent events and polls, as http.ProxyFromEnvironment answers. Nil means none.
	Proxy func(*http.Request) (*url.URL, error)
	// Plaintext allows the token to be sent without TLS beyond loopback.
	Plaintext bool

	// Transports are tried in this order. None means WebSocket, Events, LongPoll.
	Transports []Transport
	// Better is how long a transport is used that is not the first before the first is tried again. Zero means 5 min.
	Better time.Duration
	// Answer is how long the first frame may take. Zero means 10 s.
	Answer time.Duration
	// Silence is how long nothing may come, not even a sign of life, until the connection counts as lost. Zero means 62.5 s: the
	// hub gives one every 25 s at least.
	Silence time.Duration
	// MinRetry and MaxRetry bound the growing time within which the next connection is tried, at random. Zero means 1 s and
	// 30 s.
	MinRetry, MaxRetry time.Duration
	// Rand returns a number in [0,1) to spread the tries with. Nil means math/rand.
	Rand func() float64
	// Status is told of every connection when its first frame has come, and when it ends. What was shown is old from then on. Nil
	// means that nobody wants to know. It is called between the calls of the function that takes the frames.
	Status func(Status)
}

// Status says how the feed is doing.
type Status struct {
	Transport Transport
	Connected bool
	// Err says why the connection ended or could not be made. It is nil while connected.
	Err error
	// Retry is when the next one is tried.
	Retry time.Duration
}

// Check says what is wrong with the options, as Follow would. It does no I/O.
func (o Options) Check() error {
	if err := o.fill(); err != nil {
		return err
	}
	_, err := o.base()
	return err
}

func (o *Options) fill() error {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{
		{&o.Better, 5 * time.Minute}, {&o.Answer, 10 * time.Second}, {&o.Silence, 62500 * time.Millisecond},
		{&o.MinRetry, time.Second}, {&o.MaxRetry, 30 * time.Second},
	} {
		if *d.v == 0 {
			*d.v = d.def
		}
		if *d.v < 0 {
			return errors.New("live options: a duration is negative")
		}
	}
	if o.MaxRetry < o.MinRetry {
		return errors.New("live options: MaxRetry is below MinRetry")
	}
	if o.Mode == "" {
		o.Mode = Latest
	}
	if o.Mode != Latest && o.Mode != All {
		return fmt.Errorf("live options: unknown mode %q: use latest or all", o.Mode)
	}
	if len(o.Transports) == 0 {
		o.Transports = []Transport{WebSocket, Events, LongPoll}
	}
	for _, t := range o.Transports {
		if !slices.Contains([]Transport{WebSocket, Events, LongPoll}, t) {
			return fmt.Errorf("live options: unknown transport %q: use websocket, sse or poll", t)
		}
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Status == nil {
		o.Status = func(Status) {}
	}
	return nil
}

// base returns the address of the hub as http or https, without a slash at its end.
func (o *Options) base() (*url.URL, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("hub address %q: begin it with http:// or https:// (%w)", o.URL, err)
	}
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "http"
	case "https", "wss":
		u.Scheme = "https"
	default:
		return nil, fmt.Errorf("hub address %q: begin it with http:// or https://", o.URL)
	}
	switch {
	case u.Hostname() == "":
		return nil, fmt.Errorf("hub address %q has no host", o.URL)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("hub address %q: leave out what is not host, port or path; the token has a place of its own", u.Redacted())
	case o.TLS != nil && u.Scheme == "http":
		return nil, fmt.Errorf("hub address %q: a certificate can be checked only with https", o.URL)
	case o.Token != "" && u.Scheme == "http" && !o.Plaintext && !loopback(u.Hostname()):
		return nil, fmt.Errorf("hub address %q: the token would be readable by anybody on the way; use https, or allow plain text by name", o.URL)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	u.RawPath = ""
	return u, nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.Unmap().IsLoopback()
}
