package sio_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/siotest"
)

func TestFramesBecomeEvents(t *testing.T) {
	r := serve(t, sio.Options{})
	u := r.connect(`{"token":"viewer","subscribe":{"devices":["a*"],"metrics":["t"],"mode":"all","tick":250}}`)
	if s := u.view.sub(); fmt.Sprint(s.Devices, s.Metrics, s.Mode, s.Tick, s.After) != "[a*] [t] 1 250ms" || s.Scope != nil || s.Greet {
		t.Errorf("subscribed %+v", s)
	}
	const more, last = `{"type":"snapshot","devices":[],"more":true}`, `{"type":"snapshot","devices":[],"token":"e-1"}`
	u.view.push(more, "")
	u.Want(`42["snapshot",` + more + `]`)
	u.view.push(last, "e-1")
	args := u.event("snapshot")
	if len(args) != 2 || !strings.HasPrefix(args[1].(string), "e-1.") || !strings.HasSuffix(args[1].(string), "~0") {
		t.Errorf("the snapshot came with %v", args)
	}
	const frame = `{"type":"readings","readings":[["a1","t",1766000000123,21.5]],"token":"e-2"}`
	u.view.push(frame, "e-2")
	if text := u.Text(); !strings.HasPrefix(text, `42["reading",`+frame+`,"e-2.`) {
		t.Errorf("got %s", text)
	}
	large := `{"type":"changes","devices":["` + strings.Repeat("x", 100_000) + `"],"token":"e-3"}`
	u.view.push(large, "e-3")
	if text := u.Text(); !strings.HasPrefix(text, `42["reading",`+large+`,"e-3.`) {
		t.Errorf("got %.100s", text)
	}
	if n := r.metrics.Frames.Load(); n != 4 {
		t.Errorf("counted %d frames", n)
	}
	scoped := r.connect(`{"token":"scoped"}`)
	if s := scoped.view.sub(); s.Scope == nil || s.Scope("attic") || !s.Scope("cellar-1") || s.Mode != hub.Latest || s.Tick != 0 {
		t.Errorf("subscribed %+v", s)
	}
}

// offset returns the last argument of the next reading.
func (u *user) offset() string {
	u.t.Helper()
	args := u.event("reading")
	return args[len(args)-1].(string)
}

