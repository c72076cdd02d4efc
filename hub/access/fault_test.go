package access_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"telemetryhub/device"
	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/storagetest"
)

// Every write of a change fails in turn, in every way, and the hub dies there: what the next start finds must be a state
// that is safe, and what the caller was told must be true.
func TestFailedWritesLeaveASafeState(t *testing.T) {
	for n := 1; ; n++ {
		fired := false
		for _, plan := range []storagetest.Plan{
			{At: n, Err: storage.ErrFull}, {At: n, Err: storage.ErrUnknown}, {At: n, Err: storage.ErrUnknown, Done: true},
		} {
			f := storagetest.NewFaults(plan)
			enrolOnce(t, f, n)
			revokeOnce(t, f, n)
			fired = fired || f.Fired()
		}
		if !fired {
			return
		}
	}
}

// enrolOnce enrols with one use and checks that no second device gets in, whatever happens.
func enrolOnce(t *testing.T, f *storagetest.Faults, n int) {
	t.Helper()
	ctx, local := t.Context(), access.Local()
	catalog := mem.NewCatalog()
	r := open(t, catalog, access.Options{})
	enrolment := must[access.NewToken](t)(r.CreateEnrolment(ctx, local, access.TokenSpec{}))
	r = open(t, f.Catalog(catalog), access.Options{})
	tok, err := r.Enrol(ctx, enrolment.Secret, "pi-1")
	r = open(t, snapshot(t, catalog), access.Options{})
	if err == nil {
		if id, err := r.Authenticate(tok.Secret.Reveal()); err != nil || id.Device != "pi-1" {
			t.Errorf("write %d: the token that was given out is refused after a restart: %v", n, err)
		}
	}
	got := 0
	for _, dev := range []device.ID{"pi-1", "pi-2", "pi-3"} {
		if _, err := r.Enrol(ctx, enrolment.Secret, dev); err == nil {
			got++
		}
	}
	if err == nil {
		got++
	}
	if got > 1 {
		t.Errorf("write %d: one use enrolled %d devices", n, got)
	}
}

// revokeOnce revokes, deletes and changes a password, and checks that success lasts.
func revokeOnce(t *testing.T, f *storagetest.Faults, n int) {
	t.Helper()
	ctx, local := t.Context(), access.Local()
	catalog := mem.NewCatalog()
	r := open(t, catalog, access.Options{})
	tok := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Admin}))
	alice, bob := person(t, r, "alice", access.Viewer), person(t, r, "bob", access.Viewer)
	carol := person(t, r, "carol", access.Viewer)
	r = open(t, f.Catalog(catalog), access.Options{})
	revoked := r.RevokeToken(ctx, local, tok.ID)
	deleted := r.DeleteUser(ctx, local, "alice")
	_, changed := r.ChangePassword(ctx, bob.Identity,
		access.PasswordChange{Old: secret(goodPassword), New: secret("a new good password")})
	out := r.Logout(ctx, carol.Cookie)
	for _, r := range []*access.Registry{r, open(t, snapshot(t, catalog), access.Options{})} {
		if _, err := r.Authenticate(tok.Secret.Reveal()); revoked == nil && err == nil {
			t.Errorf("write %d: a revoked token is good", n)
		}
		if _, err := r.Session(alice.Cookie); deleted == nil && err == nil {
			t.Errorf("write %d: a deleted user has a session", n)
		}
		if _, err := r.Session(bob.Cookie); changed == nil && err == nil {
			t.Errorf("write %d: a session outlived the password", n)
		}
		if _, err := r.Session(carol.Cookie); out == nil && err == nil {
			t.Errorf("write %d: a session outlived the logout", n)
		}
		if _, err := r.Login(ctx, access.LoginRequest{Name: "bob", Password: secret(goodPassword)}); changed == nil && err == nil {
			t.Errorf("write %d: the old password is good", n)
		}
	}
}

func TestFailedChangesAreReported(t *testing.T) {
	full := newFaults()
	catalog := mem.NewCatalog()
	r := open(t, catalog, access.Options{})
	ctx, local := t.Context(), access.Local()
	tok := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Admin}))
	alice := person(t, r, "alice", access.Viewer)
	link := must[access.Link](t)(r.UserLink(ctx, local, "alice", access.SetPassword))
	r = open(t, full.Catalog(catalog), access.Options{})
	full.Break(storage.ErrFull)
	one := func(_ any, err error) error { return err }
	for deed, err := range map[string]error{
		"CreateToken": one(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Viewer})),
		"RevokeToken": r.RevokeToken(ctx, local, tok.ID),
		"CreateUser":  one(r.CreateUser(ctx, local, "bob", access.Viewer)),
		"SetRole":     r.SetRole(ctx, local, "alice", access.Admin),
		"DeleteUser":  r.DeleteUser(ctx, local, "alice"),
		"UserLink":    one(r.UserLink(ctx, local, "alice", access.SetPassword)),
		"ClaimLink":   one(claim(t, r, link, "another good password")),
		"SetupLink":   one(r.SetupLink(ctx)),
		"Record":      r.Record(ctx, local, access.EditDevice, "pi-1", "renamed"),
	} {
		if !errors.Is(err, storage.ErrFull) {
			t.Errorf("%s: got error %v, want %v", deed, err, storage.ErrFull)
		}
	}
	// What could not be changed is as before, and can be changed later.
	must[access.Identity](t)(r.Authenticate(tok.Secret.Reveal()))
	if id := must[access.Identity](t)(r.Session(alice.Cookie)); id.Role != access.Viewer {
		t.Errorf("alice is %s", id.Role)
	}
	full.Heal()
	must[access.NewSession](t)(claim(t, r, link, "another good password"))
}

