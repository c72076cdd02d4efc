package ws_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/ws"
)

type gwsClient struct {
	gws.BuiltinEventHandler
	messages chan string
}

func (c *gwsClient) OnMessage(_ *gws.Conn, m *gws.Message) {
	c.messages <- m.Data.String()
	_ = m.Close()
}

func TestClientOfGWSTalksToTheHub(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{})
	events := &gwsClient{messages: make(chan string, 1)}
	c, _, err := gws.NewClient(events, &gws.ClientOption{
		Addr: "ws://" + s.addr + "/device/v1",
		RequestHeader: http.Header{
			"Authorization": {"Bearer dev:a"}, "Sec-WebSocket-Protocol": {"hub.v1.cbor,hub.v1.json"},
		},
		PermessageDeflate: gws.PermessageDeflate{Enabled: true, ClientContextTakeover: true, ServerContextTakeover: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); c.ReadLoop() }()
	for i := range 100 {
		text := strings.Repeat(fmt.Sprint(i), 20)
		if err := c.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if got := wait(t, events.messages, "the echo"); got != text {
			t.Fatalf("got %q back, want %q", got, text)
		}
	}
	_ = c.WriteClose(1000, nil)
	<-done
}

func TestErrorsOfTheHubBecomeCloseCodes(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		code uint16
	}{
		"unknown device": {hub.ErrUnknownDevice, 4501},
		"draining":       {hub.ErrDraining, 4002},
		"too many":       {hub.ErrTooMany, 4002},
		"protocol":       {errEnough, 4500},
		"too big":        {fmt.Errorf("look: %w", wire.ErrTooBig), 4513},
		"other":          {errors.New("boom"), 4002},
		"long":           {&hub.BadInput{Text: strings.Repeat("ä", 100)}, 4500},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub()
			h.connect = func(device.ID) error { return c.err }
			s, auth := devices(t, h, ws.Options{})
			d := dial(t, s.addr, "dev:a")
			if got := d.wantClose(c.code); len(got) > 123 || strings.Contains(got, "boom") || got == "" {
				t.Errorf("Connect: the reason is %q", got)
			}
			if n := auth.tell("dev:a", "revoked"); n != 0 {
				t.Errorf("%d connections still watch the token", n)
			}

			h = newFakeHub()
			h.receive = func(context.Context, *fakeSession, wire.Format, []byte) error { return c.err }
			s, _ = devices(t, h, ws.Options{})
			d = dial(t, s.addr, "dev:a")
			d.put(masked(fin|opText, "x"))
			d.wantClose(c.code)
			wait(t, wait(t, h.connected, "the session").ended, "the end of the session")
		})
	}
}

func TestReasonIsCutBetweenRunes(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	wait(t, h.connected, "the session").peer.Close(4001, "x"+strings.Repeat("ä", 100))
	if got, want := c.wantClose(4001), "x"+strings.Repeat("ä", 61); got != want {
		t.Errorf("the reason is %q, want %q", got, want)
	}
}

func TestWhatIsReadyGoesOutBeforeTheCloseFrame(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	session.mu.Lock()
	session.out = []frame{{wire.JSON, "last ack"}, {wire.CBOR, "bye"}}
	session.mu.Unlock()
	session.peer.Close(4002, "retry in 3 s")
	c.want(opText, "last ack")
	c.want(opBinary, "bye")
	if got := c.wantClose(4002); got != "retry in 3 s" {
		t.Errorf("the reason is %q", got)
	}
}

func TestCloseDoesNotWaitForAnEndlessStream(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	session.nextFn = func(dst []byte) ([]byte, wire.Format, bool) {
		return append(dst, strings.Repeat("x", 1000)...), wire.JSON, true
	}
	session.peer.Close(wire.CloseSlow, "slow")
	c.wantClose(4001)
	if n := s.metrics.BytesOut.Load(); n > 128<<10 {
		t.Errorf("%d bytes went out before the close frame", n)
	}
}

func TestFirstReasonToCloseWins(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	session.peer.Close(wire.CloseReplaced, "first")
	session.peer.Close(wire.CloseSlow, "second")
	c.wantClose(4509)
	wait(t, session.ended, "the end of the session")
	session.peer.Close(wire.CloseSlow, "third") // allowed also after the end
	session.peer.Wake()
}

