// Package siotest is the client side of Engine.IO byte by byte, also wrongly, for the tests of the packages around it.
package siotest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Patience is how long a test waits for what must come. It only matters when it does not.
const Patience = 20 * time.Second

// Opcodes, and the bit of the last frame of a message.
const (
	OpText   = 1
	OpBinary = 2
	OpClose  = 8
	OpPing   = 9
	OpPong   = 10
	Fin      = 0x80
)

// Site is a handler on a loopback address.
type Site struct {
	URL  string // http://host:port
	Addr string
	http *http.Client
	t    testing.TB
}

// Serve serves h until the test ends.
func Serve(t testing.TB, h http.Handler) *Site {
	t.Helper()
	srv := httptest.NewServer(h)
	transport := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(srv.Close)
	return &Site{URL: srv.URL, Addr: strings.TrimPrefix(srv.URL, "http://"), http: &http.Client{Transport: transport}, t: t}
}

// Open is what a client is told when it opens a session.
type Open struct {
	SID          string   `json:"sid"`
	Upgrades     []string `json:"upgrades"`
	PingInterval int      `json:"pingInterval"`
	PingTimeout  int      `json:"pingTimeout"`
	MaxPayload   int      `json:"maxPayload"`
}

// ReadOpen reads an open packet.
func ReadOpen(t testing.TB, packet string) (o Open) {
	t.Helper()
	rest, found := strings.CutPrefix(packet, "0")
	if !found || json.Unmarshal([]byte(rest), &o) != nil || o.SID == "" {
		t.Fatalf("got %q, want an open packet", packet)
	}
	return o
}

// Ask sends a request and returns the answer. Headers are "Name: value".
func (s *Site) Ask(method, query, body string, headers ...string) (status int, answer string) {
	s.t.Helper()
	status, answer, err := s.Try(method, query, body, headers...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, query, err)
	}
	return status, answer
}

// Try is Ask for use in any goroutine.
func (s *Site) Try(method, query, body string, headers ...string) (status int, answer string, err error) {
	req, err := http.NewRequest(method, s.URL+"/socket.io/?EIO=4&"+query, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// Poller is a polling session.
type Poller struct {
	*Site
	SID     string
	Headers []string
}

// Poll opens a polling session.
func (s *Site) Poll(headers ...string) *Poller {
	s.t.Helper()
	status, answer := s.Ask(http.MethodGet, "transport=polling", "", headers...)
	if status != http.StatusOK {
		s.t.Fatalf("open: %d %s", status, answer)
	}
	return &Poller{s, ReadOpen(s.t, answer).SID, headers}
}

func (p *Poller) query() string { return "transport=polling&sid=" + p.SID }

// Get polls.
func (p *Poller) Get() (status int, answer string) {
	p.t.Helper()
	return p.Ask(http.MethodGet, p.query(), "", p.Headers...)
}

// Want polls and compares.
func (p *Poller) Want(answer string) {
	p.t.Helper()
	if status, got := p.Get(); status != http.StatusOK || got != answer {
		p.t.Fatalf("polled %d %q, want %q", status, got, answer)
	}
}

// Post sends a payload and returns the status.
func (p *Poller) Post(payload string) (status int) {
	p.t.Helper()
	status, _ = p.Ask(http.MethodPost, p.query(), payload, p.Headers...)
	return status
}

// Send sends a payload that must be taken.
func (p *Poller) Send(payload string) {
	p.t.Helper()
	if status, answer := p.Ask(http.MethodPost, p.query(), payload, p.Headers...); status != http.StatusOK || answer != "ok" {
		p.t.Fatalf("sent %.60q: %d %q", payload, status, answer)
	}
}

// TryGet polls from any goroutine, and TryPost posts.
func (p *Poller) TryGet() (int, string, error) {
	return p.Try(http.MethodGet, p.query(), "", p.Headers...)
}

// TryPost sends a payload from any goroutine.
func (p *Poller) TryPost(payload string) (int, string, error) {
	return p.Try(http.MethodPost, p.query(), payload, p.Headers...)
}

// Upgrade opens a WebSocket to the session.
func (p *Poller) Upgrade() *Socket {
	p.t.Helper()
	return p.Dial("&sid="+p.SID, p.Headers...)
}

// Socket speaks WebSocket.
type Socket struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

// Request returns a request to upgrade. Headers are "Name: value".
func Request(more string, headers ...string) string {
	var b strings.Builder
	b.WriteString("GET /socket.io/?EIO=4&transport=websocket" + more + " HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\n" +
		"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	for _, h := range headers {
		if h != "" {
			b.WriteString(h + "\r\n")
		}
	}
	b.WriteString("\r\n")
	return b.String()
}

// Knock connects and returns what the server answers to the bytes of the request.
func (s *Site) Knock(request string) (*Socket, *http.Response) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	c := &Socket{s.t, conn, bufio.NewReader(conn)}
	resp, err := http.ReadResponse(c.r, &http.Request{Method: http.MethodGet})
	if err != nil {
		s.t.Fatalf("no answer to the upgrade: %v", err)
	}
	return c, resp
}

// Dial opens a WebSocket; more is what the query has besides the usual.
func (s *Site) Dial(more string, headers ...string) *Socket {
	s.t.Helper()
	c, resp := s.Knock(Request(more, headers...))
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("upgrade: %s: %s", resp.Status, body)
	}
	return c
}

