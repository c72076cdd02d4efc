package access_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

func claim(t *testing.T, r *access.Registry, link access.Link, password string) (access.NewSession, error) {
	t.Helper()
	return r.ClaimLink(t.Context(), access.ClaimRequest{Secret: link.Secret, Password: secret(password),
		Source: source("192.0.2.1"), Agent: "test"})
}

func TestSetupLinkIsMadeAtEachStartUntilItIsClaimed(t *testing.T) {
	r, catalog, c := fresh(t)
	ctx := t.Context()
	first := must[access.Link](t)(r.SetupLink(ctx))
	if first.User != "admin" || !first.Expires.Equal(c.Now().Add(15*time.Minute)) {
		t.Errorf("setup link %+v", first)
	}
	catalog = catalog.Reopen()
	r = open(t, catalog, access.Options{Now: c.Now})
	second := must[access.Link](t)(r.SetupLink(ctx))
	_, err := claim(t, r, first, goodPassword)
	wantErr(t, "the link of the start before", err, access.ErrLink)

	s := must[access.NewSession](t)(claim(t, r, second, goodPassword))
	if s.User != "admin" || s.Role != access.Admin || s.Kind != access.KindPerson {
		t.Errorf("claimed as %+v", s.Identity)
	}
	_, err = claim(t, r, second, goodPassword)
	wantErr(t, "a second claim", err, access.ErrLink)
	_, err = r.SetupLink(ctx)
	wantErr(t, "another setup link", err, access.ErrClaimed)
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	_, err = r.SetupLink(ctx)
	wantErr(t, "another setup link, after a restart", err, access.ErrClaimed)
	must[access.NewSession](t)(login(t, r, "admin", goodPassword, "192.0.2.1"))
}

func TestSetupLinkIsVoidOnceThereIsAnAdministrator(t *testing.T) {
	r, _, _ := fresh(t)
	link := must[access.Link](t)(r.SetupLink(t.Context()))
	person(t, r, "alice", access.Admin)
	_, err := claim(t, r, link, goodPassword)
	wantErr(t, "setup link", err, access.ErrLink)
}

// The account of the setup link can have become somebody's without the right to administer.
func TestSetupLinkDoesNotRaiseAnAccountBeforeItIsClaimed(t *testing.T) {
	r, catalog, c := fresh(t)
	ctx := t.Context()
	person(t, r, "admin", access.Viewer)
	link := must[access.Link](t)(r.SetupLink(ctx))
	s := must[access.NewSession](t)(login(t, r, "admin", goodPassword, "192.0.2.1"))
	if s.Role != access.Viewer {
		t.Errorf("the setup link made its account %s", s.Role)
	}
	s = must[access.NewSession](t)(claim(t, r, link, "another good password"))
	if s.Role != access.Admin {
		t.Errorf("the claim made the account %s", s.Role)
	}
	_, err := login(t, r, "admin", goodPassword, "192.0.2.1")
	wantErr(t, "the password before", err, access.ErrCredentials)
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	if s := must[access.NewSession](t)(login(t, r, "admin", "another good password", "192.0.2.1")); s.Role != access.Admin {
		t.Errorf("after a restart the account is %s", s.Role)
	}
}

func TestOfTwoClaimsOneWins(t *testing.T) {
	for range 20 {
		first, catalog, c := fresh(t)
		link := must[access.Link](t)(first.SetupLink(t.Context()))
		second := open(t, catalog, access.Options{Now: c.Now}) // another hub on the same catalog: only compare-and-set decides
		passwords := []string{"password number 0", "password number 1", "password number 2", "password number 3"}
		errs := make([]error, len(passwords))
		var wg sync.WaitGroup
		for i, password := range passwords {
			r := []*access.Registry{first, second}[i%2]
			wg.Go(func() { _, errs[i] = claim(t, r, link, password) })
		}
		wg.Wait()
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatalf("claims %d and %d both won", winner, i)
			case err == nil:
				winner = i
			case !errors.Is(err, access.ErrLink):
				t.Errorf("claim %d: %v", i, err)
			}
		}
		if winner < 0 {
			t.Fatalf("nobody won: %v", errs)
		}
		r := open(t, catalog.Reopen(), access.Options{Now: c.Now})
		for i, password := range passwords {
			if _, err := login(t, r, "admin", password, "192.0.2.1"); (err == nil) != (i == winner) {
				t.Errorf("login with password %d of winner %d: %v", i, winner, err)
			}
		}
	}
}

