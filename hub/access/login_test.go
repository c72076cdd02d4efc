package access_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/storage"
)

func TestSessionSurvivesARestartAndEndsWithLogout(t *testing.T) {
	r, catalog, c := fresh(t)
	person(t, r, "alice", access.Operator)
	s := must[access.NewSession](t)(login(t, r, "Alice", goodPassword, "192.0.2.1"))
	catalog = catalog.Reopen()
	r = open(t, catalog, access.Options{Now: c.Now})
	id := must[access.Identity](t)(r.Session(s.Cookie))
	if id.Kind != access.KindPerson || id.User != "alice" || id.Role != access.Operator || id.Credential != s.Credential {
		t.Errorf("session of %+v", id)
	}
	if err := r.Logout(t.Context(), s.Cookie); err != nil {
		t.Fatal(err)
	}
	_, err := r.Session(s.Cookie)
	wantErr(t, "after logout", err, access.ErrNoSession)
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	_, err = r.Session(s.Cookie)
	wantErr(t, "after logout and a restart", err, access.ErrNoSession)
	if err := r.Logout(t.Context(), secret("nonsense")); err != nil {
		t.Errorf("logout of nobody: %v", err)
	}
}

func TestLoginRotatesTheSession(t *testing.T) {
	r, _, _ := fresh(t)
	person(t, r, "alice", access.Viewer)
	first := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	second := must[access.NewSession](t)(r.Login(t.Context(), access.LoginRequest{Name: "alice",
		Password: secret(goodPassword), Source: source("192.0.2.1"), Previous: first.Cookie}))
	if first.Cookie.Reveal() == second.Cookie.Reveal() || first.Credential == second.Credential {
		t.Error("the session was not rotated")
	}
	_, err := r.Session(first.Cookie)
	wantErr(t, "the session before", err, access.ErrNoSession)
	must[access.Identity](t)(r.Session(second.Cookie))
}

func TestSessionSlidesButNotForEver(t *testing.T) {
	r, catalog, c := fresh(t)
	person(t, r, "alice", access.Viewer)
	used := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	idle := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	for day := range 364 {
		c.move(24 * time.Hour)
		if _, err := r.Session(used.Cookie); err != nil {
			t.Fatalf("day %d: %v", day+1, err)
		}
		if day == 28 {
			list := must[[]access.SessionInfo](t)(r.Sessions(used.Identity, "alice"))
			if len(list) != 3 {
				t.Errorf("on day 29 there are %d sessions", len(list))
			}
		}
	}
	_, err := r.Session(idle.Cookie)
	wantErr(t, "an idle session", err, access.ErrNoSession)
	c.move(24 * time.Hour)
	_, err = r.Session(used.Cookie)
	wantErr(t, "a session of a year", err, access.ErrNoSession)
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	_, err = r.Session(used.Cookie)
	wantErr(t, "a session of a year, after a restart", err, access.ErrNoSession)
}

func TestPasswordChangeEndsOtherSessions(t *testing.T) {
	r, catalog, c := fresh(t)
	ctx := t.Context()
	person(t, r, "alice", access.Viewer)
	bob := person(t, r, "bob", access.Viewer)
	other := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	own := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.2"))
	change := access.PasswordChange{Old: secret("wrong password"), New: secret("a new good password"), Source: source("192.0.2.2")}
	_, err := r.ChangePassword(ctx, own.Identity, change)
	wantErr(t, "a wrong old password", err, access.ErrCredentials)
	change.Old = secret(goodPassword)
	_, err = r.ChangePassword(ctx, access.Local(), change)
	wantErr(t, "the control socket has no password", err, access.ErrDenied)
	change.New = secret("short")
	_, err = r.ChangePassword(ctx, own.Identity, change)
	wantErr(t, "a bad new password", err, access.ErrPassword)
	change.New = secret("a new good password")
	link := must[access.Link](t)(r.UserLink(ctx, access.Local(), "alice", access.SetPassword))
	now := must[access.NewSession](t)(r.ChangePassword(ctx, own.Identity, change))

	for _, r := range []*access.Registry{r, open(t, catalog.Reopen(), access.Options{Now: c.Now})} {
		for _, s := range []access.NewSession{other, own} {
			_, err := r.Session(s.Cookie)
			wantErr(t, "a session from before", err, access.ErrNoSession)
		}
		_, err := r.PeekLink(link.Secret)
		wantErr(t, "a link from before", err, access.ErrLink)
		must[access.Identity](t)(r.Session(now.Cookie))
		must[access.Identity](t)(r.Session(bob.Cookie))
		_, err = login(t, r, "alice", goodPassword, "192.0.2.9")
		wantErr(t, "the old password", err, access.ErrCredentials)
	}
}

