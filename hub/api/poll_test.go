package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

// polled is the answer to a poll.
type polled struct {
	Reset  bool
	Frames []json.RawMessage
	Token  string
}

// poll polls once. It must be answered by 200.
func (r *rig) poll(token, query string) polled {
	r.t.Helper()
	resp, body := r.do(call{method: "GET", path: "/api/v1/live/poll?" + query, token: token})
	var p polled
	if err := json.Unmarshal([]byte(body), &p); err != nil || resp.StatusCode != http.StatusOK {
		r.t.Fatalf("poll %s: %d %s: %v", query, resp.StatusCode, body, err)
	}
	if p.Token == "" || p.Frames == nil {
		r.t.Fatalf("poll %s: %s", query, body)
	}
	return p
}

func (p polled) text() string {
	var b strings.Builder
	for _, f := range p.Frames {
		b.Write(f)
	}
	return b.String()
}

// TestPollsOfNetHTTP does it all again where polls stay with net/http, as they do under TLS.
func TestPollsOfNetHTTP(t *testing.T) {
	noDoor = true
	defer func() { noDoor = false }()
	for name, test := range map[string]func(*testing.T){
		"snapshot": TestPollBeginsWithASnapshotAndGoesOn, "unchanged": TestPollSaysWhenNothingHasChanged,
		"unknown token": TestPollStartsOverAfterATokenThatIsNotKnown, "malformed": TestPollRefusesWhatItDoesNotUnderstand,
		"scope": TestPollIsOnlyOfWhatTheViewerMaySee, "end": TestPollThatWaitsEndsWithTheRightToIt,
		"late end": TestARevocationThatComesTooLateMeetsNobodyElse, "large": TestPollGivesALargeSnapshotWhole,
		"transports": TestChangingTheTransportMissesNothing, "long": TestAPollMayWaitLongerThanOtherRequestsTake,
		"query": TestPollReadsItsQueryAsOthersDo, "codings": TestAnswersToPollsHaveTheCodingThatTheClientAccepts,
		"coded snapshot": TestALargeSnapshotHasACodingToo, "coded together": TestPollersWithAndWithoutCodingsGetTheSame, "much": TestPollThatDoesNotWaitFindsWhatLiesBehindMuch,
	} {
		t.Run(name, test)
	}
}

func TestPollBeginsWithASnapshotAndGoesOn(t *testing.T) {
	for _, mode := range []string{"latest", "all"} {
		r := newRig(t)
		dev, viewer := r.device("pump"), r.token(access.Viewer)
		r.send("pump", dev, `{"temperature":1.5}`)
		r.until("/api/v1/latest", viewer, func(body string) bool { return strings.Contains(body, "1.5") })
		first := r.poll(viewer, "mode="+mode)
		if text := first.text(); !strings.Contains(text, "web Socket Works") || !strings.Contains(text, `"snapshot"`) || !strings.Contains(text, "1.5") {
			t.Fatalf("the first answer is %s", text)
		}
		if none := r.poll(viewer, "wait=0&mode="+mode+"&after="+first.Token); len(none.Frames) != 0 || none.Token != first.Token {
			t.Errorf("nothing has come: %+v", none)
		}
		began := time.Now()
		if none := r.poll(viewer, "wait=50ms&mode="+mode+"&after="+first.Token); len(none.Frames) != 0 || time.Since(began) < 50*time.Millisecond {
			t.Errorf("nothing has come: %+v after %s", none, time.Since(began))
		}
		answered := make(chan polled, 1)
		go func() { answered <- r.poll(viewer, "mode="+mode+"&after="+first.Token) }()
		r.send("pump", dev, `{"temperature":2.5}`)
		second := <-answered
		if text := second.text(); !strings.Contains(text, "2.5") || strings.Contains(text, "1.5") || second.Token == first.Token {
			t.Errorf("mode %s goes on with %s", mode, text)
		}
	}
}