func TestLinkExpires(t *testing.T) {
	r, catalog, c := fresh(t)
	ctx := t.Context()
	must[access.UserInfo](t)(r.CreateUser(ctx, access.Local(), "alice", access.Viewer))
	link := must[access.Link](t)(r.UserLink(ctx, access.Local(), "alice", access.SetPassword))
	c.move(15*time.Minute - time.Second)
	if got := must[access.Link](t)(r.PeekLink(link.Secret)); got.User != "alice" || got.Purpose != access.SetPassword {
		t.Errorf("peek: %+v", got)
	}
	c.move(time.Second)
	_, err := r.PeekLink(link.Secret)
	wantErr(t, "a look at an old link", err, access.ErrLink)
	_, err = claim(t, r, link, goodPassword)
	wantErr(t, "an old link", err, access.ErrLink)
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	_, err = claim(t, r, link, goodPassword)
	wantErr(t, "an old link, after a restart", err, access.ErrLink)
}

func TestLinkThatExpiresWhileItIsClaimed(t *testing.T) {
	catalog, c := mem.NewCatalog(), newClock()
	var step time.Duration
	r := open(t, catalog, access.Options{Now: func() time.Time {
		c.move(step)
		return c.Now()
	}})
	link := must[access.Link](t)(r.SetupLink(t.Context()))
	c.move(15*time.Minute - 2*time.Second)
	step = time.Second // hashing takes its time
	must[access.Link](t)(r.PeekLink(link.Secret))
	c.move(-time.Second)
	_, err := claim(t, r, link, goodPassword)
	wantErr(t, "claim", err, access.ErrLink)
}

func TestLinkOutlivesABadPassword(t *testing.T) {
	r, _, _ := fresh(t)
	ctx := t.Context()
	must[access.UserInfo](t)(r.CreateUser(ctx, access.Local(), "alice.longname", access.Viewer))
	link := must[access.Link](t)(r.UserLink(ctx, access.Local(), "alice.longname", access.SetPassword))
	for _, bad := range []string{"", "short", "Alice.LongName", strings.Repeat("a", 12), strings.Repeat("ab", 129),
		"invalid \xff\xfe text"} {
		_, err := claim(t, r, link, bad)
		wantErr(t, "password "+bad, err, access.ErrPassword)
	}
	must[access.NewSession](t)(claim(t, r, link, goodPassword))
}

func TestLoginLinkNeedsNoPasswordAndComesFromTheControlSocketOnly(t *testing.T) {
	r, _, _ := fresh(t)
	ctx := t.Context()
	admin := person(t, r, "root", access.Admin)
	_, err := r.UserLink(ctx, admin.Identity, "root", access.LogIn)
	wantErr(t, "by a person", err, access.ErrDenied)
	must[access.UserInfo](t)(r.CreateUser(ctx, access.Local(), "alice", access.Operator))
	link := must[access.Link](t)(r.UserLink(ctx, access.Local(), "alice", access.LogIn))
	s := must[access.NewSession](t)(claim(t, r, link, ""))
	if s.User != "alice" || s.Role != access.Operator {
		t.Errorf("logged in as %+v", s.Identity)
	}
	_, err = claim(t, r, link, "")
	wantErr(t, "a second time", err, access.ErrLink)
	_, err = login(t, r, "alice", "", "192.0.2.1")
	wantErr(t, "login without a password", err, access.ErrCredentials)
	// Who never had a password can choose one without the old one.
	s = must[access.NewSession](t)(r.ChangePassword(ctx, s.Identity, access.PasswordChange{New: secret(goodPassword)}))
	must[access.Identity](t)(r.Session(s.Cookie))
	must[access.NewSession](t)(login(t, r, "alice", goodPassword, "192.0.2.1"))
}

func TestLinksAreBounded(t *testing.T) {
	r, _, _ := fresh(t)
	ctx := t.Context()
	must[access.UserInfo](t)(r.CreateUser(ctx, access.Local(), "alice", access.Viewer))
	var links []access.Link
	for range 6 {
		links = append(links, must[access.Link](t)(r.UserLink(ctx, access.Local(), "alice", access.SetPassword)))
	}
	for i, link := range links {
		if _, err := r.PeekLink(link.Secret); (err == nil) != (i >= 2) {
			t.Errorf("link %d of 6: %v", i, err)
		}
	}
	must[access.NewSession](t)(claim(t, r, links[4], goodPassword))
	_, err := claim(t, r, links[5], goodPassword)
	wantErr(t, "another link after a password was chosen", err, access.ErrLink)
}

