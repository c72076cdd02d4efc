package agent_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device/agent"
	"telemetryhub/device/wire"
)

// wsHub puts a fakeHub behind a real WebSocket.
type wsHub struct {
	*fakeHub
	gws.BuiltinEventHandler
}

func (w *wsHub) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/device/v1" || r.Header.Get("Authorization") != "Bearer secret" ||
		r.Header.Get("Sec-WebSocket-Protocol") != wire.SubprotocolCBOR {
		rw.Header().Set("Content-Type", "application/problem+json")
		rw.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(rw, `{"title":"Unknown token.","detail":"Make a new one."}`)
		return
	}
	c, err := w.dial(r.Context())
	if err != nil {
		http.Error(rw, err.Error(), http.StatusServiceUnavailable)
		return
	}
	p := c.(*pipe)
	up := gws.NewUpgrader(&toPipe{pipe: p}, &gws.ServerOption{SubProtocols: []string{wire.SubprotocolCBOR}})
	socket, err := up.Upgrade(rw, r)
	if err != nil {
		p.finish(err)
		return
	}
	w.wg.Go(func() {
		for {
			select {
			case f := <-p.down:
				_ = socket.WriteMessage(gws.OpcodeBinary, f.data)
			case <-p.cut:
				var ce *agent.CloseError
				if errors.As(p.end, &ce) {
					_ = socket.WriteClose(uint16(ce.Code), []byte(ce.Reason))
				}
				_ = socket.NetConn().Close()
				return
			}
		}
	})
	socket.ReadLoop()
	p.finish(errCut)
}

type toPipe struct {
	gws.BuiltinEventHandler
	pipe *pipe
}

func (h *toPipe) OnMessage(_ *gws.Conn, m *gws.Message) {
	_ = h.pipe.Write(wire.CBOR, m.Bytes())
	_ = m.Close()
}

func serveWS(t *testing.T, h *fakeHub, tls bool) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(&wsHub{fakeHub: h})
	if tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(func() { srv.Close(); h.wg.Wait() })
	return srv
}

