package socket_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/siotest"
	"telemetryhub/hub/sio/socket"
)

// rig is a server with the namespaces "/" and "/custom", whose sockets do what events say.
type rig struct {
	*siotest.Site
	server  *socket.Server
	metrics *socket.Metrics
	left    chan *socket.Socket
}

func values(t testing.TB, v ...any) socket.Message {
	t.Helper()
	m, err := socket.Values(v...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func serve(t *testing.T, o socket.Options) *rig {
	t.Helper()
	r := &rig{metrics: new(socket.Metrics), left: make(chan *socket.Socket, 1000)}
	o.Metrics = r.metrics
	h := socket.Handler{
		Connect: func(s *socket.Socket, auth json.RawMessage) error {
			s.State = auth
			switch string(auth) {
			case `{"token":"bad"}`:
				return &socket.ConnectError{Message: "no", Data: map[string]int{"code": 7}}
			case `{"token":"fault"}`:
				return errors.New("secret")
			case `{"token":"later"}`:
				return socket.ErrAgain
			}
			return nil
		},
		Connected: func(s *socket.Socket) {
			s.Emit("auth", socket.Message{Args: []json.RawMessage{s.State.(json.RawMessage)}})
		},
		Event: func(s *socket.Socket, e *socket.Event) { r.event(t, s, e) },
		Disconnected: func(s *socket.Socket) {
			r.left <- s
		},
	}
	var err error
	r.server, err = socket.New(map[string]socket.Handler{"/": h, "/custom": h}, o)
	if err != nil {
		t.Fatal(err)
	}
	r.Site = siotest.Serve(t, r.server)
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.server.Shutdown(ctx) // it says how many it had to cut, which is how many clients the test left
		if n := r.metrics.Connected.Load(); n != 0 {
			t.Errorf("%d sockets are connected after the end", n)
		}
	})
	return r
}

func (r *rig) event(t *testing.T, s *socket.Socket, e *socket.Event) {
	text := func(i int) (v string) { _ = json.Unmarshal(e.Args[i], &v); return v }
	switch e.Name {
	case "message":
		s.Emit("message-back", e.Message)
	case "message-with-ack":
		e.Ack(e.Message)
		e.Ack(e.Message) // only the first counts
	case "ask", "ask in vain":
		wait := siotest.Patience
		if e.Name != "ask" {
			wait = 50 * time.Millisecond
		}
		err := s.Ask("question", e.Message, wait, func(m socket.Message, err error) {
			if err != nil {
				s.Emit("no answer", values(t, err.Error()))
				return
			}
			s.Emit("answer", m)
		})
		if err != nil {
			s.Emit("not asked", values(t, err.Error()))
		}
	case "join":
		s.Join(text(0))
		e.Ack(values(t, s.Rooms()))
	case "leave":
		s.Leave(text(0))
		e.Ack(values(t, s.Rooms()))
	case "shout":
		n := r.server.Of("/").Emit(text(0), "heard", socket.Message{Args: e.Args[1:], Attachments: e.Attachments}, s)
		e.Ack(values(t, n))
	case "end":
		s.End(4503, "told to")
	case "close":
		s.Close(4010, "told to")
	}
}

var hello = regexp.MustCompile(`^40(/custom,)?\{"sid":"([-_A-Za-z0-9]{20})"(,"pid":"([-_A-Za-z0-9]{20})")?\}$`)

// connect opens a WebSocket and connects to the main namespace.
func (r *rig) connect(t *testing.T) (c *siotest.Socket, id string) {
	t.Helper()
	c, _ = r.Open()
	c.Say("40")
	got := hello.FindStringSubmatch(c.Text())
	if got == nil {
		t.Fatal("not connected")
	}
	c.Want(`42["auth",{}]`)
	return c, got[2]
}

func TestConnecting(t *testing.T) {
	r := serve(t, socket.Options{})
	for packet, auth := range map[string]string{
		`40`: `42["auth",{}]`, `40{"token":"123"}`: `42["auth",{"token":"123"}]`, `40/custom,`: `42/custom,["auth",{}]`,
		`40/custom,{"token":"abc"}`: `42/custom,["auth",{"token":"abc"}]`, `40/custom`: `42/custom,["auth",{}]`,
	} {
		c, _ := r.Open()
		c.Say(packet)
		got := c.Text()
		if !hello.MatchString(got) || strings.Contains(got, "/custom") != strings.Contains(packet, "/custom") {
			t.Errorf("%s was answered %s", packet, got)
		}
		c.Want(auth)
	}
	c, _ := r.Open()
	c.Say(`40/random`, `40{"token":"bad"}`, `40{"token":"fault"}`)
	c.Want(`44/random,{"message":"Invalid namespace"}`, `44{"message":"no","data":{"code":7}}`, `44{"message":"internal error"}`)
	c.Say(`40{"token":"later"}`)
	c.WantClose(4002)
	if n := r.metrics.Refused.Load(); n != 3 {
		t.Errorf("counted %d refusals", n)
	}
	c, _ = r.Open()
	for range 9 { // as somebody who guesses
		c.Say(`40{"token":"bad"}`)
	}
	c.WantClose(1008)
	if n := r.metrics.Refused.Load(); n != 11 {
		t.Errorf("counted %d refusals", n)
	}
}

