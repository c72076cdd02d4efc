package ws_test

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/ws"
	"telemetryhub/hub/ws/door"
)

// behindDoor serves a Devices on a door, as the hub does.
func behindDoor(t *testing.T, h *fakeHub, o ws.Options, d door.Options) (*site, *door.Listener) {
	t.Helper()
	o.Metrics, d.Metrics = new(ws.Metrics), new(door.Metrics)
	handler, err := ws.NewDevices(h.Connect, newFakeAuth(), o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front, err := door.New(ln, d)
	if err != nil {
		t.Fatal(err)
	}
	srv := front.Server(handler)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(front) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
		_ = handler.Shutdown(done()) // cuts what the test has left
	})
	return &site{handler, ln.Addr().String(), o.Metrics}, front
}

func serverTLS(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// dialTLS opens a WebSocket over TLS and says more right behind the request.
func dialTLS(t *testing.T, addr, token, more string) *client {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // the test is not about the certificate
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request(token)+more); err != nil {
		t.Fatal(err)
	}
	c := &client{t, conn, bufio.NewReader(conn)}
	if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	return c
}

func TestDevicesComeThroughTheDoor(t *testing.T) {
	for name, over := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newFakeHub()
			var d door.Options
			d.Timeout = time.Second // a TLS handshake takes its time where much else runs
			if over {
				d.TLS = serverTLS(t)
			}
			s, front := behindDoor(t, h, ws.Options{}, d)
			early := string(masked(fin|opText, "early")) + string(masked(fin|opText, strings.Repeat("e", 7000)))
			var c *client
			if over {
				c = dialTLS(t, s.addr, "dev:a", early)
			} else {
				c, _ = open(t, s.addr, request("dev:a")+early)
			}
			c.want(opText, "early")
			c.want(opText, strings.Repeat("e", 7000))
			<-time.After(d.Timeout + 100*time.Millisecond) // longer than a stranger may stay
			c.put(masked(fin|opText, strings.Repeat("z", 60_000)))
			c.want(opText, strings.Repeat("z", 60_000))
			if n := front.Metrics.Strangers.Load(); n != 0 {
				t.Errorf("%d strangers are counted", n)
			}
			session := wait(t, h.connected, "the session")
			session.peer.Close(4002, "retry in 3 s")
			c.wantClose(4002)
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefusedStaysAStranger(t *testing.T) {
	s, front := behindDoor(t, newFakeHub(), ws.Options{}, door.Options{Timeout: time.Second})
	c, resp := open(t, s.addr, request("bad"))
	if resp.StatusCode != http.StatusUnauthorized {
		t.Fatal(resp.Status)
	}
	if n := front.Metrics.Strangers.Load(); n != 1 {
		t.Errorf("%d strangers are counted, want 1", n)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	c.wantEnd()
}

func TestStuckPeerOverTLSIsCut(t *testing.T) {
	h := newFakeHub()
	s, _ := behindDoor(t, h, ws.Options{WriteTimeout: 200 * time.Millisecond, CloseTimeout: 50 * time.Millisecond}, door.Options{TLS: serverTLS(t)})
	c := dialTLS(t, s.addr, "dev:a", "")
	session := wait(t, h.connected, "the session")
	session.mu.Lock()
	for range 100 {
		session.out = append(session.out, frame{1, strings.Repeat("x", 300<<10)})
	}
	session.mu.Unlock()
	session.peer.Wake()
	wait(t, session.ended, "the end of the session")
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	_ = c.Close()
}

func TestFiveThousandSocketsWithoutTokenCostNothing(t *testing.T) {
	h := newFakeHub()
	// To make so many connections may take longer than a silent device may stay, on a slow machine.
	s, front := behindDoor(t, h, ws.Options{FirstFrame: time.Hour, Ping: time.Hour}, door.Options{})
	good := dial(t, s.addr, "dev:good")
	for i := range 5000 {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		// A third says nothing, a third half a request, a third sends a frame that would cost memory if it were read.
		said := []string{"", request("bad")[:100], request("bad") + string(maskedHeader(fin|opBinary, 64<<10, ""))}[i%3]
		if _, err := io.WriteString(conn, said); err != nil && i < 1000 {
			t.Fatal(err)
		}
	}
	if n := front.Metrics.Strangers.Load(); n > 1024 {
		t.Errorf("%d strangers at a time", n)
	}
	if err := good.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	good.put(masked(fin|opText, "still there?"))
	good.want(opText, "still there?")
	late := dial(t, s.addr, "dev:late")
	late.put(masked(fin|opText, "me too"))
	late.want(opText, "me too")
	if n := len(h.connected); n != 2 {
		t.Errorf("%d sessions", n)
	}
	if n := s.metrics.Accepted.Load(); n != 2 {
		t.Errorf("%d upgrades", n)
	}
}
