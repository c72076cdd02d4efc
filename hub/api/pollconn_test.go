package api_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
)

// line is a connection over which requests go as they are written.
type line struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	auth string
}

func (r *rig) line(token string) *line {
	r.t.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() }) // it may be closed
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		r.t.Fatal(err)
	}
	return &line{r.t, conn, bufio.NewReader(conn), "Host: hub\r\nAuthorization: Bearer " + token + "\r\n"}
}

// send writes requests without a body, each a target with more header fields behind it.
func (l *line) send(requests ...string) {
	l.t.Helper()
	var text string
	for _, r := range requests {
		target, fields, _ := strings.Cut(r, "\n")
		if fields != "" {
			fields += "\r\n"
		}
		text += "GET " + target + " HTTP/1.1\r\n" + l.auth + fields + "\r\n"
	}
	if _, err := io.WriteString(l.conn, text); err != nil {
		l.t.Fatal(err)
	}
}

// receive returns the next answer.
func (l *line) receive() (*http.Response, string) {
	l.t.Helper()
	resp, err := http.ReadResponse(l.in, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return resp, string(body)
}

// expect checks the status of the next answer and what is in it.
func (l *line) expect(status int, part string) *http.Response {
	l.t.Helper()
	resp, body := l.receive()
	if resp.StatusCode != status || !strings.Contains(body, part) {
		l.t.Fatalf("got %s %s, want %d and %q", resp.Status, body, status, part)
	}
	return resp
}

// closed checks that the hub has hung up.
func (l *line) closed() {
	l.t.Helper()
	if b, err := io.ReadAll(l.in); len(b) > 0 {
		l.t.Fatalf("got %s, %v, want the end", b, err)
	}
}

func (r *rig) viewing(n int) {
	for r.hub.Status().Viewers != n {
		<-time.After(time.Millisecond)
	}
}

// TestPollsShareTheirConnectionWithOtherRequests sends this and that over one connection, one at a time and all at once.
func TestPollsShareTheirConnectionWithOtherRequests(t *testing.T) {
	for _, together := range []bool{false, true} {
		logs := newLogBuffer()
		r := newRig(t, func(p *parts) { p.options.Logger = logs.logger() })
		dev, viewer := r.device("pump"), r.token(access.Viewer)
		r.send("pump", dev, `{"temperature":1.5}`)
		r.until("/api/v1/latest", viewer, func(body string) bool { return strings.Contains(body, "1.5") })
		token := r.poll(viewer, "mode=all").Token
		const at = "/api/v1/live/poll?mode=all&wait=0"
		steps := []struct {
			request string
			status  int
			part    string
		}{
			{at, 200, `"snapshot"`},
			{at + "&after=" + token, 200, `{"frames":[],"token":"` + token + `"}`},
			{at + "&after=" + token + "\nIf-None-Match: \"" + token + "\"", 304, ""},
			{at + "&after=unknown", 200, `{"reset":true,"frames":[`},
			{at + "&tick=what", 422, "tick"},
			{"/healthz", 200, ""},
			{at + "\nIf-None-Match: \"" + token + "\"", 304, ""},
			{at, 200, `"welcome"`},
			{at + "&after=\nIf-None-Match: \"" + token + "\"", 304, ""},
			{at + "&devices=after=\nIf-None-Match: \"" + token + "\"", 304, ""},
			{"/api/v1/live/polls", 404, ""},
			{at + "&after=" + token + "\nConnection: keep-alive", 200, `"frames":[]`},
			{"/api/v1/devices", 200, "pump"},
			{at + "\nX-Long: " + strings.Repeat("x", 5000), 200, `"welcome"`},
		}
		l := r.line(viewer)
		if together {
			var requests []string
			for _, s := range steps {
				requests = append(requests, s.request)
			}
			go l.send(requests...) // the answers may fill what the kernel holds
		}
		for _, s := range steps {
			if !together {
				l.send(s.request)
			}
			resp := l.expect(s.status, s.part)
			if date, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(date).Abs() > time.Minute ||
				resp.Header.Get("Cache-Control") == "" && resp.Header.Get("Vary") != "*" {
				t.Errorf("%s: the head is %v", s.request, resp.Header)
			}
		}
		r.viewing(0)
		polls := 1
		for _, s := range steps {
			if strings.HasPrefix(s.request, at) {
				polls++
			}
		}
		if n := strings.Count(logs.String(), `route="GET /api/v1/live/poll"`); n != polls {
			t.Errorf("%d polls are in the log, want %d", n, polls)
		}
	}
}

func TestWhatComesWhileAPollWaitsIsAnsweredAfterIt(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	after := "&after=" + r.poll(viewer, "mode=all").Token
	l := r.line(viewer)
	l.send("/api/v1/live/poll?mode=all"+after, "/api/v1/live/poll?mode=all&wait=0"+after, "/healthz")
	r.viewing(1)
	r.send("pump", dev, `{"temperature":1.5}`)
	if resp := l.expect(200, "1.5"); resp.Header.Get("Etag") != "" {
		t.Error("a poll that names no entity tag is told one")
	}
	l.expect(200, "1.5")
	l.expect(200, "")
	l.send("/api/v1/live/poll?mode=all&wait=0" + after)
	l.expect(200, "1.5")

	after = "&after=" + r.poll(viewer, "mode=all").Token
	l.send("/api/v1/live/poll?mode=all" + after)
	r.viewing(1)
	many := make([]string, 300)
	for i := range many {
		many[i] = "/api/v1/live/poll?mode=all&wait=0" + after
	}
	l.send(append(many, "/healthz\nConnection: close")...)
	<-time.After(50 * time.Millisecond) // until as much is read as ever is
	r.send("pump", dev, `{"temperature":2.5}`)
	for range len(many) + 1 {
		l.expect(200, "2.5")
	}
	l.expect(200, "")
	l.closed()
	r.viewing(0)
}

// TestAPollMayWaitForHardlyAnyTime has the time be over before the poll is asked, and while that is being done.
func TestAPollMayWaitForHardlyAnyTime(t *testing.T) {
	r := newRig(t)
	viewer := r.token(access.Viewer)
	after := "/api/v1/live/poll?after=" + r.poll(viewer, "").Token
	l := r.line(viewer)
	for i := range 3000 {
		l.send(fmt.Sprintf("%s&wait=%dns", after, 1+10*i))
		l.expect(200, `"frames":[]`)
	}
}

// TestPollsThatAreLeftEnd looks at the ways in which a client leaves.
func TestPollsThatAreLeftEnd(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.BodyTimeout = 50 * time.Millisecond })
	viewer := r.token(access.Viewer)
	after := "/api/v1/live/poll?after=" + r.poll(viewer, "").Token
	waiting := r.line(viewer)
	waiting.send(after)
	r.viewing(1)
	if err := waiting.conn.Close(); err != nil {
		t.Fatal(err)
	}
	r.viewing(0)

	slow := r.line(viewer)
	slow.send(after + "&wait=0")
	slow.expect(200, "")
	if _, err := io.WriteString(slow.conn, "GET /api/v1/live/po"); err != nil {
		t.Fatal(err)
	}
	slow.closed()

	r = newRig(t)
	r.api.SetPollIdle(20 * time.Millisecond)
	viewer = r.token(access.Viewer)
	patient := r.line(viewer)
	patient.send("/api/v1/live/poll?wait=500ms&after=" + r.poll(viewer, "").Token)
	patient.expect(200, "")
	patient.closed()
}

