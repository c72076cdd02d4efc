package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/access"
)

// streamCoding is what the clients of event streams accept.
var streamCoding = "identity"

// events is an event stream that is being read.
type events struct {
	t      testing.TB
	resp   *http.Response
	body   io.Reader // without its coding
	lines  *bufio.Scanner
	cancel context.CancelFunc
}

// event is one event.
type event struct{ name, id, data string }

// follow opens an event stream. It must be answered by 200.
func (r *rig) follow(query string, header http.Header) *events {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, "GET", r.server.URL+"/api/v1/live/sse"+query, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", streamCoding)
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatal(err)
	}
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || got != "text/event-stream" {
		r.t.Fatalf("the stream is answered %d %s", resp.StatusCode, got)
	}
	body := decode(r.t, resp.Header.Get("Content-Encoding"), resp.Body)
	if coded := resp.Header.Get("Content-Encoding") == "deflate"; coded != strings.Contains(streamCoding, "deflate") {
		r.t.Errorf("for %q the coding is %q", streamCoding, resp.Header.Get("Content-Encoding"))
	}
	e := &events{t: r.t, resp: resp, body: body, lines: bufio.NewScanner(body), cancel: cancel}
	e.lines.Buffer(nil, 1<<20)
	r.t.Cleanup(e.close)
	if ev, _ := e.next(); ev.name != "reset" && !strings.Contains(ev.data, `"text":"web Socket Works"`) || ev.id != "" {
		r.t.Fatalf("the stream does not begin with a welcome, but with %+v", ev)
	}
	return e
}

func (e *events) close() {
	e.cancel()
	e.resp.Body.Close()
}

// next returns the next event, and false at the end of the stream. Comments and retry are skipped.
func (e *events) next() (event, bool) {
	var ev event
	seen := false
	for e.lines.Scan() {
		line := e.lines.Text()
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "" && seen:
			return ev, true
		case line == "", strings.HasPrefix(line, ":"), name == "retry":
		case name == "event":
			ev.name, seen = value, true
		case name == "id":
			ev.id, seen = value, true
		case name == "data":
			ev.data, seen = ev.data+value, true
		default:
			e.t.Fatalf("unexpected line %q", line)
		}
	}
	return event{}, false
}

// until returns the first event whose data has the text.
func (e *events) until(text string) event {
	e.t.Helper()
	for {
		ev, ok := e.next()
		if !ok {
			e.t.Fatalf("the stream ended before %q: %v", text, e.lines.Err())
		}
		if !json.Valid([]byte(ev.data)) {
			e.t.Fatalf("an event holds no JSON: %q", ev.data)
		}
		if strings.Contains(ev.data, text) {
			return ev
		}
	}
}

// TestEventsWithACoding does it all again with clients that accept one, and with those whose only coding is not for streams.
func TestEventsWithACoding(t *testing.T) {
	defer func() { streamCoding = "identity" }()
	for _, streamCoding = range []string{"gzip;q=1.0,deflate;q=0.6,identity;q=0.3", "gzip"} { // as Ruby and Go say it
		for name, test := range map[string]func(*testing.T){
			"snapshot": TestEventsBeginWithASnapshotAndGoOn, "resume": TestEventsGoOnAfterTheLastOne, "unknown": TestAnEventThatIsNotKnownMeansToStartOver,
			"scope": TestEventsAreOnlyOfWhatTheViewerMaySee, "end": TestEventsEndWithTheRightToSeeThem, "quiet": TestQuietStreamsShowThatTheyLive,
			"break": TestTheEndOfAnEventStreamIsToldFromABreak, "farewell": TestAShutdownWaitsForTheFarewell, "size": TestEventsOfAnySizeAreWhole,
			"transports": TestChangingTheTransportMissesNothing,
		} {
			t.Run(streamCoding+"/"+name, test)
		}
	}
}

