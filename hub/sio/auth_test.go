package sio_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/siotest"
)

func TestWhoMayConnect(t *testing.T) {
	r := serve(t, sio.Options{})
	for _, c := range []struct{ auth, header, name, role string }{
		{`{"token":"viewer"}`, "", "token:viewer", "viewer"},
		{``, "Authorization: Bearer operator", "token:operator", "operator"},
		{`{"token":"viewer"}`, "Authorization: Bearer operator", "token:viewer", "viewer"},
		{`{}`, "Cookie: session=ann", "ann", "admin"},
		{`{"token":"scoped"}`, "", "token:scoped", "viewer"},
	} {
		u := r.connect(c.auth, c.header, "Origin: http://hub")
		if u.welcome["name"] != c.name || u.welcome["role"] != c.role || u.welcome["id"] != u.id || u.welcome["version"] != "1.2.3" ||
			u.welcome["resumed"] != false || u.welcome["started"].(float64) < 1e12 {
			t.Errorf("%s was welcomed with %v", c.name, u.welcome)
		}
	}
	for _, c := range []struct{ auth, want string }{
		{``, `44{"message":"unauthorized","data":{"detail":"Say who you are`},
		{`{"token":""}`, `44{"message":"unauthorized"`},
		{`{"token":"nonsense"}`, `44{"message":"unauthorized","data":{"detail":"The token is not in force`},
		{`{"token":"old"}`, `44{"message":"unauthorized"`},
		{`{"token":"device"}`, `44{"message":"forbidden"`},
		{`{"token":"enrol"}`, `44{"message":"forbidden"`},
		{`{"token":"denied"}`, `44{"message":"forbidden"`},
		{`{"token":"broken"}`, `44{"message":"internal error"}`},
		{`{"token":7}`, `44{"message":"bad request"`},
		{`{"token":"viewer","subscribe":{"mode":"some"}}`, `44{"message":"bad request","data":{"detail":"unknown mode`},
		{`{"token":"viewer","subscribe":{"devices":[""]}}`, `44{"message":"bad request","data":{"detail":"bad pattern`},
	} {
		if got := r.refused(c.auth); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s was answered %s, want %s", c.auth, got, c.want)
		}
	}
	c, _ := r.Open()
	c.Say(`40{"token":"busy"}`)
	c.WantClose(4002)
	if status, _ := r.Ask(http.MethodGet, "transport=polling", "", "Authorization: Bearer nonsense"); status != http.StatusUnauthorized {
		t.Errorf("a bad token in the header was answered %d", status)
	}
}

// Pages of others can make a browser connect with the cookie of whoever looks at them.
func TestAForeignPageGetsNothingForACookie(t *testing.T) {
	r := serve(t, sio.Options{})
	for _, origin := range []string{"Origin: http://evil.example", "Origin: null", "X-None: 1"} {
		if _, resp := r.Knock(siotest.Request("", "Cookie: session=ann", origin)); resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: a WebSocket was answered %d", origin, resp.StatusCode)
		}
		status, open := r.Ask(http.MethodGet, "transport=polling", "", "Cookie: session=ann")
		if status != http.StatusOK {
			t.Fatalf("a page of ours cannot poll: %d %s", status, open)
		}
		sid := siotest.ReadOpen(t, open).SID
		if status, _ := r.Ask(http.MethodPost, "transport=polling&sid="+sid, "40", "Cookie: session=ann", origin); status != http.StatusForbidden {
			t.Errorf("%s: a POST was answered %d", origin, status)
		}
	}
	r.connect(`{"token":"viewer"}`, "Origin: http://evil.example")
}

func TestTheEndOfAnIdentityEndsItsSockets(t *testing.T) {
	for _, why := range []access.Reason{access.Revoked, access.Expired} {
		r := serve(t, sio.Options{})
		u := r.connect(`{"token":"viewer"}`)
		other := r.connect(`{"token":"operator"}`)
		p := r.Poll()
		p.Send(`40{"token":"viewer"}`)
		siotest.Until(t, "the welcome", func() bool { _, got := p.Get(); return strings.Contains(got, "welcome") })
		if n := r.auth.tell("viewer", why); n != 2 {
			t.Errorf("%d sockets were watched", n)
		}
		u.Want("41")
		u.WantClose(4503)
		p.Want("41")
		p.Want("1")
		<-u.view.ended
		other.ask(`["join","lobby"]`)
		r.auth.tell("viewer", why) // nobody is watched any more: End would be called twice
	}
	r := serve(t, sio.Options{})
	u := r.connect(`{}`, "Cookie: session=ann", "Origin: http://hub")
	r.auth.tell("s1", access.Changed)
	if b0, got, err := u.Read(); err != nil || b0 != siotest.Fin|siotest.OpClose || got[:2] != "\x0f\xaa" {
		t.Errorf("got %#x %q, %v, want only a close frame with 4010: a packet would keep the client from coming back", b0, got, err)
	}
	<-u.view.ended
	r.auth.gone = access.Revoked
	c, _ := r.Open()
	c.Say(`40{"token":"viewer"}`)
	c.WantClose(4503)
}

func TestTheHubSendsViewersAway(t *testing.T) {
	r := serve(t, sio.Options{})
	u := r.connect(`{"token":"viewer"}`)
	u.view.peer.Close(4001, "slow")
	u.WantClose(4001)
	<-u.view.ended
	r.feed.err = func(hub.Subscription) error { return hub.ErrTooMany }
	c, _ := r.Open()
	c.Say(`40{"token":"viewer"}`)
	c.WantClose(4002)
}

func TestNoSecretGetsIntoTheLog(t *testing.T) {
	r := serve(t, sio.Options{})
	const canary = "canary-3d7c"
	r.auth.ids[canary] = access.Identity{Kind: access.KindAPI, Role: access.Admin, Credential: "public"}
	u := r.connect(`{"token":"` + canary + `"}`)
	u.ask(`["emit","room","event","` + canary + `"]`)
	r.refused(`{"token":"` + canary + `x"}`)
	r.refused(`{"token":"broken","x":"` + canary + `"}`)
	r.Ask(http.MethodGet, "transport=polling&sid="+canary, "")
	_ = u.Close()
	<-u.view.ended
	siotest.Until(t, "the log", func() bool { return strings.Contains(r.logs.String(), "client disconnected") })
	log := r.logs.String()
	if strings.Contains(log, canary) || strings.Contains(log, u.pid) {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

func TestShutdownTellsClientsToComeBack(t *testing.T) {
	r := serve(t, sio.Options{})
	u := r.connect(`{"token":"viewer"}`)
	ended := make(chan error, 1)
	go func() { ended <- r.server.Shutdown(t.Context()) }()
	u.WantClose(4002)
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(siotest.Patience):
		t.Fatal("it does not end")
	}
	<-u.view.ended
}
