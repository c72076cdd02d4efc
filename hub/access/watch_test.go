package access_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device"
	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

// told collects what a watcher is told.
type told struct {
	mu      sync.Mutex
	reasons []access.Reason
}

func (l *told) ended(why access.Reason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reasons = append(l.reasons, why)
}

func (l *told) want(t *testing.T, deed string, want ...access.Reason) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.reasons) != len(want) || len(want) > 0 && l.reasons[0] != want[0] {
		t.Errorf("%s: told %v, want %v", deed, l.reasons, want)
	}
}

func TestWatchersAreToldBeforeTheChangeReturns(t *testing.T) {
	r, _, _ := fresh(t)
	ctx, local := t.Context(), access.Local()
	watch := func(id access.Identity) *told {
		l := &told{}
		t.Cleanup(r.Watch(id, l.ended))
		return l
	}
	authenticate := func(tok access.NewToken) access.Identity {
		return must[access.Identity](t)(r.Authenticate(tok.Secret.Reveal()))
	}
	tokens := must[[]access.NewToken](t)(r.CreateDeviceTokens(ctx, local, []device.ID{"a", "b"}, access.TokenSpec{}))
	a, again, b := watch(authenticate(tokens[0])), watch(authenticate(tokens[0])), watch(authenticate(tokens[1]))
	if err := r.RevokeToken(ctx, local, tokens[0].ID); err != nil {
		t.Fatal(err)
	}
	a.want(t, "token revoked", access.Revoked)
	again.want(t, "token revoked, second watcher", access.Revoked)
	b.want(t, "another token revoked")
	must[int](t)(r.RevokeDevice(ctx, local, "b"))
	b.want(t, "device revoked", access.Revoked)

	person(t, r, "root", access.Admin)
	alice, bob := person(t, r, "alice", access.Viewer), person(t, r, "bob", access.Viewer)
	second := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	one, two, other := watch(alice.Identity), watch(second.Identity), watch(bob.Identity)
	if err := r.EndSession(ctx, local, "alice", alice.Credential); err != nil {
		t.Fatal(err)
	}
	one.want(t, "session ended", access.Revoked)
	two.want(t, "another session ended")
	if err := r.SetRole(ctx, local, "alice", access.Viewer); err != nil {
		t.Fatal(err)
	}
	two.want(t, "the same role again")
	if err := r.SetRole(ctx, local, "alice", access.Admin); err != nil {
		t.Fatal(err)
	}
	two.want(t, "another role", access.Changed)
	session := must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
	three := watch(session.Identity)
	own := must[access.NewSession](t)(r.ChangePassword(ctx, session.Identity,
		access.PasswordChange{Old: secret(goodPassword), New: secret("a new good password")}))
	three.want(t, "password changed", access.Revoked)
	four := watch(own.Identity)
	if err := r.DeleteUser(ctx, local, "alice"); err != nil {
		t.Fatal(err)
	}
	four.want(t, "user deleted", access.Revoked)
	other.want(t, "changes of somebody else")
	if err := r.Logout(ctx, bob.Cookie); err != nil {
		t.Fatal(err)
	}
	other.want(t, "logout", access.Revoked)
	watch(local).want(t, "the control socket")
}

func TestWatchTellsWhatHappenedSinceAuthentication(t *testing.T) {
	r, _, c := fresh(t)
	ctx, local := t.Context(), access.Local()
	tok := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Viewer}))
	short := must[access.NewToken](t)(r.CreateToken(ctx, local,
		access.TokenSpec{Role: access.Viewer, Expires: c.Now().Add(time.Second)}))
	alice := person(t, r, "alice", access.Operator)
	ids := map[access.Reason]access.Identity{
		access.Revoked: must[access.Identity](t)(r.Authenticate(tok.Secret.Reveal())),
		access.Expired: must[access.Identity](t)(r.Authenticate(short.Secret.Reveal())),
		access.Changed: alice.Identity,
	}
	if err := r.RevokeToken(ctx, local, tok.ID); err != nil {
		t.Fatal(err)
	}
	if err := r.SetRole(ctx, local, "alice", access.Viewer); err != nil {
		t.Fatal(err)
	}
	c.move(time.Second)
	for want, id := range ids {
		l := &told{}
		r.Watch(id, l.ended)()
		l.want(t, "too late", want)
	}
	l := &told{}
	r.Watch(access.Identity{}, l.ended)
	l.want(t, "nobody", access.Revoked)
}