func TestDamagedRecordsAreRefusedAndTheRestWorks(t *testing.T) {
	r, catalog, c := fresh(t)
	ctx, local := t.Context(), access.Local()
	good := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Viewer}))
	bad := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Admin}))
	alice := person(t, r, "alice", access.Admin)
	for key, text := range map[string]string{
		"access/token/" + bad.ID: `{"v":1,"id":"` + bad.ID + `","kind":"root"}`,
		"access/user/alice":      `{"v":1,"name":"alice"}`,
		"access/user/bob":        `not JSON`,
		"access/session/x":       `{}`,
	} {
		must[storage.Revision](t)(catalog.Put(ctx, key, []byte(text), storage.Any))
	}
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	must[access.Identity](t)(r.Authenticate(good.Secret.Reveal()))
	_, err := r.Authenticate(bad.Secret.Reveal())
	wantErr(t, "a damaged token", err, access.ErrUnknownToken)
	_, err = r.Session(alice.Cookie)
	wantErr(t, "a session of a damaged user", err, access.ErrNoSession)
	_, err = r.SetupLink(ctx)
	wantErr(t, "a setup link though the administrator's record may be damaged", err, storage.ErrCorrupt)
}

func TestNewerRecordsAreRefused(t *testing.T) {
	for _, key := range []string{"access/token/x", "access/user/x", "access/session/x", "access/used/x", "access/instance"} {
		catalog := mem.NewCatalog()
		must[storage.Revision](t)(catalog.Put(t.Context(), key, []byte(`{"v":2,"id":{},"used":0}`), storage.Any))
		_, err := access.Open(t.Context(), catalog, access.Options{})
		wantErr(t, key, err, storage.ErrNewerFormat)
	}
}

func TestPasswordHashesAreQueuedAndBounded(t *testing.T) {
	catalog, c := mem.NewCatalog(), newClock()
	r := open(t, catalog, access.Options{Now: c.Now})
	person(t, r, "alice", access.Viewer)
	// Hashes that take long enough for all callers to arrive meanwhile.
	r = open(t, catalog, access.Options{Now: c.Now, Hash: access.HashCost{KiB: 64 << 10, Passes: 4}, HashQueue: 2})
	var mu sync.Mutex
	seen := map[string]int{}
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range 20 {
		wg.Go(func() {
			<-start
			_, err := login(t, r, "nobody"+string(rune('a'+i)), "a wrong password", "192.0.2."+string(rune('0'+i%10)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case errors.Is(err, access.ErrBusy):
				seen["busy"]++
			case errors.Is(err, access.ErrCredentials):
				seen["wrong"]++
			default:
				t.Errorf("login: %v", err)
			}
		})
	}
	close(start)
	wg.Wait()
	if seen["busy"] == 0 || seen["wrong"] < 2 {
		t.Errorf("20 logins at once: %v", seen)
	}
}

func TestCallersWhoAreGoneCostNothing(t *testing.T) {
	r, _, _ := fresh(t)
	person(t, r, "alice", access.Viewer)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // no hash, and no guess either
		_, err := r.Login(ctx, access.LoginRequest{Name: "alice", Password: secret("a wrong password")})
		wantErr(t, "a login whose caller is gone", err, context.Canceled)
	}
	_, err := r.Login(ctx, access.LoginRequest{Name: "alice", Password: secret(strings.Repeat("x", 257))})
	wantErr(t, "an overlong password, which is not hashed", err, access.ErrCredentials)
	must[access.NewSession](t)(r.Login(t.Context(), access.LoginRequest{Name: "alice", Password: secret(goodPassword)}))
}

// The hub dies after a person was deleted and before the sessions are removed from disk.
func TestASessionRecordThatIsLeftOverIsWorthNothing(t *testing.T) {
	r, catalog, c := fresh(t)
	ctx, local := t.Context(), access.Local()
	alice := person(t, r, "alice", access.Viewer)
	left := items(t, catalog, "access/session/")
	if err := r.DeleteUser(ctx, local, "alice"); err != nil {
		t.Fatal(err)
	}
	if n := count(t, catalog, "access/session/"); n != 0 {
		t.Errorf("%d session records are left", n)
	}
	person(t, r, "alice", access.Admin) // a namesake
	for _, item := range left {
		must[storage.Revision](t)(catalog.Put(ctx, item.Key, item.Value, storage.Any))
	}
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	_, err := r.Session(alice.Cookie)
	wantErr(t, "a session of the former alice", err, access.ErrNoSession)
}
