package eio_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/siotest"
)

func TestHandshakeTellsTheTerms(t *testing.T) {
	r := serve(t, eio.Options{PingInterval: 7 * time.Second, PingTimeout: 3 * time.Second, MaxPayload: 4321})
	status, answer := r.Ask(http.MethodGet, "transport=polling&t=abc", "")
	polled := siotest.ReadOpen(t, answer)
	if status != http.StatusOK || len(polled.Upgrades) != 1 || polled.Upgrades[0] != "websocket" {
		t.Errorf("polling was opened with %d %s", status, answer)
	}
	_, socket := r.Open()
	for _, o := range []siotest.Open{polled, socket} {
		if o.PingInterval != 7000 || o.PingTimeout != 3000 || o.MaxPayload != 4321 || len(o.SID) < 22 {
			t.Errorf("opened with %+v", o)
		}
	}
	if socket.Upgrades == nil || len(socket.Upgrades) != 0 || socket.SID == polled.SID {
		t.Errorf("the WebSocket was opened with %+v", socket)
	}
}

func TestRefusalsHaveTheCodesOfTheProtocol(t *testing.T) {
	r := serve(t, eio.Options{Identify: identify})
	sid := r.Poll().SID
	for _, c := range []struct {
		name, method, query string
		headers             []string
		status, code        int
		message             string
	}{
		{"no transport", "GET", "", nil, 400, 0, "Transport unknown"},
		{"another transport", "GET", "transport=abc", nil, 400, 0, "Transport unknown"},
		{"a member of objects", "GET", "transport=constructor", nil, 400, 0, "Transport unknown"},
		{"unknown session", "GET", "transport=polling&sid=abc", nil, 400, 1, "Session ID unknown"},
		{"opened with POST", "POST", "transport=polling", nil, 400, 2, "Bad handshake method"},
		{"opened with PUT", "PUT", "transport=polling", nil, 400, 2, "Bad handshake method"},
		{"PUT", "PUT", "transport=polling&sid=" + sid, nil, 400, 3, "Bad request"},
		{"WebSocket without upgrade", "GET", "transport=websocket", nil, 400, 3, "Bad request"},
		{"upgrade without upgrade", "GET", "transport=websocket&sid=" + sid, nil, 400, 3, "Bad request"},
		{"foreign page", "POST", "transport=polling&sid=" + sid, []string{"Cookie: session=1", "Origin: http://evil"}, 403, 4, "Forbidden"},
		{"no Origin", "POST", "transport=polling&sid=" + sid, []string{"Cookie: session=1"}, 403, 4, "Forbidden"},
		{"bad token", "GET", "transport=polling", []string{"Authorization: Bearer bad"}, 401, 4, "Forbidden"},
		{"another protocol", "GET", "transport=polling&EIO=3", nil, 200, 0, ""}, // the first EIO counts
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body := r.Ask(c.method, c.query, "", c.headers...)
			if status != c.status {
				t.Fatalf("answered %d %s", status, body)
			}
			if status == http.StatusOK {
				return
			}
			var e struct {
				Code            int
				Message, Detail string
			}
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Code != c.code || e.Message != c.message || e.Detail == "" {
				t.Errorf("answered %s, want code %d %q and what to do", body, c.code, c.message)
			}
		})
	}
	for _, query := range []string{"", "EIO=3&", "EIO=abc&"} {
		resp, err := http.Get(r.URL + "/socket.io/?" + query + "transport=polling")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%q was answered %d", query, resp.StatusCode)
		}
	}
}

func TestPollingCarriesTextAndBinary(t *testing.T) {
	p := serve(t, eio.Options{}).Poll()
	for _, payload := range []string{"4hello", "4test1\x1e4test2\x1e4test3", "4hello\x1ebAQIDBA==", "4", "4grüß \"dich\"", "b"} {
		p.Send(payload)
		p.Want(payload)
	}
	p.Send("bAQI") // without padding
	p.Want("bAQI=")
	p.Send("6\x1e5\x1e4after what means nothing")
	p.Want("4after what means nothing")
}

func TestAnInvalidPayloadEndsTheSession(t *testing.T) {
	r := serve(t, eio.Options{})
	for _, payload := range []string{"", "abc", "7", "4ok\x1e", "\x1e4ok", "4ok\x1e\x1e4ok", "b!!", "4\xff", "2", "0", "4bad", "4ok\x1e4bad"} {
		p := r.Poll()
		if status := p.Post(payload); status != http.StatusBadRequest {
			t.Errorf("%q was answered %d", payload, status)
		}
		if status, _ := p.Get(); status != http.StatusBadRequest {
			t.Errorf("the session goes on after %q: %d", payload, status)
		}
		r.stream(t).wait(t)
	}
}

func TestASecondPollEndsTheSession(t *testing.T) {
	r := serve(t, eio.Options{})
	p := r.Poll()
	e := r.stream(t)
	answers := make(chan string, 2)
	for range 2 { // which of them comes first is not for the test to say
		go func() {
			status, got, err := p.TryGet()
			answers <- fmt.Sprintf("%d %.1s %v", status, got, err)
		}()
	}
	got := []string{<-answers, <-answers}
	if slices.Sort(got); got[0] != "200 1 <nil>" || got[1] != "400 { <nil>" {
		t.Errorf("two polls at a time were answered %q", got)
	}
	if status, _ := p.Get(); status != http.StatusBadRequest {
		t.Errorf("the session goes on: %d", status)
	}
	e.wait(t)
}

