package door_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telemetryhub/hub/ws/door"
)

func TestMain(m *testing.M) {
	if args, ok := os.LookupEnv(visitorsEnv); ok {
		var c crowd
		if err := json.Unmarshal([]byte(args), &c); err != nil {
			panic(err)
		}
		if err := c.run(); err != nil {
			panic(err)
		}
		return
	}
	// net/http waits 500 ms before it closes a connection whose request it refused.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

const patience = 20 * time.Second

// house is a door with a handler behind it.
type house struct {
	*door.Listener
	addr string
}

// open serves: /open answers, /mine admits and answers, /echo answers with the body, /big is 8 MiB, /hang waits for the end.
func open(t testing.TB, o door.Options) *house {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return openOn(t, ln, o)
}

func openOn(t testing.TB, ln net.Listener, o door.Options) *house {
	t.Helper()
	if o.Metrics == nil {
		o.Metrics = new(door.Metrics)
	}
	l, err := door.New(ln, o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/open", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprintf(w, "%v %v", r.Proto, r.TLS != nil) })
	mux.HandleFunc("/mine", func(w http.ResponseWriter, r *http.Request) { door.Admit(r); _, _ = io.WriteString(w, "welcome") })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) { _, _ = r.Body.Read(make([]byte, 16)) })
	mux.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
		word := make([]byte, 4)
		if _, err := io.ReadFull(rw, word); err == nil {
			_, _ = c.Write(append(word, '!'))
		}
	})
	mux.HandleFunc("/back", func(w http.ResponseWriter, r *http.Request) { _, _ = fmt.Fprint(w, door.Return(r) != nil) })
	mux.HandleFunc("/big", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, io.LimitReader(zeros{}, 8<<20)) })
	mux.HandleFunc("/hang", func(w http.ResponseWriter, r *http.Request) { door.Admit(r); <-r.Context().Done() })
	srv := l.Server(mux)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return &house{l, ln.Addr().String()}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// visitor is a client that speaks HTTP byte by byte.
type visitor struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (h *house) visit(t testing.TB, from string) *visitor {
	t.Helper()
	d := net.Dialer{Timeout: patience}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &visitor{t, c, bufio.NewReader(c)}
}

func (v *visitor) say(text string) { _, _ = io.WriteString(v.Conn, text) } // the door may have closed; the answer tells

// hear reads an answer.
func (v *visitor) hear(status int, body string) {
	v.t.Helper()
	if err := v.SetReadDeadline(time.Now().Add(patience)); err != nil {
		v.t.Fatal(err)
	}
	resp, err := http.ReadResponse(v.r, nil)
	if err != nil {
		v.t.Fatalf("no answer: %v", err)
	}
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	if resp.StatusCode != status || !strings.Contains(string(got), body) {
		v.t.Fatalf("got %s %.80q, want %d %q", resp.Status, got, status, body)
	}
}

// gone checks that the connection is closed without another byte.
func (v *visitor) gone() {
	v.t.Helper()
	n, err := io.Copy(io.Discard, v.r)
	var timeout net.Error
	if n > 0 || errors.As(err, &timeout) && timeout.Timeout() {
		v.t.Fatalf("not closed: %d bytes, %v", n, err)
	}
}

func get(path string, lines ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: hub\r\n" + strings.Join(append(lines, ""), "\r\n") + "\r\n"
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for began := time.Now(); !holds(); {
		if time.Since(began) > patience {
			t.Fatalf("waited in vain until %s", what)
		}
		<-time.After(time.Millisecond)
	}
}

