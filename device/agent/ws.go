package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device/wire"
)

// Endpoint says where the hub is and how to get in.
type Endpoint struct {
	// URL is the hub's address: http, https, ws or wss. Without a path the device socket's, /device/v1, is taken.
	URL string
	// Token is the device token.
	Token string
	// Pin is the SHA-256 of the hub's public key as the hub prints it ("sha256//" and base64, as curl has it), or that of its
	// certificate or of one that signed it, also in hexadecimal, with or without colons and "sha256:". It takes the place of the system's trusted roots and of the name check. It needs TLS.
	Pin string
	// Roots are the trusted roots. Nil means the system's.
	Roots *x509.CertPool
	// WriteTimeout bounds the writing of one frame. Zero means 10 s.
	WriteTimeout time.Duration
	// Plaintext allows the token to be sent without TLS beyond loopback.
	Plaintext bool
}

// devicePath is the address of the device socket.
const devicePath = "/device/v1"

// RetryError means that the hub asked not to be called again before a while.
type RetryError struct {
	After time.Duration
	Err   error
}

func (e *RetryError) Error() string { return fmt.Sprintf("%v (again in %v)", e.Err, e.After) }
func (e *RetryError) Unwrap() error { return e.Err }

// WebSocket returns a Dialer for the endpoint. It does no I/O; the error says what is wrong with the endpoint.
func WebSocket(e Endpoint) (Dialer, error) {
	zero(&e.WriteTimeout, 10*time.Second)
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, fmt.Errorf("hub address %q: begin it with http:// or https:// (%w)", e.URL, err)
	}
	secure := false
	switch u.Scheme {
	case "http", "ws":
		u.Scheme = "ws"
	case "https", "wss":
		u.Scheme, secure = "wss", true
	default:
		return nil, fmt.Errorf("hub address %q: begin it with http:// or https://", e.URL)
	}
	if u.Hostname() == "" || e.WriteTimeout < 0 {
		return nil, fmt.Errorf("hub address %q has no host", e.URL)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = devicePath
	}
	var config *tls.Config
	if secure {
		if config, err = tlsConfig(u.Hostname(), e); err != nil {
			return nil, err
		}
	} else if e.Pin != "" {
		return nil, fmt.Errorf("hub address %q: a certificate can be pinned only with https", e.URL)
	} else if !e.Plaintext && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("hub address %q: the token would be readable by anybody on the way; use https, or allow plain text by name", e.URL)
	}
	return func(ctx context.Context) (Conn, error) { return dial(ctx, u, config, e) }, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || (ip != nil && ip.IsLoopback())
}

func dial(ctx context.Context, u *url.URL, config *tls.Config, e Endpoint) (Conn, error) {
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[string]string{"ws": "80", "wss": "443"}[u.Scheme])
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if config != nil {
		t := tls.Client(raw, config)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("TLS with %s: %w", addr, err), raw.Close())
		}
		raw = t
	}
	s := newSocket(raw, e.WriteTimeout)
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() }) // the handshake below does not know ctx
	err = s.upgrade(u, e.Token)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close() // the upgrade's error is the one that counts
		return nil, err
	}
	return s, nil
}

// upgrade speaks HTTP until the connection is a WebSocket.
func (s *socket) upgrade(u *url.URL, token string) error {
	header := http.Header{}
	header.Set("Sec-WebSocket-Protocol", wire.SubprotocolCBOR)
	header.Set("User-Agent", "telemetryhub-device")
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	conn, resp, err := gws.NewClientFromConn((*events)(s), &gws.ClientOption{
		Addr: u.String(), RequestHeader: header, ReadMaxPayloadSize: wire.MaxFrame, ReadBufferSize: 4096,
		CheckUtf8Enabled: true, HandshakeTimeout: handshakeTime, Logger: silent{},
	}, (*line)(s))
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return refusal(resp)
		}
		return fmt.Errorf("open WebSocket: %w", err)
	}
	s.ws = conn
	return nil
}

// refusal turns an HTTP answer that is not 101 into an error: what the problem document says, and whether to come again.
func refusal(resp *http.Response) error {
	var problem struct{ Title, Detail string }
	text := resp.Status
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil && json.Unmarshal(body, &problem) == nil && problem.Title+problem.Detail != "" {
		text = fmt.Sprintf("%s: %s %s", resp.Status, problem.Title, problem.Detail)
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return &StopError{Code: wire.CloseWho, Reason: text}
	case http.StatusNotFound:
		text += " (is this the address of a hub?)"
	}
	err = fmt.Errorf("the hub answered %s", text)
	if s, e := strconv.Atoi(resp.Header.Get("Retry-After")); e == nil && s > 0 {
		return &RetryError{After: time.Duration(min(s, 3600)) * time.Second, Err: err}
	}
	return err
}

// silent drops what gws would print.
type silent struct{}

func (silent) Error(...any) {}