func TestPanicEndsOneConnection(t *testing.T) {
	for name, plant := range map[string]func(h *fakeHub){
		"Receive": func(h *fakeHub) {
			h.receive = func(_ context.Context, s *fakeSession, _ wire.Format, _ []byte) error {
				if s.id == "victim" {
					panic("planted")
				}
				s.send(wire.JSON, "fine")
				return nil
			}
		},
		"Next": func(h *fakeHub) {
			h.receive = func(_ context.Context, s *fakeSession, _ wire.Format, _ []byte) error {
				if s.id == "victim" {
					s.nextFn = func([]byte) ([]byte, wire.Format, bool) { panic("planted") }
				}
				s.send(wire.JSON, "fine")
				return nil
			}
		},
		"Alive": func(h *fakeHub) {
			h.receive = func(_ context.Context, s *fakeSession, _ wire.Format, _ []byte) error {
				s.aliveFn = func() { panic("planted") }
				s.send(wire.JSON, "fine")
				return nil
			}
		},
		"Connect": func(h *fakeHub) {
			h.connect = func(id device.ID) error {
				if id == "victim" {
					panic("planted")
				}
				return nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub()
			h.receive = func(_ context.Context, s *fakeSession, _ wire.Format, _ []byte) error {
				s.send(wire.JSON, "fine")
				return nil
			}
			plant(h)
			s, _ := devices(t, h, ws.Options{})
			other := dial(t, s.addr, "dev:other")
			otherSession := wait(t, h.connected, "the session")
			victim := dial(t, s.addr, "dev:victim")
			victim.put(masked(fin|opText, "x"))
			if name == "Alive" {
				victim.want(opText, "fine")
				victim.put(masked(fin|opPong, ""))
			}
			victim.wantClose(1011)
			if name != "Connect" {
				wait(t, wait(t, h.connected, "the session").ended, "the end of the session")
			}
			other.put(masked(fin|opText, "x"))
			other.want(opText, "fine")
			if got := s.metrics.Panics.Load(); got != 1 {
				t.Errorf("%d panics were counted", got)
			}
			for deadline := time.After(10 * time.Second); s.metrics.Open.Load() != 1; { // the close frame comes before the count
				select {
				case <-deadline:
					t.Fatalf("%d connections are counted as open, want 1", s.metrics.Open.Load())
				default:
					runtime.Gosched()
				}
			}
			select {
			case <-otherSession.ended:
				t.Error("the other session ended too")
			default:
			}
		})
	}
}

func TestPanicWhileClosingDoesNotCostTheCloseFrame(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	for range 20 {
		c := dial(t, s.addr, "dev:a")
		session := wait(t, h.connected, "the session")
		var closing atomic.Bool
		session.nextFn = func(dst []byte) ([]byte, wire.Format, bool) {
			if closing.Load() {
				panic("planted")
			}
			return dst, wire.JSON, false
		}
		c.put(masked(fin|opPing, "x"))
		c.want(opPong, "x")
		<-time.After(time.Millisecond) // the writer is gone
		closing.Store(true)
		session.peer.Close(wire.CloseRevoked, "revoked")
		c.wantClose(4503)
	}
}

func TestPanicInEndIsCaught(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	session.endFn = func() { panic("planted") }
	c.put(closeFrame(1000, ""))
	c.wantClose(1000)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if got := s.metrics.Panics.Load(); got != 1 {
		t.Errorf("%d panics were counted", got)
	}
}

func TestSilentSocketIsClosed(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{FirstFrame: 50 * time.Millisecond})
	for name, sent := range map[string][]byte{"nothing": nil, "pings only": masked(fin|opPing, ""), "part of a frame": masked(fin|opText, "hello")[:7]} {
		c := dial(t, s.addr, "dev:a")
		c.put(sent)
		if c.wantClose(4001); t.Failed() {
			t.Fatal(name)
		}
		wait(t, wait(t, h.connected, "the session").ended, "the end of the session")
	}
}

func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{Ping: 40 * time.Millisecond, CloseTimeout: 20 * time.Millisecond})
	began := time.Now()
	gone := dial(t, s.addr, "dev:gone") // never reads nor writes again, like behind a pulled cable
	gone.put(masked(fin|opText, "hello"))
	session := wait(t, h.connected, "the session")
	wait(t, session.ended, "the end of the session")
	if took := time.Since(began); took < 90*time.Millisecond {
		t.Errorf("given up after %v already", took)
	}
}

func TestIdentityThatEndsDuringTheUpgradeGetsNoSession(t *testing.T) {
	h := newFakeHub()
	s, auth := devices(t, h, ws.Options{})
	auth.gone = access.Revoked // Watch says so at once
	c := dial(t, s.addr, "dev:a")
	c.wantClose(4503)
	if n := len(h.connected); n != 0 {
		t.Errorf("%d sessions", n)
	}
}

func TestCloseFreesAReceiveThatWaits(t *testing.T) {
	h := newFakeHub()
	waiting := make(chan struct{})
	h.receive = func(ctx context.Context, _ *fakeSession, _ wire.Format, _ []byte) error {
		close(waiting)
		<-ctx.Done()
		return ctx.Err()
	}
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	c.put(masked(fin|opText, "x"))
	wait(t, waiting, "the message")
	wait(t, h.connected, "the session").peer.Close(wire.CloseReplaced, "replaced")
	c.wantClose(4509)
}