func TestAgentOverWebSocketSurvivesCuts(t *testing.T) {
	h := newFakeHub()
	cuts := 0
	h.onFrame = func(s *hubSession) fate {
		if s.frames == 7 && cuts < 5 {
			cuts++
			return fate(1 + cuts%2)
		}
		return handled
	}
	srv := serveWS(t, h, false)
	dial, err := agent.WebSocket(agent.Endpoint{URL: srv.URL, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, memory(t), dial, agent.Options{MaxRows: 20, MinRetry: time.Millisecond, MaxRetry: 20 * time.Millisecond})
	r.add(t, 1, 2000)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, h, 1, 2000)
	if cuts != 5 {
		t.Errorf("%d cuts, want 5", cuts)
	}
	if err := r.stop(); err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestCloseCodeAndReasonArrive(t *testing.T) {
	h := newFakeHub()
	srv := serveWS(t, h, false)
	conn := connect(t, agent.Endpoint{URL: srv.URL, Token: "secret"})
	h.mu.Lock()
	h.current.pipe.finish(&agent.CloseError{Code: wire.CloseReplaced, Reason: "there is another"})
	h.mu.Unlock()
	err := conn.Serve(func(wire.Format, []byte) error { return nil })
	var ce *agent.CloseError
	if !errors.As(err, &ce) || ce.Code != wire.CloseReplaced || ce.Reason != "there is another" {
		t.Errorf("serve: %v", err)
	}
}

func connect(t *testing.T, e agent.Endpoint) agent.Conn {
	t.Helper()
	dial, err := agent.WebSocket(e)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestRefusalsSayWhatToDo(t *testing.T) {
	for status, check := range map[int]func(error) bool{
		http.StatusUnauthorized: func(err error) bool {
			var stop *agent.StopError
			return errors.As(err, &stop) && strings.Contains(err.Error(), "Ask somebody.")
		},
		http.StatusForbidden: func(err error) bool { var s *agent.StopError; return errors.As(err, &s) },
		http.StatusServiceUnavailable: func(err error) bool {
			var later *agent.RetryError
			return errors.As(err, &later) && later.After == 17*time.Second
		},
		http.StatusNotFound: func(err error) bool { return strings.Contains(err.Error(), "is this the address of a hub") },
		http.StatusOK:       func(err error) bool { return strings.Contains(err.Error(), "200") },
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if status == http.StatusServiceUnavailable {
				w.Header().Set("Retry-After", "17")
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, `{"title":"No.","detail":"Ask somebody."}`)
		}))
		dial, err := agent.WebSocket(agent.Endpoint{URL: srv.URL, Token: "x"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := dial(t.Context()); err == nil || !check(err) {
			t.Errorf("%d: %v", status, err)
		}
		srv.Close()
	}
}

func TestEndpointsThatCannotWorkAreRefused(t *testing.T) {
	for name, e := range map[string]agent.Endpoint{
		"no scheme": {URL: "hub.local"}, "ftp": {URL: "ftp://hub"}, "no host": {URL: "http://"},
		"token in plain text": {URL: "http://192.0.2.1", Token: "x"}, "pin without TLS": {URL: "http://127.0.0.1", Pin: strings.Repeat("0", 64)},
		"short pin": {URL: "https://hub", Pin: "abcd"}, "short base64": {URL: "https://hub", Pin: "sha256//YQ=="}, "pin that is no number": {URL: "https://hub", Pin: strings.Repeat("x", 64)},
	} {
		if _, err := agent.WebSocket(e); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := agent.WebSocket(agent.Endpoint{URL: "http://192.0.2.1", Plaintext: true}); err != nil {
		t.Errorf("plain text that is allowed: %v", err)
	}
}

func TestPinnedCertificateIsTheTrust(t *testing.T) {
	srv := serveWS(t, newFakeHub(), true)
	sum := func(b []byte) string { s := sha256.Sum256(b); return hex.EncodeToString(s[:]) }
	cert := srv.Certificate()
	spki := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	colons := ""
	for i, c := range strings.ToUpper(sum(cert.Raw)) {
		if i > 0 && i%2 == 0 {
			colons += ":"
		}
		colons += string(c)
	}
	for name, c := range map[string]struct {
		pin string
		ok  bool
	}{
		"certificate": {sum(cert.Raw), true}, "public key": {sum(cert.RawSubjectPublicKeyInfo), true},
		"as the hub prints it": {"sha256//" + base64.StdEncoding.EncodeToString(spki[:]), true},
		"colons":               {"SHA256:" + colons, true}, "another": {sum([]byte("x")), false}, "none": {"", false},
	} {
		dial, err := agent.WebSocket(agent.Endpoint{URL: srv.URL, Token: "secret", Pin: c.pin})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		conn, err := dial(t.Context())
		if (err == nil) != c.ok {
			t.Errorf("%s: %v, want it to work: %v", name, err, c.ok)
		}
		if err == nil {
			conn.Close(agent.CloseNormal)
			_ = conn.Serve(func(wire.Format, []byte) error { return nil })
		}
	}
}

// rawHub upgrades by hand and then gives the connection to f.
func rawHub(t *testing.T, f func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	return rawHubSaying(t, "Sec-WebSocket-Protocol: "+wire.SubprotocolCBOR+"\r\n", f)
}

// rawHubSaying is rawHub with what the answer has besides what RFC 6455 wants.
func rawHubSaying(t *testing.T, headers string, f func(net.Conn, *bufio.Reader)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		br := bufio.NewReader(c)
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		key := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		_, _ = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"%sSec-WebSocket-Accept: %s\r\n\r\n", headers, base64.StdEncoding.EncodeToString(key[:]))
		f(c, br)
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return "http://" + ln.Addr().String()
}

func TestHostileFramesEndTheConnectionAndNothingElse(t *testing.T) {
	long := func(op byte, n uint64) []byte { return binary.BigEndian.AppendUint64([]byte{op, 127}, n) }
	for name, data := range map[string][]byte{
		"length 2^64-1": long(0x82, 1<<64-1), "length 2^63": long(0x82, 1<<63), "length 2^63, not final": long(0x02, 1<<63),
		"over the limit": long(0x82, wire.MaxFrame+1), "masked": {0x82, 0x81, 1, 2, 3, 4, 5}, "reserved opcode": {0x83, 0},
		"reserved bit": {0xc2, 0}, "long ping": append([]byte{0x89, 126, 0, 126}, make([]byte, 126)...),
		"continuation of nothing": {0x80, 0}, "text that is not UTF-8": {0x81, 1, 0xff}, "end in a frame": {0x82, 10, 1},
	} {
		t.Run(name, func(t *testing.T) {
			url := rawHub(t, func(c net.Conn, br *bufio.Reader) {
				_, _ = c.Write(data)
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, br)
			})
			conn := connect(t, agent.Endpoint{URL: url})
			if err := conn.Serve(func(wire.Format, []byte) error { return nil }); err == nil {
				t.Error("serve returned no error")
			}
		})
	}
}

func TestFramesKeepTheConnection(t *testing.T) {
	url := rawHub(t, func(c net.Conn, _ *bufio.Reader) {
		for range 50 {
			_, _ = c.Write([]byte{0x82, 0})
			<-time.After(40 * time.Millisecond)
		}
	})
	conn := connect(t, agent.Endpoint{URL: url})
	conn.SetIdle(time.Second)
	n := 0
	_ = conn.Serve(func(wire.Format, []byte) error { n++; return nil })
	if n != 50 {
		t.Errorf("%d frames in 2 s came, want 50", n)
	}
}