func TestStoppedWatchersAreNotTold(t *testing.T) {
	r, _, _ := fresh(t)
	tok := must[access.NewToken](t)(r.CreateToken(t.Context(), access.Local(), access.TokenSpec{Role: access.Viewer}))
	id := must[access.Identity](t)(r.Authenticate(tok.Secret.Reveal()))
	// All orders in which three watchers of one credential can stop, each with one that stays.
	for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}} {
		var stops []func()
		var lists []*told
		for range 3 {
			l := &told{}
			lists, stops = append(lists, l), append(stops, r.Watch(id, l.ended))
		}
		stops[order[0]]()
		stops[order[1]]()
		stops[order[1]]() // twice is once
		next := must[access.NewToken](t)(r.CreateToken(t.Context(), access.Local(), access.TokenSpec{Role: access.Viewer}))
		if err := r.RevokeToken(t.Context(), access.Local(), id.Credential); err != nil {
			t.Fatal(err)
		}
		lists[order[0]].want(t, "stopped first")
		lists[order[1]].want(t, "stopped second")
		lists[order[2]].want(t, "not stopped", access.Revoked)
		stops[order[2]]() // after it was told
		id = must[access.Identity](t)(r.Authenticate(next.Secret.Reveal()))
	}
}

// However authentication, watching and revocation interleave, a watcher learns of the revocation.
func TestNoRevocationIsMissed(t *testing.T) {
	r, _, _ := fresh(t)
	ctx, local := t.Context(), access.Local()
	for range 200 {
		tok := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Viewer}))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				id, err := r.Authenticate(tok.Secret.Reveal())
				if err != nil {
					return
				}
				ended := make(chan access.Reason, 1)
				defer r.Watch(id, func(why access.Reason) { ended <- why })()
				select {
				case <-ended:
				case <-time.After(10 * time.Second):
					t.Error("not told")
				}
			})
		}
		wg.Go(func() {
			if err := r.RevokeToken(ctx, local, tok.ID); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	}
}

// running opens a registry in a synctest bubble, on its clock, and runs it until the test ends.
func running(t *testing.T, catalog *mem.Catalog) (r *access.Registry, stop func()) {
	t.Helper()
	r = open(t, catalog, access.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	return r, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestWatchersAreToldWhenATokenExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := running(t, mem.NewCatalog())
		defer stop()
		for _, life := range []time.Duration{3 * time.Second, 30 * time.Second, 3 * time.Hour} {
			tok := must[access.NewToken](t)(r.CreateToken(t.Context(), access.Local(),
				access.TokenSpec{Role: access.Viewer, Expires: time.Now().Add(life)}))
			id := must[access.Identity](t)(r.Authenticate(tok.Secret.Reveal()))
			<-time.After(2 * time.Second) // virtual: Run has dealt with the first use
			ended := make(chan access.Reason, 1)
			r.Watch(id, func(why access.Reason) { ended <- why })
			if why := <-ended; why != access.Expired {
				t.Errorf("told %s", why)
			}
			if late := time.Since(tok.Expires); late < 0 || late > 5*time.Second {
				t.Errorf("token of %v: told %v late", life, late)
			}
		}
	})
}

func TestAWatchedSessionIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stop := running(t, mem.NewCatalog())
		defer stop()
		wall := person(t, r, "wall", access.Viewer)
		idle := must[access.NewSession](t)(login(t, r, "wall", goodPassword, "192.0.2.1"))
		ended := make(chan access.Reason, 1)
		begin := time.Now()
		r.Watch(wall.Identity, func(why access.Reason) { ended <- why })
		if why := <-ended; why != access.Expired {
			t.Errorf("told %s", why)
		}
		if days := time.Since(begin) / (24 * time.Hour); days != 365 {
			t.Errorf("the session of a wall screen lived %d days", days)
		}
		_, err := r.Session(idle.Cookie)
		wantErr(t, "an idle session", err, access.ErrNoSession)
	})
}

func TestLastUseSurvivesACrashAndAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		catalog := mem.NewCatalog()
		r, stop := running(t, catalog)
		ctx, local := t.Context(), access.Local()
		devices := make([]device.ID, 200)
		for i := range devices {
			devices[i] = device.ID("pi-" + strconv.Itoa(i))
		}
		tokens := must[[]access.NewToken](t)(r.CreateDeviceTokens(ctx, local, devices, access.TokenSpec{}))
		alice := person(t, r, "alice", access.Viewer)
		first := time.Now()
		for _, tok := range tokens[1:] {
			must[access.Identity](t)(r.Authenticate(tok.Secret.Reveal()))
		}
		<-time.After(2 * time.Second) // virtual
		synctest.Wait()
		crashed := open(t, snapshot(t, catalog), access.Options{})
		for i, tok := range must[[]access.TokenInfo](t)(crashed.Tokens(local, access.KindDevice)) {
			switch {
			case tok.Device == "pi-0" && !tok.LastUsed.IsZero():
				t.Errorf("a token that nobody used was used at %v", tok.LastUsed)
			case tok.Device != "pi-0" && !tok.LastUsed.Equal(first.Truncate(time.Millisecond)):
				t.Fatalf("after a crash, token %d: last used %v, want %v", i, tok.LastUsed, first)
			}
		}
		<-time.After(30 * time.Minute) // virtual
		must[access.Identity](t)(r.Authenticate(tokens[5].Secret.Reveal()))
		must[access.Identity](t)(r.Session(alice.Cookie))
		last := time.Now()
		stop()
		r = open(t, snapshot(t, catalog), access.Options{})
		for _, tok := range must[[]access.TokenInfo](t)(r.Tokens(local)) {
			if tok.ID == tokens[5].ID && !tok.LastUsed.Equal(last.Truncate(time.Millisecond)) {
				t.Errorf("after a stop: last used %v, want %v", tok.LastUsed, last)
			}
		}
		if s := must[[]access.SessionInfo](t)(r.Sessions(local, "alice")); !s[0].LastSeen.Equal(last.Truncate(time.Millisecond)) {
			t.Errorf("after a stop: session last seen %v, want %v", s[0].LastSeen, last)
		}
	})
}

func TestWhatIsOverLeavesTheCatalog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		catalog := mem.NewCatalog()
		r, stop := running(t, catalog)
		defer stop()
		ctx, local := t.Context(), access.Local()
		person(t, r, "alice", access.Viewer)
		must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
		old := must[access.NewToken](t)(r.CreateEnrolment(ctx, local, access.TokenSpec{}))
		stays := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Viewer}))
		<-time.After(29 * 24 * time.Hour) // virtual
		synctest.Wait()
		if n := count(t, catalog, "access/token/") + count(t, catalog, "access/session/"); n != 4 {
			t.Errorf("after 29 days there are %d records", n)
		}
		<-time.After(3 * 24 * time.Hour) // virtual
		synctest.Wait()
		if n := count(t, catalog, "access/session/"); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
		wantErr(t, "an old enrolment token", r.RevokeToken(ctx, local, old.ID), storage.ErrNotFound)
		must[access.Identity](t)(r.Authenticate(stays.Secret.Reveal()))
	})
}
