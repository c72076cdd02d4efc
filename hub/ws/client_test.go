package ws_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"telemetryhub/hub/ws"
)

// patience is how long a test waits for what must come. It only matters when it does not.
const patience = 20 * time.Second

// handler is a Devices or a Viewers.
type handler interface {
	http.Handler
	Drain()
	Shutdown(context.Context) error
}

// site is a handler on a loopback address.
type site struct {
	handler
	addr    string
	metrics *ws.Metrics
}

// serve runs h until the test ends, and then cuts what the test has left open.
func serve(t testing.TB, h handler, m *ws.Metrics) *site {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, ln, h, m)
}

func serveOn(t testing.TB, ln net.Listener, h handler, m *ws.Metrics) *site {
	t.Helper()
	srv := &http.Server{Handler: h, ReadHeaderTimeout: patience}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		<-served
		_ = h.Shutdown(done()) // it says how many it had to cut, which is how many clients the test left
	})
	return &site{h, ln.Addr().String(), m}
}

// devices serves a Devices on h.
func devices(t testing.TB, h *fakeHub, o ws.Options) (*site, *fakeAuth) {
	t.Helper()
	if o.Metrics == nil {
		o.Metrics = new(ws.Metrics)
	}
	auth := newFakeAuth()
	d, err := ws.NewDevices(h.Connect, auth, o)
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, d, o.Metrics), auth
}

// done returns a context that is over.
func done() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// wsKey is any 16 bytes.
const wsKey = "dGhlIHNhbXBsZSBub25jZQ=="

// client speaks WebSocket byte by byte, also wrongly.
type client struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

// request returns a request to upgrade. Headers are "Name: value"; one of a name replaces the usual one, and "Name:" alone
// removes it.
func request(token string, headers ...string) string {
	set := []string{"Host: hub", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + wsKey}
	if token != "" {
		set = append(set, "Authorization: Bearer "+token)
	}
	var b bytes.Buffer
	b.WriteString("GET /device/v1 HTTP/1.1\r\n")
	name := func(h string) string { n, _, _ := bytes.Cut([]byte(h), []byte(":")); return string(bytes.ToLower(n)) }
	for _, usual := range set {
		replaced := false
		for _, h := range headers {
			replaced = replaced || name(h) == name(usual)
		}
		if !replaced {
			b.WriteString(usual + "\r\n")
		}
	}
	for _, h := range headers {
		if h[len(h)-1] != ':' {
			b.WriteString(h + "\r\n")
		}
	}
	b.WriteString("\r\n")
	return b.String()
}

// open connects and returns what the server answers to the bytes of the request.
func open(t testing.TB, addr, request string) (*client, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	c := &client{t, conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatalf("no answer to the upgrade: %v", err)
	}
	return c, resp
}

// dial opens a WebSocket with the token.
func dial(t testing.TB, addr, token string, headers ...string) *client {
	t.Helper()
	c, resp := open(t, addr, request(token, headers...))
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("upgrade: %s: %s", resp.Status, body)
	}
	return c
}

// Opcodes.
const (
	opContinuation = 0
	opText         = 1
	opBinary       = 2
	opClose        = 8
	opPing         = 9
	opPong         = 10
	fin            = 0x80
)

// masked returns a frame as a client sends it.
func masked(b0 byte, payload string) []byte {
	return maskedHeader(b0, uint64(len(payload)), payload)
}

// maskedHeader returns a frame whose header claims n bytes.
func maskedHeader(b0 byte, n uint64, payload string) []byte {
	var f []byte
	switch {
	case n <= 125:
		f = []byte{b0, 0x80 | byte(n)}
	case n <= 0xffff:
		f = binary.BigEndian.AppendUint16([]byte{b0, 0x80 | 126}, uint16(n))
	default:
		f = binary.BigEndian.AppendUint64([]byte{b0, 0x80 | 127}, n)
	}
	key := [4]byte{1, 2, 3, 4}
	f = append(f, key[:]...)
	for i := range len(payload) {
		f = append(f, payload[i]^key[i&3])
	}
	return f
}

// put sends bytes. The server may have hung up, which the test sees from what it reads.
func (c *client) put(frames ...[]byte) { _, _ = c.Write(bytes.Join(frames, nil)) }

// read returns the next frame.
func (c *client) read() (op byte, payload string, err error) {
	var h [2]byte
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return 0, "", err
	}
	n := uint64(h[1])
	switch n {
	case 126:
		var ext [2]byte
		_, err = io.ReadFull(c.r, ext[:])
		n = uint64(binary.BigEndian.Uint16(ext[:]))
	case 127:
		var ext [8]byte
		_, err = io.ReadFull(c.r, ext[:])
		n = binary.BigEndian.Uint64(ext[:])
	}
	if err != nil {
		return 0, "", err
	}
	body := make([]byte, n)
	_, err = io.ReadFull(c.r, body)
	return h[0], string(body), err
}

// want reads a frame and compares.
func (c *client) want(op byte, payload string) {
	c.t.Helper()
	b0, got, err := c.read()
	if err != nil {
		c.t.Fatalf("read: %v, want frame %#x %q", err, op, payload)
	}
	if b0 != fin|op || got != payload {
		c.t.Fatalf("got frame %#x %q, want %#x %q", b0, got, fin|op, payload)
	}
}

// wantClose reads up to the close frame, which must have one of the codes, and then the end of the connection.
func (c *client) wantClose(codes ...uint16) (reason string) {
	c.t.Helper()
	for {
		b0, payload, err := c.read()
		if err != nil {
			c.t.Fatalf("connection ended without a close frame: %v", err)
		}
		if b0 != fin|opClose {
			continue
		}
		code := uint16(1005)
		if len(payload) >= 2 {
			code, reason = binary.BigEndian.Uint16([]byte(payload)), payload[2:]
		}
		for _, want := range codes {
			if code == want {
				c.wantEnd()
				return reason
			}
		}
		c.t.Fatalf("closed with %d %q, want one of %d", code, reason, codes)
	}
}

// wantEnd checks that the connection is over: nothing more comes, and it is no timeout of the test.
func (c *client) wantEnd() {
	c.t.Helper()
	n, err := io.Copy(io.Discard, c.r)
	var timeout net.Error
	if n != 0 || errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection is still open: %d bytes came, %v", n, err)
	}
	_ = c.Close()
}

// wait waits for the channel.
func wait[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("waited in vain for %s", what)
		panic("unreachable")
	}
}

func closeFrame(code uint16, reason string) []byte {
	return masked(fin|opClose, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}