func TestAResumedClientGoesOnWhereItWas(t *testing.T) {
	const auth = `"token":"viewer","subscribe":{"mode":"all"}`
	r := serve(t, sio.Options{})
	u := r.connect(`{` + auth + `}`)
	u.view.push(`{"type":"readings"}`, "e-7")
	offset := u.offset()
	_ = u.Close()
	<-u.view.ended
	for name, c := range map[string]struct {
		auth, after string
	}{
		"by its offset":               {`{` + auth + `,"pid":"PID","offset":"OFFSET"}`, "e-7"},
		"after a restart":             {`{` + auth + `,"pid":"unknown","offset":"OFFSET"}`, "e-7"},
		"from another transport":      {`{"token":"viewer","subscribe":{"mode":"all","after":"e-9"}}`, "e-9"},
		"with the offset as a token":  {`{"token":"viewer","subscribe":{"mode":"all","after":"OFFSET"}}`, "e-7"},
		"with another subscription":   {`{"token":"viewer","pid":"unknown","offset":"OFFSET"}`, ""},
		"with another scope":          {`{"token":"scoped","subscribe":{"mode":"all"},"pid":"unknown","offset":"OFFSET"}`, ""},
		"from too far back":           {`{"token":"viewer","subscribe":{"after":"old-1"}}`, ""},
		"with the text of a welcome":  {`{` + auth + `,"offset":"~0"}`, ""},
		"without having got anything": {`{` + auth + `}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			u := r.connect(strings.NewReplacer("PID", u.pid, "OFFSET", offset).Replace(c.auth))
			if got := u.view.sub().After; got != c.after {
				t.Errorf("subscribed after %q, want %q", got, c.after)
			}
			if u.welcome["resumed"] != (c.after != "") {
				t.Errorf("welcomed with %v", u.welcome)
			}
		})
	}
}

// A place in the feed is forgotten with the subscription that it was of, until there is one in the new.
func TestAChangedSubscriptionHasNoOffsetYet(t *testing.T) {
	t.Parallel()
	r := serve(t, sio.Options{})
	u, other := r.connect(`{"token":"viewer"}`), r.connect(`{"token":"viewer"}`)
	u.ask(`["join","lobby"]`)
	u.event("people")
	u.view.push(`{"type":"changes"}`, "e-1")
	u.offset()
	for _, c := range []struct{ subscribe, mark string }{{`{"devices":["a"]}`, ""}, {`{"devices":["b"],"after":"e-7"}`, "e-7"}} {
		u.ask(`["subscribe",` + c.subscribe + `]`)
		other.ask(`["message"]`)
		args := u.event("message")
		if mark, _, _ := strings.Cut(args[len(args)-1].(string), "~"); mark != c.mark {
			t.Errorf("after %s the offset is %v", c.subscribe, args)
		}
	}
}

// What a client that comes back in time was told is told in the same subscription, whatever it asks for now.
func TestARecoveredClientKeepsItsSubscriptionAndRooms(t *testing.T) {
	t.Parallel()
	r := serve(t, sio.Options{})
	u := r.connect(`{"token":"operator"}`)
	u.ask(`["join","blue"]`)
	u.ask(`["join","lobby"]`)
	u.event("people")
	if got := u.ask(`["subscribe",{"mode":"all","devices":["a"]}]`); got != `{"resumed":false}` {
		t.Errorf("answered %s", got)
	}
	u.view.push(`{"type":"readings"}`, "e-5")
	offset := u.offset()
	_ = u.Close()
	<-u.view.ended
	other := r.connect(`{"token":"operator"}`)
	other.ask(`["emit","blue","news",1]`)

	c, _ := r.Open()
	c.Say(`40{"token":"operator","pid":"` + u.pid + `","offset":"` + offset + `"}`)
	if got := hello.FindStringSubmatch(c.Text()); got == nil || got[1] != u.id || got[2] != u.pid {
		t.Fatalf("came back as %v, was %s", got, u.id)
	}
	view := <-r.feed.viewers
	if s := view.sub(); s.After != "e-5" || s.Mode != hub.All || fmt.Sprint(s.Devices) != "[a]" {
		t.Errorf("subscribed %+v", s)
	}
	if got := c.Text(); !strings.HasPrefix(got, `42["news",1,{"from":"`+other.id+`"`) || !strings.HasSuffix(got, strings.TrimSuffix(offset, "0")+`1"]`) {
		t.Errorf("got %s", got)
	}
	siotest.Until(t, "the people", func() bool { return strings.HasPrefix(c.Text(), `42["people"`) })
}

// A message between readings must not move a client back or forward in the feed.
func TestOffsetsNeverGoBack(t *testing.T) {
	t.Parallel()
	r := serve(t, sio.Options{})
	u, other := r.connect(`{"token":"viewer"}`), r.connect(`{"token":"viewer"}`)
	u.ask(`["join","lobby"]`)
	u.event("people")
	for i := range 50 {
		u.view.push(`{"type":"changes"}`, fmt.Sprintf("e-%02d", i))
		other.Say(fmt.Sprintf(`42["message",%d]`, i))
	}
	last, frames, messages := "", 0, 0
	for frames < 50 || messages < 50 {
		var args []any
		if err := json.Unmarshal([]byte(u.Text()[2:]), &args); err != nil {
			t.Fatal(err)
		}
		offset := args[len(args)-1].(string)
		if args[0] == "message" {
			messages++
		} else {
			frames++
		}
		mark, n, _ := strings.Cut(offset, "~")
		want := ""
		if frames > 0 {
			want = fmt.Sprintf("e-%02d.", frames-1)
		}
		if !strings.HasPrefix(mark, want) || n < last && len(n) <= len(last) {
			t.Fatalf("after %d frames and %d messages the offset is %s", frames, messages, offset)
		}
		last = n
	}
}

func TestASubscriptionIsChangedInPlace(t *testing.T) {
	r := serve(t, sio.Options{})
	u := r.connect(`{"token":"viewer"}`)
	u.view.push(`{"type":"changes"}`, "e-1")
	offset := u.offset()
	for args, want := range map[string]string{
		`["subscribe",{"after":"` + offset + `"}]`:              `{"resumed":true}`,
		`["subscribe",{"mode":"all","after":"` + offset + `"}]`: `{"resumed":false}`,
		`["subscribe",{"mode":"all","after":"e-4"}]`:            `{"resumed":true}`,
		`["subscribe",{"after":"old-4"}]`:                       `{"resumed":false}`,
		`["subscribe"]`:                                         `{"resumed":false}`,
		`["subscribe",{"mode":"some"}]`:                         `{"error":"unknown mode \"some\": use latest or all"}`,
		`["subscribe",{"devices":[""]}]`:                        `{"error":"bad pattern"}`,
		`["subscribe",7]`:                                       `{"error":"subscribe takes an object such as {devices: [\"*\"], metrics: [\"*\"], mode: \"all\"}"}`,
	} {
		if got := u.ask(args); got != want {
			t.Errorf("%s was answered %s, want %s", args, got, want)
		}
	}
	for range 50 { // more than come back meanwhile on a slow machine
		u.Say(`42["subscribe",{}]`)
	}
	if got := u.ask(`["subscribe",{}]`); !strings.Contains(got, "too many changes") {
		t.Errorf("a flood was answered %s", got)
	}
}

func TestDeviceEvents(t *testing.T) {
	r := serve(t, sio.Options{})
	watch := r.run()
	d := func(id, presence string) string {
		return fmt.Sprintf(`{"id":%q,"presence":%q,"metrics":{}}`, id, presence)
	}
	watch.push(`{"type":"snapshot","devices":[`+d("attic", "live")+`,`+d("cellar-1", "live")+`]}`, "e-1")
	probe := r.connect(`{"token":"viewer","subscribe":{"mode":"all","after":"e-1"}}`)
	probe.event("device") // resumed, it is told of all devices: so the snapshot is there
	probe.event("device")

	all, cellar := r.connect(`{"token":"viewer"}`), r.connect(`{"token":"viewer","subscribe":{"devices":["cellar-*"]}}`)
	scoped := r.connect(`{"token":"scoped"}`)
	watch.push(`{"type":"changes","devices":[`+d("attic", "silent")+`,`+d("cellar-1", "silent")+`]}`, "e-2")
	all.Want(`42["device",`+d("attic", "silent")+`]`, `42["device",`+d("cellar-1", "silent")+`]`)
	cellar.Want(`42["device",` + d("cellar-1", "silent") + `]`)
	scoped.Want(`42["device",` + d("cellar-1", "silent") + `]`)

	// A client that was away for a moment learns what changed meanwhile, and that only.
	all.view.push(`{"type":"changes"}`, "e-2")
	offset := all.offset()
	_ = all.Close()
	<-all.view.ended
	watch.push(`{"type":"changes","devices":[`+d("attic", "never")+`]}`, "e-3")
	watch.push(`{"type":"changes","devices":[`+d("attic", "live")+`]}`, "e-3")
	scoped.ask(`["join","blue"]`)
	// One that is here may be told of both, or of the last only.
	siotest.Until(t, "the last change", func() bool { return probe.Text() == `42["device",`+d("attic", "live")+`]` })
	cellar.ask(`["join","lobby"]`)
	c, _ := r.Open()
	c.Say(`40{"token":"viewer","pid":"` + all.pid + `","offset":"` + offset + `"}`)
	c.Text()
	c.Text()
	c.Want(`42["device",` + d("attic", "live") + `]`)
	for i := range 300 { // the roster is bounded by the number of devices
		watch.push(`{"type":"changes","devices":[`+d("attic", fmt.Sprint(i))+`]}`, "e-4")
	}
	siotest.Until(t, "the last change", func() bool { return strings.Contains(c.Text(), `"299"`) })
}

func TestTheWatchOverDevicesIsTakenUpAgain(t *testing.T) {
	t.Parallel()
	r := serve(t, sio.Options{})
	r.run().peer.Close(4001, "slow")
	select {
	case <-r.feed.watch:
	case <-time.After(siotest.Patience):
		t.Error("nobody watches any more")
	}
}
