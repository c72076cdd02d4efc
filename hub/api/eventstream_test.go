package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
	"telemetryhub/storage"
)

// raw sends the text and returns the answer to the request for a stream.
func raw(t *testing.T, r *rig, text string) (net.Conn, *http.Response) {
	t.Helper()
	conn := dial(t, r)
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn, resp
}

func eventsRequest(r *rig, version string, lines ...string) string {
	return "GET /api/v1/live/sse?devices=none HTTP/" + version + "\r\nHost: hub\r\nAuthorization: Bearer " + r.token(access.Viewer) + "\r\n" +
		strings.Join(append(lines, "\r\n"), "\r\n")
}

// viewers waits until there are so many.
func (r *rig) viewers(n int) {
	r.t.Helper()
	for began := time.Now(); r.hub.Status().Viewers != n; runtime.Gosched() {
		if time.Since(began) > 20*time.Second {
			r.t.Fatalf("there are %d viewers, want %d", r.hub.Status().Viewers, n)
		}
	}
}

func TestTheHeadOfAnEventStreamIsWhatItWas(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.AllowOrigins = []string{"https://wall.example"} })
	for _, version := range []string{"1.1", "1.0"} {
		_, resp := raw(t, r, eventsRequest(r, version, "Origin: https://wall.example"))
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Accel-Buffering": "no",
			"Access-Control-Allow-Origin": "https://wall.example", "Access-Control-Allow-Credentials": "true", "Vary": "Origin",
		} {
			if got := resp.Header.Get(name); got != want {
				t.Errorf("HTTP/%s: %s is %q, want %q", version, name, got, want)
			}
		}
		if at, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("HTTP/%s: the date is %q", version, resp.Header.Get("Date"))
		}
		if chunked := len(resp.TransferEncoding) > 0; chunked != (version == "1.1") || resp.Proto != "HTTP/"+version || !resp.Close {
			t.Errorf("HTTP/%s: the answer is %s, chunked: %v, close: %v", version, resp.Proto, chunked, resp.Close)
		}
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if err != nil || line != "retry: 2000\n" {
			t.Errorf("HTTP/%s: the stream begins with %q, %v", version, line, err)
		}
	}
	resp, body := r.do(call{method: "HEAD", path: "/api/v1/live/sse", token: r.token(access.Viewer)})
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || body != "" {
		t.Errorf("HEAD is answered %d %v %q", resp.StatusCode, resp.Header, body)
	}
}