func TestPollsEndInOrderWhenTheHubStops(t *testing.T) {
	r := newRig(t)
	viewer := r.token(access.Viewer)
	after := "/api/v1/live/poll?after=" + r.poll(viewer, "").Token
	waiting, resting := r.line(viewer), r.line(viewer)
	resting.send(after + "&wait=0")
	resting.expect(200, "")
	waiting.send(after)
	r.viewing(1)
	ended := make(chan error, 1)
	go func() { ended <- r.api.Shutdown(context.Background()) }()
	resting.closed()
	r.stop()
	resp := waiting.expect(http.StatusServiceUnavailable, "")
	if resp.Header.Get("Retry-After") == "" || !resp.Close || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("the answer to a poll that the stop ends is %v", resp.Header)
	}
	waiting.closed()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPollsThatWaitCanBeCut(t *testing.T) {
	r := newRig(t)
	viewer := r.token(access.Viewer)
	l := r.line(viewer)
	l.send("/api/v1/live/poll?after=" + r.poll(viewer, "").Token)
	r.viewing(1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.api.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "polls were cut") {
		t.Errorf("the stop says %v", err)
	}
	l.closed()
	r.viewing(0)
}

func TestParsePoll(t *testing.T) {
	const host = "Host: hub:8080\r\n"
	for head, want := range map[string]bool{
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host:                                               true,
		"GET /api/v1/live/poll?after=x HTTP/1.1\r\n" + host + "If-None-Match: \"x\"\r\nA: b\r\n":  true,
		"GET /api/v1/live/poll?wait=0 HTTP/1.1\r\n" + host + "if-none-match: \"x\"\r\n":           false,
		"GET /api/v1/live/poll HTTP/1.0\r\n" + host:                                               false,
		"GET  /api/v1/live/poll HTTP/1.1\r\n" + host:                                              false,
		"GET /api/v1/live/poll HTTP/1.1\r\n":                                                      false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + host:                                        false,
		"GET /api/v1/live/poll HTTP/1.1\r\nHost: a/b\r\n":                                         false,
		"GET /api/v1/live/poll HTTP/1.1\r\nHost : hub\r\n":                                        false,
		"GET /api/v1/live/poll#x HTTP/1.1\r\n" + host:                                             false,
		"GET /api/v1/live/poll/ HTTP/1.1\r\n" + host:                                              false,
		"GET /api/v1/live/poll?a=\t HTTP/1.1\r\n" + host:                                          false,
		"HEAD /api/v1/live/poll HTTP/1.1\r\n" + host:                                              false,
		"GET http://hub/api/v1/live/poll HTTP/1.1\r\n" + host:                                     false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "Content-Length: 0\r\n":                     false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "transfer-encoding: chunked\r\n":            false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "Content-Length : 5\r\n":                    false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "Transfer-Encoding : chunked\r\n":           false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "A B: c\r\n":                                false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "Connection: close\r\n":                     false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "connection: Keep-Alive\r\n":                true,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "Connection: keep-alive, x\r\n":             false,
		"GET /api/v1/live/poll?after= HTTP/1.1\r\n" + host + "If-None-Match: \"x\"\r\n":           false,
		"GET /api/v1/live/poll?what=1&after=x HTTP/1.1\r\n" + host + "If-None-Match: \"x\"\r\n":   false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "A: " + strings.Repeat("b", 4<<10) + "\r\n": false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "Expect: 100-continue\r\n":                  false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "A: b\r\n c\r\n":                            false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "A: b\nC: d\r\n":                            false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "A: \xff\r\n":                               false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + "A\r\n":                                     false,
		"GET /api/v1/live/poll HTTP/1.1\r\n" + host + strings.Repeat("A: b\r\n", 64):              false,
	} {
		if got := api.ParsePoll([]byte(head + "\r\n")); (got != nil) != want {
			t.Errorf("%q: taken: %v, want %v", head, got != nil, want)
		}
	}
}