func TestWhatBreaksTheProtocolEndsTheConnection(t *testing.T) {
	r := serve(t, socket.Options{})
	for _, first := range []string{"4abc", `42["message"]`, "41", "47", "4", "40[]", "40{", `40"x"`, `43["x"]`, "40/" + strings.Repeat("x", 200)} {
		c, _ := r.Open()
		c.Say(first)
		c.WantClose(1008)
	}
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for _, later := range []string{
		"4abc", "42{}", "42", "42[]", `42"x"`, `42abc["message"]`, `42["message"`, `42["connect"]`, `42["disconnecting"]`, `42[{}]`,
		`42["` + strings.Repeat("x", 200) + `"]`, `42["message",` + deep + `]`, `42/random,["message"]`, "40", `44{"message":"x"}`, "43[]",
		`431{}`, `41["x"]`, `45["message"]`, `45-["message"]`, `4517-["message"]`, `421234567890123456["message"]`,
	} {
		c, _ := r.connect(t)
		c.Say(later)
		if reason := c.WantClose(1008); !strings.Contains(reason, "Socket.IO") {
			t.Errorf("%.40s: closed with %q", later, reason)
		}
	}
	for name, frames := range map[string][][]byte{
		"an attachment of nothing": {siotest.Frame(siotest.Fin|siotest.OpBinary, "x")},
		"a text instead of an attachment": {siotest.Frame(siotest.Fin|siotest.OpText, `451-["message",{"_placeholder":true,"num":0}]`),
			siotest.Frame(siotest.Fin|siotest.OpText, `42["message"]`)},
		"a place for nothing": {siotest.Frame(siotest.Fin|siotest.OpText, `451-["message",{"_placeholder":true,"num":1}]`),
			siotest.Frame(siotest.Fin|siotest.OpBinary, "x")},
		"a place that is no number": {siotest.Frame(siotest.Fin|siotest.OpText, `451-["message",[{"a":{"_placeholder":true,"num":"0"}}]]`),
			siotest.Frame(siotest.Fin|siotest.OpBinary, "x")},
		"between two places": {siotest.Frame(siotest.Fin|siotest.OpText, `451-["message",{"_placeholder":true,"num":0.5}]`),
			siotest.Frame(siotest.Fin|siotest.OpBinary, "x")},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := r.connect(t)
			c.Put(frames...)
			c.WantClose(1008)
		})
	}
}

func TestEventsAndAcks(t *testing.T) {
	r := serve(t, socket.Options{})
	c, _ := r.connect(t)
	c.Say(`42["message",1,"2",{"3":[true]}]`, `42456["message-with-ack",1,"2",{"3":[false]}]`, `420["message-with-ack"]`, `42["message-with-ack"]`,
		`42["message"]`, `42[5,"a number may be a name"]`, `42["nobody listens"]`, `4312345["nobody waits"]`)
	c.Want(`42["message-back",1,"2",{"3":[true]}]`, `43456[1,"2",{"3":[false]}]`, `430[]`, `42["message-back"]`)
	c.Say(`452-["message",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]`)
	c.Put(siotest.Frame(siotest.Fin|siotest.OpBinary, "\x01\x02\x03"), siotest.Frame(siotest.Fin|siotest.OpBinary, ""))
	c.Want(`452-["message-back",{"_placeholder":true,"num":0},[{"_placeholder":true,"num":1}]]`)
	c.WantBinary("\x01\x02\x03")
	c.WantBinary("")
	c.Say(`451-789["message-with-ack",{"_placeholder":true,"num":0}]`)
	c.Put(siotest.Frame(siotest.Fin|siotest.OpBinary, "data"))
	c.Want(`461-789[{"_placeholder":true,"num":0}]`)
	c.WantBinary("data")

	c.Say(`42["ask","who"]`)
	c.Want(`421["question","who"]`)
	c.Say(`431["me",7]`, `431["me again"]`)
	c.Want(`42["answer","me",7]`)
	c.Say(`42["ask in vain","who"]`)
	c.Want(`422["question","who"]`)
	c.Want(`42["no answer","the client did not answer in time"]`)
	c.Say(`42["ask"]`)
	c.Want(`423["question"]`)
	c.Say(`461-3[{"_placeholder":true,"num":0}]`)
	c.Put(siotest.Frame(siotest.Fin|siotest.OpBinary, "answer"))
	c.Want(`451-["answer",{"_placeholder":true,"num":0}]`)
	c.WantBinary("answer")
}