func TestOrdinaryRequestsPass(t *testing.T) {
	h := open(t, door.Options{})
	v := h.visit(t, "")
	for range 3 {
		v.say(get("/open"))
		v.hear(200, "HTTP/1.1 false")
		v.say("POST /echo HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n\r\nhello")
		v.hear(200, "hello")
	}
	for _, b := range []byte(get("/open")) { // byte by byte
		v.say(string(b))
	}
	v.hear(200, "HTTP/1.1")
	v.say("GET /open HTTP/1.1\nHost: hub\n\n")
	v.hear(200, "HTTP/1.1")
	v.say(get("/open") + get("/mine") + get("/open")) // pipelined
	v.hear(200, "HTTP/1.1")
	v.hear(200, "welcome")
	v.hear(200, "HTTP/1.1")
	v.say(get("/open", "X: "+strings.Repeat("x", 5<<10)))
	v.hear(200, "HTTP/1.1")
	long := strings.Repeat("body", 100_000)
	v = h.visit(t, "")
	v.say(fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: hub\r\nContent-Length: %d\r\n\r\n%s", len(long), long))
	v.hear(200, long)
}

func TestBodyIsNotTakenForAHead(t *testing.T) {
	h := open(t, door.Options{})
	v := h.visit(t, "")
	for range 2 {
		v.say("POST /echo HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		v.hear(100, "")
		v.say("hello") // after the head has been passed on
		v.hear(200, "hello")
	}
}

func TestLaterHeadsOfAStrangerAreBoundedToo(t *testing.T) {
	h := open(t, door.Options{})
	many := get("/open", strings.Split(strings.Repeat("a: b,", 200), ",")...)
	v := h.visit(t, "")
	v.say(get("/open"))
	v.hear(200, "")
	v.say(many)
	v.hear(431, "")
}

func TestHijackedConnectionIsNoStranger(t *testing.T) {
	const limit = 500 * time.Millisecond // in which a busy machine answers, too
	h := open(t, door.Options{Timeout: limit})
	v := h.visit(t, "")
	v.say(get("/hijack"))
	v.hear(200, "mine")
	if n := h.Metrics.Strangers.Load(); n != 0 {
		t.Errorf("%d strangers are counted", n)
	}
	<-time.After(limit + 100*time.Millisecond)
	v.say("ping")
	if got, err := v.r.ReadString('!'); err != nil || got != "ping!" {
		t.Errorf("heard %q, %v", got, err)
	}
}

// TestHijackedConnectionCanBeServedAgain has a handler take the connection, answer by itself, and give it back with what has come.
func TestHijackedConnectionCanBeServedAgain(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := door.New(ln, door.Options{Timeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var srv *http.Server
	stop := make(chan struct{}, 1)
	srv = l.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		giveBack := door.Return(r)
		if r.URL.Path == "/open" {
			_, _ = io.WriteString(w, r.URL.RawQuery) // what does not get there is missed
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		inner, early := c.(interface{ Release() (net.Conn, []byte) }).Release()
		_, _ = io.WriteString(inner, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
		more := make([]byte, 5)
		if _, err := io.ReadFull(io.MultiReader(rw, bytes.NewReader(early), inner), more); err != nil {
			t.Error(err)
		}
		select {
		case <-stop:
			_ = srv.Close()
		default:
		}
		giveBack(more)
	}))
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	h := &house{l, ln.Addr().String()}
	v := h.visit(t, "")
	for i := range 3 {
		n := fmt.Sprint("n=", i)
		v.say(get("/take") + get("/open?" + n)[:5])
		v.hear(200, "mine")
		v.say(get("/open?" + n)[5:])
		v.hear(200, n)
	}
	<-time.After(600 * time.Millisecond) // it is nobody's stranger
	v.say(get("/open?late"))
	v.hear(200, "late")

	stop <- struct{}{}
	v.say(get("/take") + "GET /")
	v.hear(200, "mine")
	v.gone()
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}

	h = open(t, withTLS(door.Options{}))
	secure := h.visit(t, "")
	c := tls.Client(secure.Conn, &tls.Config{InsecureSkipVerify: true}) // the test is about the door, not the certificate
	secure.Conn, secure.r = c, bufio.NewReader(c)
	secure.say(get("/back"))
	secure.hear(200, "false")
	if door.Return(httptest.NewRequest(http.MethodGet, "/", nil)) != nil {
		t.Error("a request that came from nowhere can be given back")
	}
}

// TestServingAgainMeetsTheEndOfTheServer ends the server just when it is about to take back a connection.
func TestServingAgainMeetsTheEndOfTheServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := door.New(ln, door.Options{})
	if err != nil {
		t.Fatal(err)
	}
	returned := make(chan struct{})
	srv := l.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		giveBack := door.Return(r)
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, early := c.(interface{ Release() (net.Conn, []byte) }).Release()
		giveBack(early)
		close(returned)
	}))
	closed := make(chan error, 1)
	srv.BaseContext = func(from net.Listener) context.Context {
		if from != net.Listener(l) {
			go func() { closed <- srv.Close() }() // it closes the listeners and waits for them
			<-time.After(20 * time.Millisecond)
		}
		return t.Context()
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	v := (&house{l, ln.Addr().String()}).visit(t, "")
	v.say(get("/take"))
	v.gone()
	<-returned
	if err := errors.Join(<-closed, <-served); !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

func TestWrongRequestsAreAnswered(t *testing.T) {
	h := open(t, door.Options{})
	for name, c := range map[string]struct {
		said   string
		status int
	}{
		"rubbish":        {"rubbish\r\n\r\n", 400},
		"no host":        {"GET /open HTTP/1.1\r\n\r\n", 400},
		"long line":      {get("/open", "X: "+strings.Repeat("x", 9<<10)), 431},
		"endless line":   {strings.Repeat("x", 100<<10), 431},
		"too many lines": {get("/open", strings.Split(strings.Repeat("a: b,", 200), ",")...), 431},
		"tiny lines":     {"GET /open HTTP/1.1\r\n" + strings.Repeat("a:\n", 3000), 431},
		"HTTP/2":         {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
	} {
		t.Run(name, func(t *testing.T) {
			v := h.visit(t, "")
			v.say(c.said)
			v.hear(c.status, "")
		})
	}
}

func TestStrangerThatDawdlesIsClosed(t *testing.T) {
	const limit = 500 * time.Millisecond // in which a busy machine answers, too
	h := open(t, door.Options{Timeout: limit, TLS: nil})
	for name, said := range map[string]string{
		"silent":           "",
		"half a head":      "GET /open HTTP/1.1\r\nHost: hub\r\n",
		"body outstanding": "POST /echo HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n\r\nhell",
	} {
		t.Run(name, func(t *testing.T) {
			v := h.visit(t, "")
			v.say(said)
			v.gone()
		})
	}
	t.Run("drop by drop", func(t *testing.T) {
		v := h.visit(t, "")
		stop := make(chan struct{})
		var dripping sync.WaitGroup
		dripping.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case <-time.After(limit / 20):
					v.say(fmt.Sprintf("X%d: y\r\n", i))
				}
			}
		})
		v.gone()
		close(stop)
		dripping.Wait()
	})
	t.Run("idle after an answer", func(t *testing.T) {
		v := h.visit(t, "")
		v.say(get("/open"))
		v.hear(200, "")
		v.gone()
	})
	eventually(t, "all strangers are forgotten", func() bool { return h.Metrics.Strangers.Load() == 0 })
	if n := h.Metrics.TimedOut.Load(); n != 5 {
		t.Errorf("%d timeouts were counted, want 5", n)
	}
}

