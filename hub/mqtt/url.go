package mqtt

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// dialTimeout bounds how long a connection may take to be made, and then how long the broker may take to accept it.
const dialTimeout = 10 * time.Second

// DialOptions says how ParseURL may connect.
type DialOptions struct {
	// Plaintext allows tcp:// to brokers that are not on this machine.
	Plaintext bool
	// TLS is used for tls://, with the name of the host filled in if it has none. Nil means the system's certificates.
	TLS *tls.Config
}

// Endpoint is a broker that a URL names.
type Endpoint struct {
	// Address is host and port.
	Address string
	// User is the name in the URL, if there is one.
	User string
	// Dial connects to it. It gives up after 10 s.
	Dial func(context.Context) (net.Conn, error)
}

// ParseURL reads the address of a broker: tcp://host:1883 (or mqtt://), tls://host:8883 (or ssl://, mqtts://), with user@ if need
// be. The port may be missing. It does not connect. The texts of its errors say what to write instead.
func ParseURL(raw string, o DialOptions) (Endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the text of url.Error repeats the URL, and what may be secret in it
		}
		return Endpoint{}, fmt.Errorf("not the URL of a broker (write tcp://host:1883 or tls://host:8883): %w", err)
	}
	secure, port := false, "1883"
	switch u.Scheme {
	case "tcp", "mqtt":
	case "tls", "ssl", "mqtts":
		secure, port = true, "8883"
	default:
		return Endpoint{}, fmt.Errorf("%q is no way to reach a broker: write tcp://host:1883 or tls://host:8883", u.Scheme)
	}
	if u.Port() != "" {
		port = u.Port()
	}
	_, secret := u.User.Password()
	switch {
	case secret:
		return Endpoint{}, errors.New("a URL is seen by everybody who sees the process: leave out the password, and give it by file or environment")
	case u.Hostname() == "":
		return Endpoint{}, errors.New("the URL of the broker names no host: write tcp://host:1883 or tls://host:8883")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return Endpoint{}, fmt.Errorf("%s://%s has something after the port: leave it out", u.Scheme, u.Host)
	case !secure && !o.Plaintext && !loopback(u.Hostname()):
		return Endpoint{}, fmt.Errorf("tcp://%s would carry the password and every reading in plain text: use tls://%s, or allow plain text by name",
			u.Host, u.Hostname())
	}
	e := Endpoint{Address: net.JoinHostPort(u.Hostname(), port), User: u.User.Username()}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	e.Dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", e.Address) }
	if secure {
		config := o.TLS.Clone() // nil stays nil
		if config == nil {
			config = &tls.Config{}
		}
		if config.ServerName == "" {
			config.ServerName = u.Hostname()
		}
		config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
		over := &tls.Dialer{NetDialer: dialer, Config: config}
		e.Dial = func(ctx context.Context) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, dialTimeout)
			defer cancel()
			return over.DialContext(ctx, "tcp", e.Address)
		}
	}
	return e, nil
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}