func TestPollSaysWhenNothingHasChanged(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	ask := func(query, tag string) (int, string, string) {
		t.Helper()
		resp, body := r.do(call{method: "GET", path: "/api/v1/live/poll?wait=0&" + query, token: viewer, header: http.Header{"If-None-Match": {tag}}})
		return resp.StatusCode, resp.Header.Get("Etag"), body
	}
	r.send("pump", dev, `{"temperature":1.5}`)
	shown := func(value string) {
		r.until("/api/v1/latest", viewer, func(body string) bool { return strings.Contains(body, value) })
	}
	shown("1.5")
	status, tag, body := ask("", "")
	if status != http.StatusOK || !strings.Contains(body, "1.5") || tag == "" {
		t.Fatalf("%d %s %s", status, tag, body)
	}
	after := "after=" + strings.Trim(tag, `"`)
	for _, query := range []string{"", after} {
		for _, known := range []string{tag, "W/" + tag, tag + `, "other"`} {
			if status, same, body := ask(query, known); status != http.StatusNotModified || same != tag || body != "" {
				t.Errorf("%q %s: nothing has changed: %d %s %s", query, known, status, same, body)
			}
		}
	}
	r.send("pump", dev, `{"humidity":2.5}`)
	shown("2.5")
	if status, next, body := ask("", tag); status != http.StatusOK || next == tag || !strings.Contains(body, "1.5") || !strings.Contains(body, "2.5") {
		t.Errorf("the whole state is %d %s %s", status, next, body)
	}
	if status, next, body := ask(after, tag); status != http.StatusOK || next == tag || strings.Contains(body, "1.5") || !strings.Contains(body, "2.5") {
		t.Errorf("the changes are %d %s %s", status, next, body)
	}
	for _, unknown := range []string{`"of-another-hub"`, "*", "no tag"} {
		if status, _, body := ask("", unknown); status != http.StatusOK || !strings.Contains(body, "snapshot") {
			t.Errorf("%s: %d %s", unknown, status, body)
		}
	}
}

func TestPollStartsOverAfterATokenThatIsNotKnown(t *testing.T) {
	r := newRig(t)
	r.device("pump")
	if p := r.poll(r.token(access.Viewer), "after=of-another-hub"); !p.Reset || !strings.Contains(p.text(), `"snapshot"`) {
		t.Errorf("%+v", p)
	}
}

func TestPollRefusesWhatItDoesNotUnderstand(t *testing.T) {
	r := newRig(t)
	viewer := r.token(access.Viewer)
	for _, query := range []string{"wait=61s", "wait=-1s", "wait=soon", "tick=x", "tick=NaN", "mode=some", "devices=a*b", "device=a"} {
		r.want(http.StatusUnprocessableEntity, call{method: "GET", path: "/api/v1/live/poll?" + query, token: viewer})
	}
}

func TestPollIsOnlyOfWhatTheViewerMaySee(t *testing.T) {
	r := newRig(t)
	here, there := r.device("here-1"), r.device("there-1")
	viewer := r.token(access.Viewer, "here-*")
	p := r.poll(viewer, "")
	r.send("there-1", there, `{"temperature":3.25}`)
	r.send("here-1", here, `{"temperature":7.25}`)
	text := p.text()
	for !strings.Contains(text, "7.25") {
		p = r.poll(viewer, "after="+p.Token)
		text += p.text()
	}
	if strings.Contains(text, "there-1") {
		t.Errorf("it shows %s", text)
	}
}