func TestAdmittedConnectionIsLeftAlone(t *testing.T) {
	const limit = 500 * time.Millisecond // in which a busy machine answers, too
	h := open(t, door.Options{Timeout: limit, MaxStrangers: 1})
	v := h.visit(t, "")
	v.say(get("/mine"))
	v.hear(200, "welcome")
	for range 2 { // others come and go
		h.visit(t, "").gone()
	}
	v.say(get("/open"))
	v.hear(200, "")
	if got := h.Metrics.Admitted.Load(); got != 1 {
		t.Errorf("%d were admitted", got)
	}
	v.say(get("/mine"))
	v.hear(200, "welcome")
	if got := h.Metrics.Admitted.Load(); got != 1 {
		t.Errorf("admitted twice: %d", got)
	}
}

func TestSlowReaderOfAnOpenPageIsServed(t *testing.T) {
	const limit = time.Second // a reader on a busy machine must not be slower than it means to be
	h := open(t, door.Options{Timeout: limit})
	v := h.visit(t, "")
	v.say(get("/big"))
	resp, err := http.ReadResponse(v.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	buf := make([]byte, 1<<20)
	for began := time.Now(); ; { // takes several times the limit
		n, err := io.ReadFull(resp.Body, buf)
		if total += n; err != nil {
			if took := time.Since(began); took < 2*limit {
				t.Errorf("read in %v, which proves nothing", took)
			}
			break
		}
		<-time.After(limit / 4)
	}
	if total != 8<<20 {
		t.Errorf("got %d bytes", total)
	}
	stuck := h.visit(t, "")
	stuck.say(get("/big")) // and never reads
	eventually(t, "the one that does not read is closed", func() bool { return h.Metrics.TimedOut.Load() > 0 })
}

func TestNewStrangerDisplacesTheOldestOfTheGreediest(t *testing.T) {
	h := open(t, door.Options{MaxStrangers: 4})
	quiet := h.visit(t, "127.0.0.1")
	quiet.say("GET /open HTTP/1.1\r\n")
	eventually(t, "the first is in", func() bool { return h.Metrics.Strangers.Load() == 1 })
	var greedy []*visitor
	for i := range 20 {
		greedy = append(greedy, h.visit(t, "127.0.0.2"))
		eventually(t, "the next is in", func() bool { return h.Metrics.Accepted.Load() == uint64(i+2) })
	}
	for _, v := range greedy[:17] {
		v.gone()
	}
	other := h.visit(t, "127.0.0.3")
	other.say(get("/open"))
	other.hear(200, "")
	quiet.say("Host: hub\r\n\r\n")
	quiet.hear(200, "")
	if n := h.Metrics.Displaced.Load(); n != 18 {
		t.Errorf("%d were displaced, want 18", n)
	}
}

func TestFiveThousandStrangersAreNoMoreThanTheLimit(t *testing.T) {
	h := open(t, door.Options{Timeout: time.Minute}) // no stranger is gone before the next thousand are there, on a slow machine either
	admitted := h.visit(t, "127.0.0.1")
	admitted.say(get("/mine"))
	admitted.hear(200, "welcome")
	done := make(chan struct{})
	var most int64
	go func() {
		defer close(done)
		for i := range 5000 {
			v := h.visit(t, "127.0.0.2")
			v.say(fmt.Sprintf("GET /open HTTP/1.1\r\nX: %d\r\n", i))
			most = max(most, h.Metrics.Strangers.Load())
		}
	}()
	for served := 0; ; served++ { // meanwhile everybody else is served
		v := h.visit(t, "127.0.0.3")
		v.say(get("/open"))
		v.hear(200, "")
		admitted.say(get("/open"))
		admitted.hear(200, "")
		select {
		case <-done:
			if most > 1024 || most < 1000 {
				t.Errorf("there were up to %d strangers, want 1024", most)
			}
			if served < 10 {
				t.Errorf("others were served %d times only", served)
			}
			return
		default:
		}
	}
}

func TestAcceptOutlivesPassingErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	flaky := &flakyListener{Listener: ln, errs: []error{
		&net.OpError{Op: "accept", Err: syscall.EMFILE}, &net.OpError{Op: "accept", Err: syscall.ECONNABORTED}, syscall.ENFILE,
	}}
	h := openOn(t, flaky, door.Options{})
	v := h.visit(t, "")
	v.say(get("/open"))
	v.hear(200, "")
}

func TestAcceptEndsWithTheListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := door.New(&flakyListener{Listener: ln, always: syscall.EMFILE}, door.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() { _, err := l.Accept(); got <- err }()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept returned %v", err)
	}
}

type flakyListener struct {
	net.Listener
	always error
	errs   []error
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.always != nil {
		return nil, l.always
	}
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, err
	}
	return l.Listener.Accept()
}

var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"}, NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"hub"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func withTLS(o door.Options) door.Options {
	o.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}, NextProtos: []string{"h2", "http/1.1"}}
	return o
}

func TestTLSIsSpoken(t *testing.T) {
	h := open(t, withTLS(door.Options{}))
	for name, protos := range map[string][]string{"plain client": nil, "browser": {"h2", "http/1.1"}} {
		v := h.visit(t, "")
		c := tls.Client(v.Conn, &tls.Config{InsecureSkipVerify: true, NextProtos: protos}) // the test is about the door, not the certificate
		v.Conn, v.r = c, bufio.NewReader(c)
		v.say(get("/open"))
		v.hear(200, "HTTP/1.1 true")
		if got := c.ConnectionState().NegotiatedProtocol; protos != nil && got != "http/1.1" {
			t.Errorf("%s: agreed on %q", name, got)
		}
		v.say(get("/mine"))
		v.hear(200, "welcome")
	}
	plain := h.visit(t, "")
	plain.say(get("/open"))
	plain.hear(400, "use https")
}

func TestTLSHandshakeIsBounded(t *testing.T) {
	h := open(t, withTLS(door.Options{Timeout: 200 * time.Millisecond}))
	hello := clientHello(t)
	for name, said := range map[string]string{"silent": "", "half a hello": hello[:len(hello)/2]} {
		v := h.visit(t, "")
		v.say(said)
		if v.gone(); t.Failed() {
			t.Fatal(name)
		}
	}
	h = open(t, withTLS(door.Options{Timeout: time.Hour})) // it is the length that ends the next one
	long := h.visit(t, "")                                 // a handshake message of 60,000 bytes in records of 10,000
	for i := range 6 {
		record := make([]byte, 5+10_000)
		copy(record, "\x16\x03\x01\x27\x10")
		if i == 0 {
			copy(record[5:], "\x01\x00\xea\x60")
		}
		long.say(string(record))
	}
	_, _ = io.Copy(io.Discard, long.r)
	eventually(t, "the long handshake has failed", func() bool { return h.Metrics.Handshake.Load() == 1 })
}

// clientHello returns the first flight of a TLS client.
func clientHello(t testing.TB) string {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(client, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(context.Background()) // it is cut off below
	}()
	buf := make([]byte, 4096)
	n, err := server.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	<-done
	return string(buf[:n])
}