func TestTheEndOfAnEventStreamIsToldFromABreak(t *testing.T) {
	r := newRig(t)
	made, err := r.access.CreateToken(t.Context(), access.Local(), access.TokenSpec{Role: access.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	ended, broken := r.follow("", bearerOf(made.Secret.Reveal())), r.follow("", bearerOf(r.token(access.Viewer)))
	if err := r.access.RevokeToken(t.Context(), access.Local(), made.ID); err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(ended.body); err != nil {
		t.Errorf("a stream that ended looks broken: %v behind %q", err, body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.api.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "event streams and polls were cut") {
		t.Errorf("the stop says %v", err)
	}
	if body, err := io.ReadAll(broken.body); err == nil {
		t.Errorf("a stream that was cut looks whole: %q", body)
	}
	v := r.want(http.StatusServiceUnavailable, call{method: "GET", path: "/api/v1/live/sse", token: r.token(access.Viewer)})
	if detail, _ := v["detail"].(string); detail == "" {
		t.Errorf("a stream after the stop is refused with %v", v)
	}
}

func TestAnEventStreamEndsWithItsClient(t *testing.T) {
	for name, leave := range map[string]func(net.Conn) error{
		"close": net.Conn.Close,
		"half":  func(c net.Conn) error { return c.(*net.TCPConn).CloseWrite() },
		"flood": func(c net.Conn) error { _, err := io.WriteString(c, strings.Repeat("x", 64<<10)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			conn, _ := raw(t, r, eventsRequest(r, "1.1")+"a little more is dropped")
			r.viewers(1)
			_ = leave(conn) // of a flood the rest is refused
			r.viewers(0)
		})
	}
}

func TestAShutdownWaitsForTheFarewell(t *testing.T) {
	r := newRig(t)
	e := r.follow("", bearerOf(r.token(access.Viewer)))
	e.until("snapshot")
	stopped := make(chan error, 1)
	go func() { stopped <- r.api.Shutdown(context.Background()) }()
	r.stop()
	for {
		ev, ok := e.next()
		if !ok {
			t.Fatal("the stream ends without a farewell")
		}
		if ev.name == "bye" {
			break
		}
	}
	e.close()
	if err := <-stopped; err != nil {
		t.Errorf("the stop says %v", err)
	}
}

// TestEventsOfAnySizeAreWhole has frames of mode all that together are larger than what is written at once.
func TestEventsOfAnySizeAreWhole(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.Crew = crew.New() })
	dev := r.device("pump")
	e := r.follow("?mode=all", bearerOf(r.token(access.Viewer)))
	for _, n := range []int{1, 15, 16, 255, 256, 3000, 4000} {
		text := strings.Repeat("x", n-1) + "y"
		r.send("pump", dev, `{"text":"`+text+`"}`)
		e.until(`"` + text + `"`)
	}
	for range 40 {
		r.send("pump", dev, `{"text":"`+strings.Repeat("z", 4000)+`"}`)
	}
	r.send("pump", dev, `{"text":"last"}`)
	e.until(`"last"`)
}

func TestAnIdleEventStreamCostsOneGoroutine(t *testing.T) {
	const streams = 200
	r := newRig(t)
	token := r.token(access.Viewer)
	before := runtime.NumGoroutine()
	for range streams {
		conn := dial(t, r)
		if _, err := io.WriteString(conn, "GET /api/v1/live/sse HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer "+token+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	r.viewers(streams)
	for began := time.Now(); runtime.NumGoroutine()-before > streams+10; runtime.Gosched() { // net/http lets go a moment later
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%d streams have %d goroutines", streams, runtime.NumGoroutine()-before)
		}
	}
}

// TestTheTimesOfARequestAreNotThoseOfItsStream has a stream that is quiet for longer than a request or its body may take.
func TestTheTimesOfARequestAreNotThoseOfItsStream(t *testing.T) {
	const short = 30 * time.Millisecond
	r := newRig(t, func(p *parts) {
		p.options.RequestTimeout, p.options.BodyTimeout, p.options.WriteTimeout = short, short, short
	})
	dev := r.device("pump")
	for name, rest := range map[string]string{
		"alone": "\r\n", "with a body": "Content-Length: 2\r\n\r\n{}", "with a body that is late": "Content-Length: 2\r\n\r\n",
		"pipelined": "\r\nGET /healthz HTTP/1.1\r\nHost: hub\r\n\r\n",
	} {
		conn, resp := raw(t, r, "GET /api/v1/live/sse?devices=pump HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer "+r.token(access.Viewer)+"\r\n"+rest)
		<-time.After(4 * short)
		r.send("pump", dev, `{"text":"`+name+`"}`)
		e := &events{t: t, resp: resp, lines: bufio.NewScanner(resp.Body)}
		e.until(`"` + name + `"`)
		_ = conn.Close()
	}
}

// narrow is a connection of which little is read at a time.
type narrow struct{ net.Conn }

func (c narrow) Read(p []byte) (int, error) {
	runtime.Gosched()
	return c.Conn.Read(p[:min(len(p), 15_000)])
}

// TestASlowClientGetsWholeEvents has more to send than the sockets hold, so that the hub waits amid events.
func TestASlowClientGetsWholeEvents(t *testing.T) {
	for name, secure := range map[string]bool{"TCP": false, "TLS": true} {
		r := newRig(t, func(p *parts) { p.hub.TailBytes = 64 << 20 })
		dev, addr := r.device("pump"), r.server.Listener.Addr()
		if secure {
			s := httptest.NewTLSServer(r.api)
			defer s.Close()
			addr = s.Listener.Addr()
		}
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		if conn = (narrow{conn}); secure {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // the test is about the stream, not the certificate
		}
		if _, err := io.WriteString(conn, strings.Replace(eventsRequest(r, "1.1", "Accept-Encoding: "+streamCoding), "devices=none", "mode=all", 1)); err != nil {
			t.Fatal(err)
		}
		r.viewers(1)
		var pack []string
		for i := range 14 {
			pack = append(pack, `{"n":"text`+itoa(i)+`","vs":"`+strings.Repeat("x", 4000)+`"}`)
		}
		for range 150 {
			r.send("pump", dev, "["+strings.Join(pack, ",")+"]")
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		body := decode(t, resp.Header.Get("Content-Encoding"), resp.Body)
		e := &events{t: t, resp: resp, lines: bufio.NewScanner(body)}
		e.lines.Buffer(nil, 1<<20)
		for n := 0; n < 150*len(pack); {
			n += strings.Count(e.until("xxx").data, `xxx"`)
		}
		go r.stop()
		if rest, err := io.ReadAll(body); err != nil || !strings.Contains(string(rest), "event: bye") {
			t.Errorf("%s: the stream ends with %q, %v", name, rest, err)
		}
	}
}

// broken is a log that panics when it is read, once that is said.
type broken struct {
	storage.Log
	now atomic.Bool
}

func (l *broken) Read(ctx context.Context, after storage.Position, yield func(storage.Entry) bool) error {
	if l.now.Load() {
		panic("the log is broken")
	}
	return l.Log.Read(ctx, after, yield)
}

func TestAPanicBreaksTheOneStream(t *testing.T) {
	log, logs := new(broken), newLogBuffer()
	r := newRig(t, func(p *parts) {
		log.Log = p.stores.Log
		p.stores.Log, p.hub.TailBytes, p.options.Logger = log, 1, logs.logger()
	})
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	e := r.follow("?mode=all", bearerOf(viewer))
	first, _ := e.next()
	e.close()
	for i := range 10 {
		r.send("pump", dev, `{"temperature":`+itoa(i)+`}`)
	}
	other := r.follow("", bearerOf(viewer))
	other.until(`"v":9`)
	r.viewers(1)
	log.now.Store(true)
	conn := dial(t, r)
	if _, err := io.WriteString(conn, strings.Replace(eventsRequest(r, "1.1"), "devices=none", "mode=all&after="+first.id, 1)); err != nil {
		t.Fatal(err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("a stream that broke looks whole: %q", body)
		}
	}
	r.viewers(1)
	log.now.Store(false)
	r.send("pump", dev, `{"temperature":77}`)
	other.until(`"v":77`)
	if !strings.Contains(logs.String(), "the log is broken") {
		t.Error("the panic is not in the log")
	}
}