func TestOfTwoPasswordChangesOneWins(t *testing.T) {
	for range 20 {
		r, _, _ := fresh(t)
		alice := person(t, r, "alice", access.Viewer)
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 2 {
			wg.Go(func() {
				_, err := r.ChangePassword(t.Context(), alice.Identity, access.PasswordChange{Old: secret(goodPassword),
					New: secret(fmt.Sprint("password number ", i))})
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, access.ErrCredentials) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d changes of one password won", won.Load())
		}
	}
}

func TestSessionsCanBeListedAndEnded(t *testing.T) {
	r, _, c := fresh(t)
	ctx := t.Context()
	person(t, r, "alice", access.Viewer)
	bob := person(t, r, "bob", access.Viewer)
	c.move(time.Minute)
	s := must[access.NewSession](t)(r.Login(ctx, access.LoginRequest{Name: "alice", Password: secret(goodPassword),
		Source: source("::ffff:192.0.2.7"), Agent: strings.Repeat("x", 300) + "\xff"}))
	list := must[[]access.SessionInfo](t)(r.Sessions(s.Identity, "alice"))
	if len(list) != 2 || list[0].ID != s.Credential || list[0].Source != "192.0.2.7" || len(list[0].Agent) != 256 {
		t.Errorf("sessions: %+v", list)
	}
	_, err := r.Sessions(bob.Identity, "alice")
	wantErr(t, "sessions of somebody else", err, access.ErrDenied)
	wantErr(t, "end the session of somebody else", r.EndSession(ctx, bob.Identity, "alice", s.Credential), access.ErrDenied)
	wantErr(t, "by a wrong name", r.EndSession(ctx, bob.Identity, "bob", s.Credential), storage.ErrNotFound)
	if err := r.EndSession(ctx, s.Identity, "alice", s.Credential); err != nil {
		t.Fatal(err)
	}
	_, err = r.Session(s.Cookie)
	wantErr(t, "ended", err, access.ErrNoSession)
}

func TestSessionsOfOnePersonAreBounded(t *testing.T) {
	r, _, c := fresh(t)
	person(t, r, "alice", access.Viewer)
	var all []access.NewSession
	for range 40 {
		c.move(time.Second)
		all = append(all, must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1")))
	}
	for i, s := range all {
		if _, err := r.Session(s.Cookie); (err == nil) != (i >= 8) {
			t.Errorf("session %d of 40: %v", i, err)
		}
	}
}

func TestAFullDiskDoesNotLockTheAdministratorOut(t *testing.T) {
	full := newFaults()
	r, catalog, c := fresh(t)
	person(t, r, "alice", access.Admin)
	r = open(t, full.Catalog(catalog), access.Options{Now: c.Now})
	full.Break(storage.ErrFull)
	s := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	must[access.Identity](t)(r.Session(s.Cookie))
}

func TestGuessesAreThrottledAlikeForKnownAndUnknownNames(t *testing.T) {
	r, _, c := fresh(t)
	person(t, r, "alice", access.Viewer)
	answers := func(name string) (list []string) {
		for i := range 14 { // from many sources, so that only the account counts
			_, err := login(t, r, name, "a wrong password", fmt.Sprintf("198.51.100.%d", i))
			list = append(list, err.Error())
		}
		return list
	}
	alice, nobody := answers("alice"), answers("nobody")
	if strings.Join(alice, "\n") != strings.Join(nobody, "\n") {
		t.Errorf("answers differ:\n%q\n%q", alice, nobody)
	}
	for i, answer := range alice {
		if throttled := strings.Contains(answer, "too many"); throttled != (i >= 10) {
			t.Errorf("guess %d: %s", i+1, answer)
		}
	}
	_, err := login(t, r, "alice", goodPassword, "203.0.113.9")
	var wait *access.ThrottledError
	if !errors.As(err, &wait) || wait.After <= 0 || wait.After > 30*time.Second {
		t.Fatalf("the right password from a stranger: %v", err)
	}
	c.move(wait.After)
	must[access.NewSession](t)(login(t, r, "alice", goodPassword, "203.0.113.9"))
}

func TestOneSourceIsThrottledOverAllNames(t *testing.T) {
	r, _, c := fresh(t)
	throttled := 0
	for i := range 40 { // one customer's IPv6 network is one source
		_, err := login(t, r, fmt.Sprintf("user%d", i), "a wrong password", fmt.Sprintf("2001:db8::%x", i))
		if errors.Is(err, access.ErrThrottled) {
			throttled++
		}
	}
	if throttled != 20 {
		t.Errorf("%d of 40 guesses were throttled, want 20", throttled)
	}
	if _, err := login(t, r, "user", "a wrong password", "2001:db8:0:1::1"); !errors.Is(err, access.ErrCredentials) {
		t.Errorf("another network: %v", err)
	}
	c.move(10 * time.Second)
	_, err := login(t, r, "user99", "a wrong password", "2001:db8::1")
	wantErr(t, "after 10 s", err, access.ErrCredentials)
	_, err = login(t, r, "user99", "a wrong password", "2001:db8::1")
	wantErr(t, "after 10 s, again", err, access.ErrThrottled)
}

// Strangers guess without a pause, from everywhere, at the name of the administrator.
func TestAnAttackDoesNotLockThePersonOut(t *testing.T) {
	r, _, c := fresh(t)
	admin := person(t, r, "admin", access.Admin)
	must[access.NewSession](t)(login(t, r, "admin", goodPassword, "192.0.2.1")) // has been here before
	for i := range 2000 {
		c.move(5 * time.Second)
		if _, err := login(t, r, "admin", "a wrong password", fmt.Sprintf("2001:db8:%x::1", i)); err == nil {
			t.Fatal("a wrong password")
		}
		if i%100 == 99 {
			if _, err := login(t, r, "admin", goodPassword, "192.0.2.1"); err != nil {
				t.Fatalf("the administrator, after %d guesses: %v", i+1, err)
			}
		}
	}
	link := must[access.Link](t)(r.UserLink(t.Context(), access.Local(), "admin", access.SetPassword))
	must[access.NewSession](t)(claim(t, r, link, "a new good password")) // also from a new address
	_, err := r.Session(admin.Cookie)
	wantErr(t, "a session from before", err, access.ErrNoSession)
	if _, err := login(t, r, "admin", "a new good password", "192.0.2.1"); err != nil {
		t.Errorf("after the attack: %v", err)
	}
}

func TestAKnownSourceIsThrottledToo(t *testing.T) {
	r, _, c := fresh(t)
	person(t, r, "alice", access.Viewer)
	must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	for range 10 {
		_, err := login(t, r, "alice", "a wrong password", "192.0.2.1")
		wantErr(t, "a guess", err, access.ErrCredentials)
	}
	_, err := login(t, r, "alice", goodPassword, "192.0.2.1")
	wantErr(t, "the right password after ten guesses", err, access.ErrThrottled)
	c.move(30 * time.Second)
	must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	c.move(31 * 24 * time.Hour) // nobody knows it any more: strangers count again
	for i := range 10 {
		_, err := login(t, r, "alice", "a wrong password", fmt.Sprintf("198.51.100.%d", i))
		wantErr(t, "a guess of a stranger", err, access.ErrCredentials)
	}
	_, err = login(t, r, "alice", goodPassword, "192.0.2.1")
	wantErr(t, "a source from which nobody logged in for a month", err, access.ErrThrottled)
}

func TestRightPasswordsAreNotThrottled(t *testing.T) {
	r, _, _ := fresh(t)
	person(t, r, "alice", access.Viewer)
	for i := range 100 {
		if _, err := login(t, r, "alice", goodPassword, "192.0.2.1"); err != nil {
			t.Fatalf("login %d: %v", i+1, err)
		}
	}
}

func TestOverlongPasswordIsNotHashed(t *testing.T) {
	r, _, _ := fresh(t)
	person(t, r, "alice", access.Viewer)
	for _, name := range []string{"alice", "nobody", "not a name"} {
		_, err := login(t, r, name, strings.Repeat("x", 1<<20), "192.0.2.1")
		wantErr(t, "1 MiB for "+name, err, access.ErrCredentials)
	}
}

func TestPasswordIsHashedAgainAtANewCost(t *testing.T) {
	r, catalog, c := fresh(t)
	person(t, r, "alice", access.Viewer)
	before := must[[]byte](t)(value(t, catalog, "access/user/alice"))
	r = open(t, catalog, access.Options{Now: c.Now, Hash: access.HashCost{KiB: 16, Passes: 2}})
	s := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	after := must[[]byte](t)(value(t, catalog, "access/user/alice"))
	if !strings.Contains(string(before), "m=8,t=1,p=1") || !strings.Contains(string(after), "m=16,t=2,p=1") {
		t.Errorf("before: %s\nafter: %s", before, after)
	}
	must[access.Identity](t)(r.Session(s.Cookie))
	must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
}