// heldAnswer is an answer that the client has, while the handler still believes that it writes.
type heldAnswer struct {
	*httptest.ResponseRecorder
	written, release chan struct{}
}

func (h heldAnswer) Write(p []byte) (int, error) {
	close(h.written)
	<-h.release
	return h.ResponseRecorder.Write(p)
}

func TestAClientThatPollsAgainAtOnceGoesOn(t *testing.T) {
	r := serve(t, eio.Options{})
	for _, more := range []int{1, 2} {
		p := r.Poll()
		e := r.stream(t)
		e.send(message{true, "first"})
		answer := heldAnswer{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
		over := make(chan struct{})
		go func() {
			defer close(over)
			r.server.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/socket.io/?EIO=4&transport=polling&sid="+p.SID, nil))
		}()
		<-answer.written
		e.send(message{true, "second"})
		next := make(chan string, more)
		for range more {
			r.waitsIn(t, p, next)
		}
		if more == 1 {
			close(answer.release)
			if got := <-next; got != "4second" {
				t.Errorf("the next poll was answered %q", got)
			}
			<-over
			continue
		}
		if got := <-next; !strings.Contains(got, `"code":3`) { // one of them is too many
			t.Errorf("a third poll was answered %q", got)
		}
		close(answer.release)
		<-next
		<-over
		e.wait(t)
	}
}

// waitsIn polls in the background, and returns when the poll has got to the server.
func (r *rig) waitsIn(t *testing.T, p *siotest.Poller, answer chan<- string) {
	t.Helper()
	before := r.gets.Load()
	go func() {
		_, got, err := p.TryGet()
		if err != nil {
			got = err.Error()
		}
		answer <- got
	}()
	siotest.Until(t, "the poll", func() bool { return r.gets.Load() > before })
}

func TestASecondPostEndsTheSession(t *testing.T) {
	r := serve(t, eio.Options{})
	p := r.Poll()
	slow, _ := r.Knock("POST /socket.io/?EIO=4&transport=polling&sid=" + p.SID + " HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	if status := p.Post("4x"); status != http.StatusBadRequest {
		t.Errorf("the second POST was answered %d", status)
	}
	_ = slow.Close()
	r.stream(t).wait(t)
}

func TestABrokenPollEndsTheSession(t *testing.T) {
	r := serve(t, eio.Options{})
	p := r.Poll()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL+"/socket.io/?EIO=4&transport=polling&sid="+p.SID, nil)
	if err != nil {
		t.Fatal(err)
	}
	before, broken := r.gets.Load(), make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		broken <- err
	}()
	siotest.Until(t, "the poll", func() bool { return r.gets.Load() > before })
	cancel()
	if err := <-broken; err == nil {
		t.Fatal("the poll was answered")
	}
	r.stream(t).wait(t)
	if status, _ := p.Get(); status != http.StatusBadRequest {
		t.Errorf("the session goes on: %d", status)
	}
}

func TestClosingBothWays(t *testing.T) {
	r := serve(t, eio.Options{})
	t.Run("by a poll that waits", func(t *testing.T) {
		p := r.Poll()
		got := make(chan string, 1)
		r.waitsIn(t, p, got)
		p.Send("1")
		if answer := <-got; answer != "6" {
			t.Errorf("the poll was answered %q", answer)
		}
		if status, _ := p.Get(); status != http.StatusBadRequest {
			t.Errorf("the session goes on: %d", status)
		}
		r.stream(t).wait(t)
	})
	t.Run("by a poll that comes later", func(t *testing.T) {
		p := r.Poll()
		p.Send("1")
		p.Want("6")
		if status, _ := p.Get(); status != http.StatusBadRequest {
			t.Errorf("the session goes on: %d", status)
		}
		r.stream(t).wait(t)
	})
	t.Run("by the server, to a poll", func(t *testing.T) {
		p := r.Poll()
		p.Ask(http.MethodPost, "transport=polling&sid="+p.SID, "4end")
		p.Want("4last words")
		p.Want("1")
		if status, _ := p.Get(); status != http.StatusBadRequest {
			t.Errorf("the session goes on: %d", status)
		}
		r.stream(t).wait(t)
	})
	t.Run("by the server, to a poll that waits", func(t *testing.T) {
		p := r.Poll()
		got := make(chan string, 1)
		r.waitsIn(t, p, got)
		p.Ask(http.MethodPost, "transport=polling&sid="+p.SID, "4end")
		if answer := <-got; answer != "4last words" {
			t.Errorf("the poll was answered %q", answer)
		}
		p.Want("1")
		r.stream(t).wait(t)
	})
	t.Run("by the WebSocket", func(t *testing.T) {
		c, _ := r.Open()
		c.Say("1")
		c.WantClose(1000)
		r.stream(t).wait(t)
	})
	t.Run("by a close frame", func(t *testing.T) {
		c, _ := r.Open()
		c.Put(siotest.Frame(siotest.Fin|siotest.OpClose, "\x03\xe8bye"))
		c.WantClose(1000)
		r.stream(t).wait(t)
	})
	t.Run("by the server, to a WebSocket", func(t *testing.T) {
		c, _ := r.Open()
		c.Say("4end")
		c.Want("4last words")
		if reason := c.WantClose(4001); reason != "asked for" {
			t.Errorf("closed with %q", reason)
		}
		r.stream(t).wait(t)
	})
}

