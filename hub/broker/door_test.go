package broker_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/hub/broker"
)

func TestNobodyGetsInWithoutAToken(t *testing.T) {
	r := start(t, false, broker.Options{})
	for _, c := range []struct {
		name      string
		id, token string
		change    func(*packets.Packet)
		v4, v5    byte
	}{
		{"anonymous", "x", "", nil, 5, 0x86},
		{"unknown token", "x", "guess", nil, 5, 0x86},
		{"enrolment token", "x", tokenEnrol, nil, 5, 0x87},
		{"another device's id", "pi-2", tokenPi, nil, 2, 0x85},
		{"no device's id", "laptop", tokenPi, nil, 2, 0x85},
		{"device without an id", "", tokenPi, nil, 2, 0x85},
		{"id of the hub's own", "$hub/bridge", tokenOp, nil, 2, 0x85},
		{"id with a line break", "a\nb", tokenOp, nil, 2, 0x85},
		{"will of a viewer", "x", tokenView, withWill("telemetry/pi-1/cmd/led", false), 5, 0x87},
		{"will on the status", "pi-1", tokenPi, withWill("telemetry/pi-1/status", false), 5, 0x87},
		{"will on another device's readings", "pi-1", tokenPi, withWill("ingest/pi-2", false), 5, 0x87},
		{"will to be retained", "x", tokenOp, withWill("homeassistant/status", true), 5, 0x9A},
		{"will with a wildcard", "x", tokenOp, withWill("telemetry/+/cmd/led", false), 5, 0x90},
	} {
		for _, version := range []byte{4, 5} {
			x := r.raw(t)
			x.v = version
			change := []func(*packets.Packet){login(c.id, c.token)}
			if c.change != nil {
				change = append(change, c.change)
			}
			want := c.v5
			if version == 4 {
				want = c.v4
			}
			if ack := x.connect(change...); ack.ReasonCode != want {
				t.Errorf("%s, version %d: CONNACK %#x, want %#x", c.name, version, ack.ReasonCode, want)
			}
			x.expectEnd(0)
		}
	}
	if n := r.metrics.Accepted.Load(); n != 0 {
		t.Errorf("%d were accepted", n)
	}
	refused := map[string]uint64{}
	for reason, n := range r.metrics.Refused {
		refused[reason] = n
	}
	for reason, want := range map[string]uint64{"identity": 4, "forbidden": 2, "client_id": 10, "will": 8, "packet": 2} {
		if refused[reason] != want {
			t.Errorf("refused for %s: %d, want %d", reason, refused[reason], want)
		}
	}
}

func withWill(topic string, retain bool) func(*packets.Packet) {
	return func(p *packets.Packet) {
		p.Connect.WillFlag, p.Connect.WillTopic, p.Connect.WillPayload, p.Connect.WillRetain = true, topic, []byte("gone"), retain
		p.Connect.WillQos = 1
	}
}

func TestClientIDIsAssigned(t *testing.T) {
	r := start(t, false, broker.Options{})
	x := r.raw(t)
	x.v = 5
	ack := x.connect(login("", tokenView))
	if ack.ReasonCode != 0 || ack.Properties.AssignedClientID == "" || ack.Properties.MaximumPacketSize != 64<<10 {
		t.Errorf("CONNACK %#x, client id %q, packets up to %d", ack.ReasonCode, ack.Properties.AssignedClientID, ack.Properties.MaximumPacketSize)
	}
	old := r.connected(t, 4, "", tokenView)
	old.ping()
	x = r.raw(t)
	if ack := x.connect(login("", tokenView), kept); ack.ReasonCode != 2 {
		t.Errorf("a session without a client id: CONNACK %d", ack.ReasonCode)
	}
}

func TestOldVersionsAreRefused(t *testing.T) {
	r := start(t, false, broker.Options{})
	for _, hello := range [][]byte{
		[]byte("\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01x"),
		[]byte("\x10\x0d\x00\x04MQTT\x06\x02\x00\x3c\x00\x01x"),
	} {
		x := r.raw(t)
		x.write(hello)
		if ack := x.expect(packets.Connack); ack.ReasonCode != 1 {
			t.Errorf("CONNACK %d", ack.ReasonCode)
		}
		x.expectEnd(0)
	}
}

func TestStrangerHasTenSeconds(t *testing.T) {
	for name, sent := range map[string][]byte{
		"nothing": nil, "half a header": {0x10}, "half a CONNECT": {0x10, 0x20, 0, 4, 'M', 'Q'},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, true, broker.Options{})
				c, err := r.dial()
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				if _, err := c.Write(sent); len(sent) > 0 && err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadAll(c); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != 10*time.Second {
					t.Errorf("it took %v", took)
				}
				_ = r.stop()
			})
		})
	}
}

func certificate(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"hub"},
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

func TestTLSHandshakeHasTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		r := startOn(t, tls.NewListener(p, certificate(t)), p.dial, broker.Options{})
		c, err := r.dial()
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatal(err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		_ = r.stop()
	})
}