func TestCloseDoesNotWaitForAStuckWrite(t *testing.T) {
	h := newFakeHub()
	big := strings.Repeat("x", 1<<20)
	h.receive = func(_ context.Context, s *fakeSession, _ wire.Format, _ []byte) error {
		s.nextFn = func(dst []byte) ([]byte, wire.Format, bool) { return append(dst, big...), wire.JSON, true }
		s.peer.Wake()
		return nil
	}
	s, _ := devices(t, h, ws.Options{WriteTimeout: time.Hour, CloseTimeout: 50 * time.Millisecond})
	c := dial(t, s.addr, "dev:a")
	c.put(masked(fin|opText, "x"))
	session := wait(t, h.connected, "the session")
	for last := uint64(0); ; { // until nothing more goes out
		n := s.metrics.BytesOut.Load()
		if n == last && n > 1<<20 {
			break
		}
		last = n
		<-time.After(100 * time.Millisecond)
	}
	session.peer.Close(wire.CloseSlow, "slow")
	wait(t, session.ended, "the end of the session")
}

func TestNoWakeUpIsLost(t *testing.T) {
	h := newFakeHub()
	var made, seen atomic.Int64
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	var mu sync.Mutex
	session.nextFn = func(dst []byte) ([]byte, wire.Format, bool) {
		mu.Lock()
		defer mu.Unlock()
		if seen.Load() == made.Load() {
			return dst, wire.JSON, false
		}
		seen.Store(made.Load())
		return fmt.Appendf(dst, "%d", seen.Load()), wire.JSON, true
	}
	const rounds, wakers = 5000, 4
	var all sync.WaitGroup
	for range wakers {
		all.Go(func() {
			for range rounds {
				made.Add(1)
				session.peer.Wake()
			}
		})
	}
	for {
		_, payload, err := c.read()
		if err != nil {
			t.Fatal(err)
		}
		if payload == fmt.Sprint(rounds*wakers) {
			break
		}
	}
	all.Wait()
}

func TestWakeUpDuringTheLastLookIsNotLost(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	looks := 0
	session.nextFn = func(dst []byte) ([]byte, wire.Format, bool) {
		if looks++; looks%2 == 1 {
			session.peer.Wake() // something comes up right after the writer has found nothing
			return dst, wire.JSON, false
		}
		return append(dst, "came up"...), wire.JSON, true
	}
	session.peer.Wake()
	for range 10 {
		c.want(opText, "came up")
	}
}

func TestManyFramesGoOutInFewWrites(t *testing.T) {
	h := newFakeHub()
	var writes atomic.Int64
	auth := newFakeAuth()
	m := new(ws.Metrics)
	d, err := ws.NewDevices(h.Connect, auth, ws.Options{Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, countingListener{ln, &writes}, d, m)
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	session.mu.Lock()
	for range 1000 {
		session.out = append(session.out, frame{wire.JSON, "ack"})
	}
	session.mu.Unlock()
	before := writes.Load()
	session.peer.Wake()
	for range 1000 {
		c.want(opText, "ack")
	}
	if n := writes.Load() - before; n != 1 {
		t.Errorf("1000 small frames took %d writes, want 1", n)
	}
}

type countingListener struct {
	net.Listener
	writes *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countingConn{c, l.writes}, err
}

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func TestFramesOfEverySizeGoOutWhole(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	sizes := []int{0, 1, 125, 126, 127, 32 << 10, 32<<10 + 1, 65535, 65536, 65537, 1 << 20, 3}
	for _, n := range sizes {
		session.mu.Lock()
		session.out = append(session.out, frame{wire.CBOR, strings.Repeat("z", n)})
		session.mu.Unlock()
	}
	session.peer.Wake()
	for _, n := range sizes {
		c.want(opBinary, strings.Repeat("z", n))
	}
}

func TestNewcomersAreRefusedWhileDraining(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	old := dial(t, s.addr, "dev:old")
	wantRefusal := func() {
		t.Helper()
		_, resp := open(t, s.addr, request("dev:new"))
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("got %s with Retry-After %q", resp.Status, resp.Header.Get("Retry-After"))
		}
	}
	s.Drain()
	wantRefusal()
	old.put(masked(fin|opText, "still here"))
	old.want(opText, "still here")

	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	session := wait(t, h.connected, "the session")
	session.peer.Close(wire.CloseDraining, "retry in 3 s")
	old.wantClose(4002)
	if err := wait(t, done, "the shutdown"); err != nil {
		t.Error(err)
	}
	wantRefusal()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("second time: %v", err)
	}
}