func bearerOf(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

func TestEventsBeginWithASnapshotAndGoOn(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	r.send("pump", dev, `{"temperature":1}`)
	e := r.follow("", bearerOf(viewer))
	first, ok := e.next()
	if !ok || first.name != "" || first.id == "" || !strings.Contains(first.data, `"snapshot"`) || !strings.Contains(first.data, "pump") {
		t.Fatalf("the first event is %+v", first)
	}
	r.send("pump", dev, `{"temperature":2.5}`)
	if ev := e.until("2.5"); ev.id == first.id {
		t.Errorf("a change has the id of the snapshot: %+v", ev)
	}
}

func TestEventsGoOnAfterTheLastOne(t *testing.T) {
	for _, mode := range []string{"latest", "all"} {
		r := newRig(t)
		dev, viewer := r.device("pump"), r.token(access.Viewer)
		e := r.follow("?mode="+mode, bearerOf(viewer))
		r.send("pump", dev, `{"temperature":1.5}`)
		last := e.until("1.5")
		e.close()
		r.send("pump", dev, `{"temperature":2.5,"humidity":40}`)
		h := bearerOf(viewer)
		h.Set("Last-Event-ID", last.id)
		ev, ok := r.follow("?mode="+mode, h).next()
		if !ok || strings.Contains(ev.data, "snapshot") || !strings.Contains(ev.data, "2.5") || strings.Contains(ev.data, "1.5") {
			t.Errorf("mode %s goes on with %+v", mode, ev)
		}
		if ev, ok = r.follow("?mode="+mode+"&after="+last.id, bearerOf(viewer)).next(); !ok || strings.Contains(ev.data, "1.5") {
			t.Errorf("mode %s goes on after a parameter with %+v", mode, ev)
		}
	}
}

func TestAnEventThatIsNotKnownMeansToStartOver(t *testing.T) {
	r := newRig(t)
	r.device("pump")
	h := bearerOf(r.token(access.Viewer))
	h.Set("Last-Event-ID", "of-another-hub")
	e := r.follow("", h) // takes the reset
	e.until("web Socket Works")
	e.until(`"snapshot"`)
}

func TestEventsAreOnlyOfWhatTheViewerMaySee(t *testing.T) {
	r := newRig(t)
	here, there := r.device("here-1"), r.device("there-1")
	e := r.follow("?devices=*", bearerOf(r.token(access.Viewer, "here-*")))
	if ev, _ := e.next(); strings.Contains(ev.data, "there-1") {
		t.Errorf("the snapshot is %s", ev.data)
	}
	r.send("there-1", there, `{"temperature":1}`)
	r.send("here-1", here, `{"temperature":7.25}`)
	for {
		ev, ok := e.next()
		if !ok || strings.Contains(ev.data, "there-1") {
			t.Fatalf("an event is %+v", ev)
		}
		if strings.Contains(ev.data, "7.25") {
			break
		}
	}
	r.want(http.StatusForbidden, call{method: "GET", path: "/api/v1/live/sse", token: here})
}

func TestEventsEndWithTheRightToSeeThem(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	end := func(name string, header http.Header, stop func() error, code string) {
		t.Helper()
		e := r.follow("", header)
		e.until("snapshot")
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		for {
			ev, ok := e.next()
			if !ok {
				t.Fatalf("%s: the stream ends without a farewell", name)
			}
			if ev.name != "bye" {
				continue
			}
			if !strings.Contains(ev.data, code) {
				t.Errorf("%s: the farewell is %s", name, ev.data)
			}
			break
		}
		if _, ok := e.next(); ok || e.lines.Err() != nil {
			t.Errorf("%s: the stream goes on after its farewell, or ends with %v", name, e.lines.Err())
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s: the stream ended after %s", name, d)
		}
	}
	made, err := r.access.CreateToken(ctx, access.Local(), access.TokenSpec{Role: access.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	end("revoked token", bearerOf(made.Secret.Reveal()), func() error { return r.access.RevokeToken(ctx, access.Local(), made.ID) }, "4503")

	cookie := r.person("vera", access.Operator)
	end("changed role", r.with(cookie), func() error { return r.access.SetRole(ctx, access.Local(), "vera", access.Viewer) }, "4002")
	end("logout", r.with(cookie), func() error { return r.access.Logout(ctx, access.NewSecret(cookie.Value)) }, "4503")
	again := r.person("otto", access.Viewer)
	end("deleted person", r.with(again), func() error { return r.access.DeleteUser(ctx, access.Local(), "otto") }, "4503")
	end("stopping hub", bearerOf(r.token(access.Viewer)), func() error { go r.stop(); return nil }, "4002")
}

func TestQuietStreamsShowThatTheyLive(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.Heartbeat = 10 * time.Millisecond })
	e := r.follow("?devices=none", bearerOf(r.token(access.Viewer)))
	for beats := 0; beats < 3; {
		if !e.lines.Scan() {
			t.Fatalf("the stream ends: %v", e.lines.Err())
		}
		if e.lines.Text() == ":" {
			beats++
		}
	}
}

func TestAStreamThatNobodyReadsIsCut(t *testing.T) {
	r := newRig(t, func(p *parts) {
		p.options.Heartbeat, p.options.WriteTimeout = time.Millisecond, 50*time.Millisecond
	})
	dev := r.device("pump")
	conn := dial(t, r)
	if _, err := conn.Write([]byte("GET /api/v1/live/sse?mode=all HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer " + r.token(access.Viewer) + "\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	// It takes some megabytes until the sockets hold no more.
	var pack []string
	for i := range 14 {
		pack = append(pack, `{"n":"text`+itoa(i)+`","vs":"`+strings.Repeat("x", 4000)+`"}`)
	}
	for i := range 10_000 {
		if i > 10 && r.hub.Status().Viewers == 0 {
			return
		}
		r.send("pump", dev, "["+strings.Join(pack, ",")+"]")
	}
	t.Error("the stream is still there")
}