func TestTLS(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dial := func() (net.Conn, error) {
		return tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	}
	r := startOn(t, tls.NewListener(ln, certificate(t)), dial, broker.Options{})
	x := r.connected(t, 5, "pi-1", tokenPi)
	x.send(message("ingest/pi-1", `{"temperature":21.4}`, 1, 1))
	x.expect(packets.Puback)
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	x.expectEnd(0x8B)
}

// CVE-2023-0809 of Mosquitto: memory for what is only announced.
func TestAnnouncedLengthCostsNothing(t *testing.T) {
	r := start(t, false, broker.Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for _, hello := range [][]byte{
		{0x10, 0xff, 0xff, 0xff, 0x7f}, {0x30, 0xff, 0xff, 0xff, 0x7f}, {0x10, 0xff, 0xff, 0xff, 0xff, 0x01}, {0x10, 0x81, 0x40},
	} {
		for range 50 {
			x := r.raw(t)
			x.write(hello)
			x.expectEnd(0)
		}
	}
	// After CONNECT 64 KiB may come, but nothing is taken before they do.
	list := make([]*client, 50)
	for i := range list {
		list[i] = r.connected(t, 4, "", tokenOp)
		list[i].write([]byte{0x30, 0xf0, 0xff, 0x03})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 3<<20 {
		t.Errorf("%d KiB are in use", grown>>10)
	}
	x := r.connected(t, 5, "op", tokenOp)
	x.write([]byte{0x30, 0xff, 0xff, 0x7f})
	x.expectEnd(0x95)
}

func TestStrangersAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{MaxStrangers: 20})
		idle := make([]net.Conn, 30)
		for i := range idle {
			var err error
			if idle[i], err = r.dial(); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := r.metrics.Strangers.Load(); n != 20 {
			t.Errorf("%d strangers", n)
		}
		if n := r.metrics.Displaced.Load(); n != 10 {
			t.Errorf("%d were displaced", n)
		}
		for _, c := range idle[:10] {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("the oldest stranger reads %v", err)
			}
		}
		x := r.connected(t, 4, "op", tokenOp) // in spite of all these
		x.ping()
		_ = r.stop()
		for _, c := range idle {
			_ = c.Close()
		}
	})
}

func TestConnectionsAreBounded(t *testing.T) {
	r := start(t, false, broker.Options{MaxConns: 2})
	a := r.connected(t, 5, "a", tokenView)
	r.connected(t, 5, "b", tokenView)
	x := r.raw(t)
	x.v = 5
	if ack := x.connect(login("c", tokenView)); ack.ReasonCode != 0x89 {
		t.Errorf("CONNACK %#x", ack.ReasonCode)
	}
	r.local(t).ping() // the hub itself always gets in
	_ = a.c.Close()
	eventually(t, "the place is free", func() bool {
		x := r.raw(t)
		return x.connect(login("c", tokenView)).ReasonCode == 0
	})
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// flaky fails to accept some times.
type flaky struct {
	net.Listener
	errs atomic.Int32
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.errs.Add(-1) >= 0 {
		return nil, errors.New("accept4: too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPipes()
		f := &flaky{Listener: p}
		f.errs.Store(12)
		r := startOn(t, f, p.dial, broker.Options{})
		began := time.Now()
		r.connected(t, 4, "op", tokenOp).ping()
		if took := time.Since(began); took < time.Second || took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		_ = r.stop()
	})
}

func TestRunEndsWithItsListener(t *testing.T) {
	b, err := broker.New(broker.Options{Auth: newAuth(), Ingest: new(stored).ingest})
	if err != nil {
		t.Fatal(err)
	}
	p := newPipes()
	_ = p.Close()
	if err := b.Run(t.Context(), p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
	if _, err := b.Dial(t.Context()); err == nil {
		t.Error("Dial to a broker that has stopped")
	}
	if err := b.Run(t.Context()); err == nil {
		t.Error("a second Run")
	}
}

func TestDialWaitsForRun(t *testing.T) {
	b, err := broker.New(broker.Options{Auth: newAuth(), Ingest: new(stored).ingest})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial: %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	auth, in := newAuth(), new(stored).ingest
	for name, o := range map[string]broker.Options{
		"no auth":                {Ingest: in},
		"no ingest":              {Auth: auth},
		"negative time":          {Auth: auth, Ingest: in, WriteTimeout: -1},
		"negative limit":         {Auth: auth, Ingest: in, MaxPending: -1},
		"keep-alive too long":    {Auth: auth, Ingest: in, MaxKeepAlive: 301 * time.Second},
		"sessions kept too long": {Auth: auth, Ingest: in, SessionExpiry: 2 * time.Hour},
		"packets too large":      {Auth: auth, Ingest: in, MaxPacket: 2 << 20},
	} {
		if _, err := broker.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