func TestPollingSpeaksTheSame(t *testing.T) {
	r := serve(t, socket.Options{})
	p := r.Poll()
	p.Send(`40/custom,{"a":1}`)
	if _, got := p.Get(); !strings.HasSuffix(got, "\x1e"+`42/custom,["auth",{"a":1}]`) {
		t.Fatalf("polled %q", got)
	}
	p.Send(`451-/custom,9["message-with-ack",{"_placeholder":true,"num":0}]` + "\x1ebAQID")
	p.Want(`461-/custom,9[{"_placeholder":true,"num":0}]` + "\x1ebAQID")
}

func TestNamespacesAreLeftOneByOne(t *testing.T) {
	r := serve(t, socket.Options{Engine: eio.Options{StrangerTimeout: time.Second}})
	c, _ := r.connect(t)
	c.Say(`40/custom,`)
	c.Text()
	c.Want(`42/custom,["auth",{}]`)
	c.Say(`41/custom,`, `42["message","to the main namespace"]`)
	c.Want(`42["message-back","to the main namespace"]`)
	c.Say(`41`)
	<-r.left
	<-r.left
	c.WantClose(4001) // connected to nothing, it is a stranger again, with a stranger's time
}

func TestTheServerEndsAndCloses(t *testing.T) {
	r := serve(t, socket.Options{})
	c, _ := r.connect(t)
	c.Say(`42["end"]`)
	c.Want("41")
	c.WantClose(4503)
	c, _ = r.connect(t)
	c.Say(`42["close"]`)
	c.WantClose(4010)
}

func TestRooms(t *testing.T) {
	r := serve(t, socket.Options{})
	a, _ := r.connect(t)
	b, _ := r.connect(t)
	other, _ := r.connect(t)
	for _, c := range []*siotest.Socket{a, b} {
		c.Say(`421["join","blue"]`)
		c.Want(`431[["blue"]]`)
	}
	a.Say(`422["shout","blue","hi",2]`)
	a.Want(`432[1]`)
	b.Want(`42["heard","hi",2]`)
	b.Say(`423["leave","blue"]`)
	b.Want(`433[[]]`)
	other.Say(`451-4["shout","blue",{"_placeholder":true,"num":0}]`)
	other.Put(siotest.Frame(siotest.Fin|siotest.OpBinary, "data"))
	other.Want(`434[1]`)
	a.Want(`451-["heard",{"_placeholder":true,"num":0}]`)
	a.WantBinary("data")
	_ = a.Close()
	<-r.left
	other.Say(`425["shout","blue"]`)
	other.Want(`435[0]`)
}

func TestASlowClientIsClosed(t *testing.T) {
	r := serve(t, socket.Options{SendQueue: 100, Engine: eio.Options{CloseTimeout: 50 * time.Millisecond}})
	p := r.Poll()
	p.Send("40")
	p.Get()
	p.Send(`42["message","` + strings.Repeat("x", 500) + `"]`) // one of any size is taken
	p.Ask("POST", "transport=polling&sid="+p.SID, `42["message","`+strings.Repeat("x", 50)+`"]`)
	<-r.left
	if n := r.metrics.Slow.Load(); n != 1 {
		t.Errorf("counted %d slow clients", n)
	}
}

func TestAttachmentsAreBoundedInAll(t *testing.T) {
	r := serve(t, socket.Options{Engine: eio.Options{MaxPayload: 1000}})
	c, _ := r.connect(t)
	c.Say(`452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`)
	c.Put(siotest.Frame(siotest.Fin|siotest.OpBinary, strings.Repeat("x", 600)), siotest.Frame(siotest.Fin|siotest.OpBinary, strings.Repeat("x", 600)))
	c.WantClose(1008)
}

func TestOptionsAndNamesAreChecked(t *testing.T) {
	for i, o := range []socket.Options{{SendQueue: -1}, {RememberFor: -1}, {Engine: eio.Options{MaxPayload: -1}}, {Engine: eio.Options{PingTimeout: -1}}} {
		if _, err := socket.New(nil, o); err == nil {
			t.Errorf("options %d were taken", i)
		}
	}
	if _, err := socket.New(map[string]socket.Handler{"custom": {}}, socket.Options{}); err == nil {
		t.Error("a namespace without a slash was taken")
	}
	if _, err := socket.Values(func() {}); err == nil {
		t.Error("a function was encoded")
	}
	m := values(t, 1, []byte("x"), json.RawMessage(`{"a":2}`), "y")
	if got := fmt.Sprintf("%s %s", m.Args, m.Attachments); got != `[1 {"_placeholder":true,"num":0} {"a":2} "y"] [x]` {
		t.Errorf("encoded %s", got)
	}
}