// FuzzParsePoll compares with net/http: what is taken for a poll must be one there, to the last byte, and nothing else.
func FuzzParsePoll(f *testing.F) {
	for _, more := range []string{"", "Connection: keep-alive\r\n", "Content-Length: 3\r\n", "A: b\r\n c\r\n", "A : b\r\n", "Connection: close\r\n", "Transfer-Encoding: chunked\r\n", "Host: b\r\n"} {
		f.Add([]byte("GET /api/v1/live/poll?after=x HTTP/1.1\r\nHost: hub\r\nIf-None-Match: \"x\"\r\n" + more + "\r\n"))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		head := append(text[:len(text):len(text)], "\r\n\r\n"...)
		head = head[:bytes.Index(head, []byte("\r\n\r\n"))+4]
		got := api.ParsePoll(head)
		if got == nil {
			return
		}
		in := bufio.NewReader(strings.NewReader(string(head)))
		want, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", head, err)
		}
		rest, _ := io.ReadAll(in)
		body, _ := io.ReadAll(want.Body)
		if want.Method != "GET" || want.URL.Path != "/api/v1/live/poll" || want.ProtoMinor != 1 || want.Close || want.ContentLength != 0 ||
			len(want.TransferEncoding) > 0 || len(body)+len(rest) > 0 || want.Host == "" {
			t.Fatalf("%q is taken for a poll: %+v, rest %q", head, want, rest)
		}
		if fmt.Sprint(got.URL, got.Header, got.Host) != fmt.Sprint(want.URL, want.Header, want.Host) {
			t.Fatalf("%q: %+v, want %+v", head, got, want)
		}
		for name := range want.Header {
			if strings.ContainsAny(name, " \t") {
				t.Fatalf("%q has the field %q, which the server of net/http refuses", head, name)
			}
		}
	})
}