// Open opens a session over WebSocket.
func (s *Site) Open(headers ...string) (*Socket, Open) {
	s.t.Helper()
	c := s.Dial("", headers...)
	_, packet, err := c.Read()
	if err != nil {
		s.t.Fatalf("no open packet: %v", err)
	}
	return c, ReadOpen(s.t, packet)
}

// Frame returns a frame as a client sends it.
func Frame(b0 byte, payload string) []byte { return FrameOf(b0, uint64(len(payload)), payload) }

// FrameOf returns a frame whose header claims n bytes.
func FrameOf(b0 byte, n uint64, payload string) []byte {
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

// Put sends bytes. The server may have hung up, which the test sees from what it reads.
func (c *Socket) Put(frames ...[]byte) { _, _ = c.Write(bytes.Join(frames, nil)) }

// Say sends texts.
func (c *Socket) Say(texts ...string) {
	for _, text := range texts {
		c.Put(Frame(Fin|OpText, text))
	}
}

// Read returns the next frame.
func (c *Socket) Read() (b0 byte, payload string, err error) {
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

// Text reads the next text that is no ping.
func (c *Socket) Text() string {
	c.t.Helper()
	for {
		b0, got, err := c.Read()
		if err != nil {
			c.t.Fatalf("read: %v", err)
		}
		if b0 != Fin|OpText {
			c.t.Fatalf("got frame %#x %.80q, want a text", b0, got)
		}
		if got != "2" {
			return got
		}
	}
}

// Want reads texts and compares.
func (c *Socket) Want(texts ...string) {
	c.t.Helper()
	for _, want := range texts {
		if got := c.Text(); got != want {
			c.t.Fatalf("got %.200q, want %.200q", got, want)
		}
	}
}

// WantBinary reads a binary message and compares.
func (c *Socket) WantBinary(want string) {
	c.t.Helper()
	if b0, got, err := c.Read(); err != nil || b0 != Fin|OpBinary || got != want {
		c.t.Fatalf("got frame %#x %.80q, %v, want binary %.80q", b0, got, err, want)
	}
}

// WantClose reads up to the close frame, which must have the code, and then the end of the connection.
func (c *Socket) WantClose(code uint16) (reason string) {
	c.t.Helper()
	for {
		b0, payload, err := c.Read()
		if err != nil {
			c.t.Fatalf("the connection ended without a close frame: %v", err)
		}
		if b0 != Fin|OpClose {
			continue
		}
		got := uint16(1005)
		if len(payload) >= 2 {
			got, reason = binary.BigEndian.Uint16([]byte(payload)), payload[2:]
		}
		if got != code {
			c.t.Fatalf("closed with %d %q, want %d", got, reason, code)
		}
		c.WantEnd()
		return reason
	}
}

// WantEnd checks that the connection is over: nothing more comes, and it is no timeout of the test.
func (c *Socket) WantEnd() {
	c.t.Helper()
	n, err := io.Copy(io.Discard, c.r)
	var timeout net.Error
	if n != 0 || errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatalf("the connection is still open: %d bytes came, %v", n, err)
	}
	_ = c.Close()
}

// Until waits until ok.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(Patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for %s", what)
		case <-tick.C:
		}
	}
}