func TestShutdownCutsWhatDoesNotEnd(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	for i := range 3 {
		c := dial(t, s.addr, fmt.Sprintf("dev:d%d", i))
		c.put(masked(fin|opText, "x"))
		c.want(opText, "x")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	err := s.Shutdown(ctx)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "3 connections") {
		t.Errorf("got %v", err)
	}
	for range 3 {
		wait(t, wait(t, h.connected, "the session").ended, "the end of the session")
	}
}

func TestShutdownClosesWhoHasSaidNothing(t *testing.T) {
	s, _ := viewers(t, newFakeFeed(), ws.Options{})
	c := dial(t, s.addr, "viewer") // the hub does not know it yet
	stopped := make(chan error, 1)
	go func() { stopped <- s.Shutdown(t.Context()) }()
	c.wantClose(4002)
	if err := wait(t, stopped, "the shutdown"); err != nil {
		t.Error(err)
	}
}

func TestUpgradeUnderWayIsNotForgottenByShutdown(t *testing.T) {
	for name, ctx := range map[string]context.Context{"in order": context.Background(), "cut": done()} {
		t.Run(name, func(t *testing.T) {
			d, err := ws.NewDevices(newFakeHub().Connect, newFakeAuth(), ws.Options{})
			if err != nil {
				t.Fatal(err)
			}
			r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request("dev:a"))))
			if err != nil {
				t.Fatal(err)
			}
			ours, theirs := net.Pipe()
			h := hijacker{conn: ours, held: make(chan struct{}), here: make(chan struct{})}
			go d.ServeHTTP(h, r)
			<-h.here
			stopped := make(chan error, 1)
			go func() { stopped <- d.Shutdown(ctx) }()
			c := &client{t, theirs, bufio.NewReader(theirs)}
			if ctx.Err() == nil {
				wait(t, draining(d), "the draining")
			}
			close(h.held)
			heard, _ := io.ReadAll(c.r) // ends when the hub has hung up
			if err := wait(t, stopped, "the shutdown"); (err != nil) != (ctx.Err() != nil) {
				t.Errorf("Shutdown: %v", err)
			}
			if ctx.Err() == nil && !strings.Contains(string(heard), "\x0f\xa2") { // 4002
				t.Errorf("heard %q", heard)
			}
		})
	}
}

// draining returns a channel that is closed when the handler refuses newcomers.
func draining(h http.Handler) <-chan struct{} {
	refused := make(chan struct{})
	go func() {
		defer close(refused)
		for status := 0; status != http.StatusServiceUnavailable; {
			r, _ := http.ReadRequest(bufio.NewReader(strings.NewReader(request("dev:b"))))
			w := httptest.NewRecorder() // cannot be hijacked: 500 until the handler drains
			h.ServeHTTP(w, r)
			status = w.Code
		}
	}()
	return refused
}

func TestMoreThanTheMostConnectionsAreRefused(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{MaxConns: 2})
	a := dial(t, s.addr, "dev:a")
	dial(t, s.addr, "dev:b")
	_, resp := open(t, s.addr, request("dev:c"))
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Fatalf("got %s", resp.Status)
	}
	a.put(closeFrame(1000, ""))
	a.wantClose(1000)
	for { // the place becomes free a moment after the peer has seen the end
		_, resp := open(t, s.addr, request("dev:c"))
		if resp.StatusCode == 101 {
			return
		}
	}
}

func TestMetricsCountWhatHappened(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	open(t, s.addr, request("bad"))
	open(t, s.addr, request("viewer"))
	open(t, s.addr, request("dev:a", "Upgrade:"))
	c := dial(t, s.addr, "dev:a")
	c.put(masked(fin|opText, "12345"))
	c.want(opText, "12345")
	c.put(closeFrame(1000, ""))
	c.wantClose(1000)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := s.metrics
	got := fmt.Sprint(m.Open.Load(), m.Accepted.Load(), m.FramesIn.Load(), m.FramesOut.Load(), m.BytesIn.Load(), m.BytesOut.Load())
	if want := "0 1 1 1 19 11"; got != want {
		t.Errorf("open, accepted, frames in, out, bytes in, out: %s, want %s", got, want)
	}
	refused := map[string]uint64{}
	m.Refused(func(why string, n uint64) bool { refused[why] = n; return true })
	if refused["identity"] != 1 || refused["forbidden"] != 1 || refused["handshake"] != 1 {
		t.Errorf("refused: %v", refused)
	}
	m.Closed(func(code wire.CloseCode, n uint64) bool {
		if want := uint64(0); (code == 1000) != (n == 1) && n != want {
			t.Errorf("%d connections closed with %d", n, code)
		}
		return true
	})
}