func TestPollThatWaitsEndsWithTheRightToIt(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	end := func(name string, header http.Header, stop func() error, status int) {
		t.Helper()
		after := r.state(header)
		r.viewers(0)
		answered := make(chan int, 1)
		go func() {
			resp, _ := r.do(call{method: "GET", path: "/api/v1/live/poll?devices=none&after=" + after, header: header})
			answered <- resp.StatusCode
		}()
		r.viewers(1)
		began := time.Now()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if got := <-answered; got != status || time.Since(began) > 5*time.Second {
			t.Errorf("%s: answered %d after %s, want %d", name, got, time.Since(began), status)
		}
	}
	made, err := r.access.CreateToken(ctx, access.Local(), access.TokenSpec{Role: access.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	end("revoked token", bearerOf(made.Secret.Reveal()), func() error { return r.access.RevokeToken(ctx, access.Local(), made.ID) }, http.StatusUnauthorized)
	cookie := r.person("vera", access.Viewer)
	end("logout", r.with(cookie), func() error { return r.access.Logout(ctx, access.NewSecret(cookie.Value)) }, http.StatusUnauthorized)
	end("stopping hub", bearerOf(r.token(access.Viewer)), func() error { go r.stop(); return nil }, http.StatusServiceUnavailable)
}

// TestARevocationThatComesTooLateMeetsNobodyElse has a poll answered while its token is being revoked, and another one begin.
func TestARevocationThatComesTooLateMeetsNobodyElse(t *testing.T) {
	r := newRig(t)
	dev, other := r.device("pump"), r.token(access.Viewer)
	made, err := r.access.CreateToken(t.Context(), access.Local(), access.TokenSpec{Role: access.Viewer})
	if err != nil {
		t.Fatal(err)
	}
	id, err := r.access.Authenticate(made.Secret.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	wait := func(query, token string) chan int {
		path, viewers := "/api/v1/live/poll?mode=all&"+query+"after="+r.state(bearerOf(token)), r.hub.Status().Viewers
		answered := make(chan int, 1)
		go func() {
			resp, _ := r.do(call{method: "GET", path: path, token: token})
			answered <- resp.StatusCode
		}()
		for r.hub.Status().Viewers == viewers {
			<-time.After(time.Millisecond)
		}
		return answered
	}
	first := wait("", made.Secret.Reveal())
	telling, told := make(chan struct{}), make(chan struct{})
	defer r.access.Watch(id, func(access.Reason) { // before the poll is told
		close(telling)
		<-told
	})()
	revoked := make(chan any, 1)
	go func() {
		defer func() { revoked <- recover() }()
		if err := r.access.RevokeToken(t.Context(), access.Local(), made.ID); err != nil {
			t.Error(err)
		}
	}()
	<-telling
	r.send("pump", dev, `{"temperature":1.5}`)
	if status := <-first; status != http.StatusOK {
		t.Errorf("the first is answered %d", status)
	}
	for r.hub.Status().Viewers > 0 {
		<-time.After(time.Millisecond)
	}
	second := wait("devices=pump&", other)
	close(told)
	if v := <-revoked; v != nil {
		t.Errorf("the revocation panics: %v", v)
	}
	r.send("pump", dev, `{"temperature":2.5}`)
	if status := <-second; status != http.StatusOK {
		t.Errorf("another caller is answered %d", status)
	}
}

// state returns a token of now.
func (r *rig) state(header http.Header) string {
	resp, body := r.do(call{method: "GET", path: "/api/v1/live/poll?wait=0", header: header})
	var p polled
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		r.t.Errorf("%d %s", resp.StatusCode, body)
	}
	return p.Token
}

func TestPollGivesALargeSnapshotWhole(t *testing.T) {
	r := newRig(t)
	const n = 800
	for i := range n {
		if _, err := r.hub.AddDevice(t.Context(), device.ID(fmt.Sprintf("d%03d", i)), hub.DeviceAttrs{Name: strings.Repeat("n", 200)}); err != nil {
			t.Fatal(err)
		}
	}
	p := r.poll(r.token(access.Viewer), "wait=0")
	if got := strings.Count(p.text(), `"id":"d`); got != n || len(p.Frames) < 3 {
		t.Errorf("%d devices in %d frames, want %d", got, len(p.Frames), n)
	}
}

// TestChangingTheTransportMissesNothing reads every reading, each few by another transport.
func TestChangingTheTransportMissesNothing(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	token := r.poll(viewer, "mode=all").Token
	const n = 300
	var sent sync.WaitGroup
	sent.Go(func() {
		for i := 1; i <= n; i++ {
			r.send("pump", dev, fmt.Sprintf(`{"t":%d,"v":{"count":%d}}`, 1766000000000+i, i))
		}
	})
	defer sent.Wait()
	next := 1
	take := func(frame string) {
		var f struct{ Readings [][]any }
		if err := json.Unmarshal([]byte(frame), &f); err != nil {
			t.Fatalf("%v: %s", err, frame)
		}
		for _, reading := range f.Readings {
			if got := int(reading[3].(float64)); got != next {
				t.Fatalf("reading %d comes where %d should", got, next)
			}
			next++
		}
	}
	for round := 0; next <= n; round++ {
		after := "mode=all&tick=-1&after=" + url.QueryEscape(token)
		switch round % 3 {
		case 0:
			e := r.follow("?"+after, bearerOf(viewer))
			for range 1 + round%4 {
				if next > n {
					break
				}
				ev, ok := e.next()
				if !ok {
					t.Fatal("the stream ends")
				}
				take(ev.data)
				token = ev.id
			}
			e.close()
		default:
			p := r.poll(viewer, after+"&wait="+[]string{"", "25s", "0"}[round%3])
			for _, f := range p.Frames {
				take(string(f))
			}
			if token = p.Token; p.Reset {
				t.Fatal("it starts over")
			}
		}
	}
}

func TestAPollMayWaitLongerThanOtherRequestsTake(t *testing.T) {
	r := newRig(t, func(p *parts) {
		p.options.RequestTimeout, p.options.WriteTimeout = 250*time.Millisecond, 250*time.Millisecond
	})
	viewer := r.token(access.Viewer)
	token, _ := r.want(http.StatusOK, call{method: "GET", path: "/api/v1/live/poll", token: viewer})["token"].(string)
	path := "/api/v1/live/poll?wait=800ms&after=" + token
	if got := r.want(http.StatusOK, call{method: "GET", path: path, token: viewer}); got["token"] != token {
		t.Errorf("the answer is %v", got)
	}
	resp, _ := r.do(call{method: "GET", path: path, token: viewer, header: http.Header{"If-None-Match": {`"` + token + `"`}}})
	if resp.StatusCode != http.StatusNotModified {
		t.Errorf("the answer is %s", resp.Status)
	}
}

func TestPollReadsItsQueryAsOthersDo(t *testing.T) {
	r := newRig(t)
	r.device("a-1")
	r.device("b-2")
	viewer := r.token(access.Viewer)
	for query, want := range map[string][2]bool{
		"":                                {true, true},
		"&&":                              {true, true},
		"devices=":                        {true, true},
		"devices=a-1":                     {true, false},
		"devices=a%2D1&devices=none":      {true, false},
		"devices=none&devices=b%2d*":      {false, true},
		"devices=a-1,b-2&devices":         {true, true},
		"mode=latest&mode=what":           {true, true},
		"%64evices=b-2&after=&mode=&wait": {false, true},
	} {
		text := r.poll(viewer, query).text()
		if got := [2]bool{strings.Contains(text, `"a-1"`), strings.Contains(text, `"b-2"`)}; got != want {
			t.Errorf("%s shows %v, want %v: %s", query, got, want, text)
		}
	}
	for _, query := range []string{"devices=%zz", "%zz=1", "devices=a;wait=0", "what", "wait=0&=1"} {
		r.want(http.StatusUnprocessableEntity, call{method: "GET", path: "/api/v1/live/poll?" + query, token: viewer})
	}
}

// TestPollThatDoesNotWaitFindsWhatLiesBehindMuch asks for what follows much that the viewer does not ask for.
func TestPollThatDoesNotWaitFindsWhatLiesBehindMuch(t *testing.T) {
	for _, tail := range []int{1, 64 << 20} {
		r := newRig(t, func(p *parts) { p.hub.TailBytes = tail })
		pump, noise, viewer := r.device("pump"), r.device("noise"), r.token(access.Viewer)
		v := r.want(http.StatusOK, call{method: "GET", path: "/api/v1/live/poll?mode=all", token: viewer})
		var pack []string
		for i := range 14 {
			pack = append(pack, `{"n":"text`+itoa(i)+`","vs":"`+strings.Repeat("x", 4000)+`"}`)
		}
		for range 20 {
			r.send("noise", noise, "["+strings.Join(pack, ",")+"]")
		}
		r.send("pump", pump, `{"temperature":7.25}`)
		r.until("/api/v1/live/poll?wait=0&devices=pump", viewer, func(body string) bool { return strings.Contains(body, "7.25") })
		path := "/api/v1/live/poll?mode=all&devices=pump&wait=0&after=" + v["token"].(string)
		if _, body := r.do(call{method: "GET", path: path, token: viewer}); !strings.Contains(body, "7.25") {
			t.Errorf("with a tail of %d bytes a poll finds %s", tail, body)
		}
	}
}
