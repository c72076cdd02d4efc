package api_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
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
	if body, err := io.ReadAll(ended.resp.Body); err != nil {
		t.Errorf("a stream that ended looks broken: %v behind %q", err, body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.api.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "event streams were cut") {
		t.Errorf("the stop says %v", err)
	}
	if body, err := io.ReadAll(broken.resp.Body); err == nil {
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