func TestTheServerPings(t *testing.T) {
	r := serve(t, eio.Options{PingInterval: 60 * time.Millisecond, PingTimeout: siotest.Patience})
	p := r.Poll()
	for range 3 {
		p.Want("2")
		p.Send("3")
	}
	c, _ := r.Open()
	for range 3 {
		if _, got, err := c.Read(); err != nil || got != "2" {
			t.Fatalf("got %q, %v, want a ping", got, err)
		}
		c.Say("3")
	}
}

func TestSilenceEndsTheSession(t *testing.T) {
	r := serve(t, eio.Options{PingInterval: 40 * time.Millisecond, PingTimeout: 30 * time.Millisecond})
	p := r.Poll()
	r.stream(t).wait(t)
	if status, _ := p.Get(); status != http.StatusBadRequest {
		t.Errorf("the session goes on: %d", status)
	}
	c, _ := r.Open()
	c.WantClose(4001)
	r.stream(t).wait(t)
	counts := map[string]uint64{}
	for cause, n := range r.metrics.Closed {
		counts[cause] = n
	}
	if counts["ping"] != 2 {
		t.Errorf("counted %v", counts)
	}
}

func TestASessionBelongsToWhoOpenedIt(t *testing.T) {
	r := serve(t, eio.Options{Identify: identify})
	p := r.Poll("Authorization: Bearer one")
	for _, other := range [][]string{nil, {"Authorization: Bearer two"}, {"Cookie: session=1"}} {
		if status, body := r.Ask(http.MethodGet, "transport=polling&sid="+p.SID, "", other...); status != http.StatusForbidden {
			t.Errorf("%v polls: %d %s", other, status, body)
		}
		if status, _ := r.Ask(http.MethodPost, "transport=polling&sid="+p.SID, "4x", append(other, "Origin: "+r.URL)...); status != http.StatusForbidden {
			t.Errorf("%v posts: %d", other, status)
		}
		if _, resp := r.Knock(siotest.Request("&sid="+p.SID, append(other, "Origin: http://hub")...)); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%v upgrades: %d", other, resp.StatusCode)
		}
	}
	p.Send("4still mine")
	p.Want("4still mine")
	if got := r.stream(t).Opener().Credential; got != "one" {
		t.Errorf("opened by %q", got)
	}
}

func TestAForeignPageGetsNoSocket(t *testing.T) {
	r := serve(t, eio.Options{Identify: identify})
	for _, origin := range []string{"http://evil", "null", "http://hub.evil", "https://hub", "http://hub:81", ""} {
		headers := []string{"Cookie: session=1"}
		if origin != "" {
			headers = append(headers, "Origin: "+origin)
		}
		if _, resp := r.Knock(siotest.Request("", headers...)); resp.StatusCode != http.StatusForbidden {
			t.Errorf("origin %q was answered %d", origin, resp.StatusCode)
		}
	}
	r.Dial("", "Cookie: session=1", "Origin: http://hub")
	r.Dial("", "Authorization: Bearer one", "Origin: http://evil")
}

func TestPanicsEndOneSession(t *testing.T) {
	r := serve(t, eio.Options{})
	other := r.Poll()
	r.stream(t)
	p := r.Poll()
	p.Post("4panic")
	r.stream(t).wait(t)
	c, _ := r.Open()
	c.Say("4panic")
	c.WantClose(1011)
	r.stream(t).wait(t)
	c, _ = r.Open()
	c.Say("4panic in Next")
	c.WantClose(1011)
	r.stream(t).wait(t)
	other.Send("4alive")
	other.Want("4alive")
	if n := r.metrics.Panics.Load(); n != 3 {
		t.Errorf("counted %d panics", n)
	}
}

func TestShutdownSendsEverybodyAway(t *testing.T) {
	r := serve(t, eio.Options{CloseTimeout: time.Second})
	c, _ := r.Open()
	p := r.Poll()
	got := make(chan string, 1)
	r.waitsIn(t, p, got)
	idle := r.Poll()
	idle.Send("4never fetched")
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), siotest.Patience)
		defer cancel()
		ended <- r.server.Shutdown(ctx)
	}()
	if reason := c.WantClose(4002); !strings.Contains(reason, "stopping") {
		t.Errorf("closed with %q", reason)
	}
	if answer := <-got; answer != "1" {
		t.Errorf("the poll was answered %q", answer)
	}
	if err := <-ended; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if status, _ := r.Ask(http.MethodGet, "transport=polling", ""); status != http.StatusServiceUnavailable {
		t.Errorf("a newcomer was answered %d", status)
	}
}