func TestEndlessAnswerToTheUpgradeIsLeft(t *testing.T) {
	for name, head := range map[string]string{
		"head": "HTTP/1.1 101 Switching Protocols\r\n", "line": "HTTP/1.1 101 ", "body": "HTTP/1.1 503 Busy\r\n\r\n",
		"not HTTP": "",
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan int, 1)
			go func() {
				n := 0
				defer func() { sent <- n }()
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer func() { _ = c.Close() }()
				_, _ = io.WriteString(c, head)
				for line := []byte("X-Padding: " + strings.Repeat("x", 1000) + "\r\n"); n < 64<<20; n += len(line) {
					if name == "line" || name == "not HTTP" {
						line = bytes.Repeat([]byte("x"), 1000)
					}
					if _, err := c.Write(line); err != nil {
						return
					}
				}
			}()
			dial, err := agent.WebSocket(agent.Endpoint{URL: "http://" + ln.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := dial(t.Context()); err == nil {
				t.Error("that was taken for an answer")
			}
			_ = ln.Close()
			if n := <-sent; n > 32<<20 { // what the kernel holds counts too
				t.Errorf("%d bytes were taken", n)
			}
		})
	}
}

// A hub of another version must not be misread, nor one that compresses although nobody asked for it.
func TestHubThatAgreesOnSomethingElseIsLeft(t *testing.T) {
	for name, c := range map[string]struct {
		headers string
		ok      bool
	}{
		"as offered":   {"Sec-WebSocket-Protocol: hub.v1.cbor\r\n", true},
		"no protocol":  {"", false},
		"JSON":         {"Sec-WebSocket-Protocol: hub.v1.json\r\n", false},
		"next version": {"Sec-WebSocket-Protocol: hub.v2.cbor\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dial, err := agent.WebSocket(agent.Endpoint{URL: rawHubSaying(t, c.headers, func(_ net.Conn, br *bufio.Reader) {
				_, _ = io.Copy(io.Discard, br)
			})})
			if err != nil {
				t.Fatal(err)
			}
			conn, err := dial(t.Context())
			if (err == nil) != c.ok {
				t.Errorf("dial: %v, want it to work: %v", err, c.ok)
			}
			var stop *agent.StopError
			if errors.As(err, &stop) {
				t.Error("that is no reason to give up for good: the hub may be updated")
			}
			if err == nil {
				conn.Close(agent.CloseNormal)
				_ = conn.Serve(func(wire.Format, []byte) error { return nil })
			}
		})
	}
	url := rawHubSaying(t, "Sec-WebSocket-Protocol: hub.v1.cbor\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
		func(c net.Conn, br *bufio.Reader) {
			_, _ = c.Write([]byte{0xc2, 3, 0x4b, 0x04, 0x00}) // "a", deflated
			_, _ = io.Copy(io.Discard, br)
		})
	dial, err := agent.WebSocket(agent.Endpoint{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := dial(t.Context()); err == nil {
		_ = conn.Serve(func(_ wire.Format, frame []byte) error { t.Errorf("got %x", frame); return nil })
	}
}

func TestPingIsAnsweredWithItsPayload(t *testing.T) {
	got := make(chan []byte, 1)
	url := rawHub(t, func(c net.Conn, br *bufio.Reader) {
		_, _ = c.Write(append([]byte{0x89, 5}, "hello"...))
		frame := make([]byte, 2+4+5)
		if _, err := io.ReadFull(br, frame); err == nil {
			for i := range 5 {
				frame[6+i] ^= frame[2+i%4]
			}
			got <- frame
		}
		close(got)
	})
	conn := connect(t, agent.Endpoint{URL: url})
	_ = conn.Serve(func(wire.Format, []byte) error { return nil })
	frame := <-got
	if len(frame) == 0 || frame[0] != 0x8a || frame[1] != 0x85 || !bytes.Equal(frame[6:], []byte("hello")) {
		t.Errorf("answer %x", frame)
	}
}

func TestHubThatReadsNothingCannotHoldTheWriter(t *testing.T) {
	release := make(chan struct{})
	url := rawHub(t, func(net.Conn, *bufio.Reader) { <-release })
	defer close(release)
	conn := connect(t, agent.Endpoint{URL: url, WriteTimeout: 50 * time.Millisecond})
	frame := make([]byte, wire.MaxFrame)
	var err error
	for range 1000 { // until the buffers of the kernel are full
		if err = conn.Write(wire.CBOR, frame); err != nil {
			break
		}
	}
	if err == nil {
		t.Fatal("64 MB were written to somebody who does not read")
	}
	conn.Close(agent.CloseNormal)
	if err := conn.Serve(func(wire.Format, []byte) error { return nil }); err == nil {
		t.Error("serve returned no error")
	}
}

func TestSilenceEndsTheConnection(t *testing.T) {
	release := make(chan struct{})
	url := rawHub(t, func(net.Conn, *bufio.Reader) { <-release })
	defer close(release)
	conn := connect(t, agent.Endpoint{URL: url})
	conn.SetIdle(20 * time.Millisecond)
	if err := conn.Serve(func(wire.Format, []byte) error { return nil }); err == nil {
		t.Error("serve returned no error")
	}
}

func TestDialGivesUpWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	dial, err := agent.WebSocket(agent.Endpoint{URL: "http://" + ln.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dial(ctx); err == nil {
		t.Error("connected to somebody who does not answer")
	}
}