// crowd makes many devices, so that a snapshot is about 1 MB.
func (r *rig) crowd() int {
	const n = 4000
	for i := range n {
		if _, err := r.hub.AddDevice(r.t.Context(), device.ID(fmt.Sprintf("d%04d", i)), hub.DeviceAttrs{Name: strings.Repeat("n", 200)}); err != nil {
			r.t.Fatal(err)
		}
	}
	return n
}

// pipeWriter is a ResponseWriter over a pipe, which holds nothing that is not read.
type pipeWriter struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (w pipeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(bufio.NewReader(w.conn), bufio.NewWriter(w.conn)), nil
}

// TestAnAnswerIsSentWholeWhenTheHubStops stops it when an answer was made and none of it is sent.
func TestAnAnswerIsSentWholeWhenTheHubStops(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.Return = func(*http.Request) func([]byte) { return func([]byte) {} } })
	ours, theirs := net.Pipe()
	defer theirs.Close()
	req := httptest.NewRequest(http.MethodGet, "/api/v1/live/poll?wait=0", nil)
	req.Header.Set("Authorization", "Bearer "+r.token(access.Viewer))
	r.api.ServeHTTP(pipeWriter{httptest.NewRecorder(), ours}, req)
	r.viewing(0)
	ended := make(chan error, 1)
	go func() { ended <- r.api.Shutdown(context.Background()) }()
	<-time.After(20 * time.Millisecond) // until the connection is told
	l := &line{t: t, conn: theirs, in: bufio.NewReader(theirs)}
	l.expect(http.StatusOK, `"snapshot"`)
	l.closed()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAClientMayEndItsSide has clients say that they will ask for nothing more while their polls are answered.
func TestAClientMayEndItsSide(t *testing.T) {
	r := newRig(t)
	n, viewer := r.crowd(), r.token(access.Viewer)
	after := "&after=" + r.poll(viewer, "wait=0&mode=all").Token
	const at = "/api/v1/live/poll?mode=all"
	for _, requests := range [][]string{
		{at + "&wait=0"}, {at + after + "&wait=0"}, {at + after}, {at + after, at + after, at + "&wait=0"}, {at + after, "/healthz"},
		{at + after + "\nIf-None-Match: \"" + after[len("&after="):] + "\""},
	} {
		l := r.line(viewer)
		if err := l.conn.(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
			t.Fatal(err)
		}
		l.send(requests...)
		if err := l.conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		for _, request := range requests {
			switch resp, body := l.receive(); {
			case request == at+"&wait=0" && strings.Count(body, `"id":"d`) != n, strings.Contains(request, "If-None-Match") != (resp.StatusCode == http.StatusNotModified):
				t.Errorf("%s is answered %s by %d bytes", request, resp.Status, len(body))
			}
		}
		l.closed()
	}
	r.viewing(0)
}
