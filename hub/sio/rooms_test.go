package sio_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/siotest"
)

func TestWhoMaySendWhatWhere(t *testing.T) {
	r := serve(t, sio.Options{})
	listener := r.connect(`{"token":"viewer"}`)
	for _, room := range []string{"lobby", "blue"} {
		if got := listener.ask(`["join","` + room + `"]`); got != `{"room":"`+room+`","members":1}` {
			t.Fatalf("joined: %s", got)
		}
	}
	users := map[string]*user{}
	for _, token := range []string{"viewer", "operator", "admin"} {
		users[token] = r.connect(`{"token":"` + token + `"}`)
	}
	for _, c := range []struct {
		args    string
		viewer  bool
		heardAs string
	}{
		{`["message","hi"]`, true, `42["message","hi",`},
		{`["emit","lobby","message","hi",{"a":1}]`, true, `42["message","hi",{"a":1},`},
		{`["emit","lobby","whiteboard",[1,2]]`, false, `42["whiteboard",[1,2],`},
		{`["emit","blue","message"]`, false, `42["message",`},
		{`["emit","blue","draw",1]`, false, `42["draw",1,`},
	} {
		for token, u := range users {
			got := u.ask(c.args)
			if token == "viewer" && !c.viewer {
				if !strings.HasPrefix(got, `{"error":"a viewer may send`) {
					t.Errorf("%s by a viewer was answered %s", c.args, got)
				}
				continue
			}
			if got != `{"sent":1}` {
				t.Errorf("%s by %s was answered %s", c.args, token, got)
			}
			heard := listener.Text()
			for strings.HasPrefix(heard, `42["people"`) {
				heard = listener.Text()
			}
			if !strings.HasPrefix(heard, c.heardAs+`{"from":"`+u.id+`","name":"token:`+token+`","room":"`) {
				t.Errorf("%s by %s was heard as %s", c.args, token, heard)
			}
		}
	}
}

func TestNobodyCanSpeakForTheHub(t *testing.T) {
	r := serve(t, sio.Options{})
	listener, admin := r.connect(`{"token":"viewer"}`), r.connect(`{"token":"admin"}`)
	listener.ask(`["join","blue"]`)
	for _, name := range []string{
		"welcome", "snapshot", "reading", "device", "people", "command", "connect", "connect_error", "connected", "connection",
		"disconnect", "disconnecting", "newListener", "removeListener",
	} {
		if got := admin.ask(`["emit","blue","` + name + `",1]`); !strings.Contains(got, "clients cannot send it") {
			t.Errorf("%s was relayed: %s", name, got)
		}
		switch name {
		case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
			continue // these end the connection
		}
		want := "clients cannot send it"
		if name == "command" {
			want = "not available yet"
		}
		if got := admin.ask(`["` + name + `",1]`); !strings.Contains(got, `{"error":`) || !strings.Contains(got, want) {
			t.Errorf("%s was answered %s", name, got)
		}
	}
	if got := admin.ask(`["nonsense"]`); !strings.Contains(got, "unknown event") {
		t.Errorf("answered %s", got)
	}
	admin.Say(`42["reading",1]`, `42["nonsense"]`) // nobody waits for an answer
	if got := admin.ask(`["emit","blue","news"]`); got != `{"sent":1}` {
		t.Errorf("answered %s", got)
	}
	listener.event("news") // and nothing before it
}

func TestRoomsAreBounded(t *testing.T) {
	r := serve(t, sio.Options{})
	u := r.connect(`{"token":"admin"}`)
	for _, room := range []string{`""`, `7`, `null`, `"` + strings.Repeat("x", 65) + `"`, `"a\u0000"`} {
		for _, ask := range []string{`["join",` + room + `]`, `["leave",` + room + `]`, `["emit",` + room + `,"x"]`} {
			if got := u.ask(ask); !strings.Contains(got, "name a room") {
				t.Errorf("%s was answered %s", ask, got)
			}
		}
	}
	for _, ask := range []string{`["join"]`, `["emit"]`, `["emit","blue"]`, `["emit","blue",""]`, `["emit","blue",7]`} {
		if got := u.ask(ask); !strings.Contains(got, `{"error":"name a`) {
			t.Errorf("%s was answered %s", ask, got)
		}
	}
	for i := range 16 {
		u.ask(fmt.Sprintf(`["join","room %d"]`, i))
	}
	if got := u.ask(`["join","one more"]`); !strings.Contains(got, "leave one first") {
		t.Errorf("answered %s", got)
	}
	if got := u.ask(`["join","room 3"]`); got != `{"room":"room 3","members":1}` {
		t.Errorf("answered %s", got)
	}
	u.ask(`["leave","room 3"]`)
	u.ask(`["join","one more"]`)
	for range 500 { // more than come back meanwhile on a slow machine
		u.Say(`42["message","flood"]`)
	}
	if got := u.ask(`["message"]`); !strings.Contains(got, "too many messages") {
		t.Errorf("a flood was answered %s", got)
	}
}

func TestWhatIsRelayedIsBoundedInBytes(t *testing.T) {
	r := serve(t, sio.Options{})
	u := r.connect(`{"token":"admin"}`)
	long := strings.Repeat("x", 900_000)
	began, sent := time.Now(), 0
	for !strings.Contains(u.ask(`["message","`+long+`"]`), "too many messages") {
		sent += len(long)
		if allowed := 4<<20 + int(time.Since(began).Seconds()*(1<<20)); sent > allowed+len(long) {
			t.Fatalf("%d bytes were relayed where %d may be", sent, allowed)
		}
	}
}

func TestBinaryIsRelayed(t *testing.T) {
	t.Parallel()
	r := serve(t, sio.Options{})
	a, b := r.connect(`{"token":"viewer"}`), r.connect(`{"token":"viewer"}`)
	a.ask(`["join","lobby"]`)
	a.event("people")
	b.Say(`451-["message",{"_placeholder":true,"num":0}]`)
	b.Put(siotest.Frame(siotest.Fin|siotest.OpBinary, "\x00\xff"))
	if got := a.Text(); !strings.HasPrefix(got, `451-["message",{"_placeholder":true,"num":0},{"from":"`+b.id+`"`) {
		t.Errorf("got %s", got)
	}
	a.WantBinary("\x00\xff")
}

func TestPeopleInTheLobbyKnowWhoIsThere(t *testing.T) {
	t.Parallel()
	r := serve(t, sio.Options{})
	a := r.connect(`{"token":"viewer"}`)
	outside := r.connect(`{"token":"operator"}`)
	a.ask(`["join","lobby"]`)
	list := a.event("people")[0].(map[string]any)
	if list["count"] != 1.0 || list["connected"] != 2.0 || len(list["people"].([]any)) != 1 {
		t.Errorf("listed %v", list)
	}
	b := r.connect(`{"token":"admin"}`)
	b.ask(`["join","lobby"]`)
	who := func(u *user) string {
		names := ""
		for _, p := range u.event("people")[0].(map[string]any)["people"].([]any) {
			p := p.(map[string]any)
			names += fmt.Sprintf("%v %v %v;", p["name"], p["role"], p["transport"])
		}
		return names
	}
	const both = "token:admin admin websocket;token:viewer viewer websocket;"
	siotest.Until(t, "both to be listed", func() bool { return who(a) == both })
	siotest.Until(t, "both to be listed", func() bool { return who(b) == both })
	_ = b.Close()
	siotest.Until(t, "one to be left", func() bool { return who(a) == "token:viewer viewer websocket;" })
	outside.ask(`["join","blue"]`) // and it was told of nobody before
}