func TestUsersAreListedChangedAndDeleted(t *testing.T) {
	r, catalog, c := fresh(t)
	ctx, local := t.Context(), access.Local()
	alice := person(t, r, "Alice", access.Viewer)
	must[access.UserInfo](t)(r.CreateUser(ctx, local, "bob@example.org", access.Operator))
	_, err := r.CreateUser(ctx, local, "ALICE", access.Viewer)
	wantErr(t, "a name twice", err, access.ErrExists)
	for _, name := range []string{"", ".a", "a b", "a/b", "ä", "a\x00", strings.Repeat("a", 65)} {
		_, err := r.CreateUser(ctx, local, name, access.Viewer)
		wantErr(t, "name "+name, err, access.ErrInvalid)
	}
	_, err = r.CreateUser(ctx, local, "carol", access.NoRole)
	wantErr(t, "no role", err, access.ErrInvalid)

	list := must[[]access.UserInfo](t)(r.Users(local))
	if len(list) != 2 || list[0].Name != "alice" || !list[0].HasPassword || list[0].Sessions != 1 ||
		!list[0].LastSeen.Equal(c.Now()) || list[1].Name != "bob@example.org" || list[1].HasPassword || list[1].Sessions != 0 {
		t.Errorf("users: %+v", list)
	}
	if err := r.SetRole(ctx, local, "alice", access.Operator); err != nil {
		t.Fatal(err)
	}
	if id := must[access.Identity](t)(r.Session(alice.Cookie)); id.Role != access.Operator {
		t.Errorf("after SetRole the session has the role %s", id.Role)
	}
	if err := r.DeleteUser(ctx, local, "alice"); err != nil {
		t.Fatal(err)
	}
	_, err = r.Session(alice.Cookie)
	wantErr(t, "the session of a deleted user", err, access.ErrNoSession)
	wantErr(t, "deleted twice", r.DeleteUser(ctx, local, "alice"), storage.ErrNotFound)
	wantErr(t, "role of nobody", r.SetRole(ctx, local, "alice", access.Viewer), storage.ErrNotFound)

	// Somebody else by that name is somebody else.
	person(t, r, "alice", access.Admin)
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	_, err = r.Session(alice.Cookie)
	wantErr(t, "the session of a former namesake", err, access.ErrNoSession)
}

func TestTheLastAdministratorStays(t *testing.T) {
	r, _, _ := fresh(t)
	ctx, local := t.Context(), access.Local()
	person(t, r, "alice", access.Admin)
	must[access.UserInfo](t)(r.CreateUser(ctx, local, "bob", access.Admin)) // cannot log in yet
	wantErr(t, "lower", r.SetRole(ctx, local, "alice", access.Viewer), access.ErrLastAdmin)
	wantErr(t, "delete", r.DeleteUser(ctx, local, "alice"), access.ErrLastAdmin)
	if err := r.SetRole(ctx, local, "alice", access.Admin); err != nil {
		t.Errorf("keep as administrator: %v", err)
	}
	person(t, r, "carol", access.Admin)
	if err := r.DeleteUser(ctx, local, "alice"); err != nil {
		t.Errorf("delete one of two: %v", err)
	}
	wantErr(t, "delete the other", r.DeleteUser(ctx, local, "carol"), access.ErrLastAdmin)
}

func TestOfTwoAdministratorsWhoRemoveEachOtherOneStays(t *testing.T) {
	for range 20 {
		r, _, _ := fresh(t)
		a, b := person(t, r, "alice", access.Admin), person(t, r, "bob", access.Admin)
		var wg sync.WaitGroup
		wg.Go(func() { _ = r.DeleteUser(t.Context(), a.Identity, "bob") }) // one of the two is refused
		wg.Go(func() { _ = r.SetRole(t.Context(), b.Identity, "alice", access.Viewer) })
		wg.Wait()
		admins := 0
		for _, u := range must[[]access.UserInfo](t)(r.Users(access.Local())) {
			if u.Role == access.Admin {
				admins++
			}
		}
		if admins != 1 {
			t.Fatalf("%d administrators are left", admins)
		}
	}
}
