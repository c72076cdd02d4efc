package access_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/storagetest"
)

func TestSecretIsNotPrinted(t *testing.T) {
	const canary = "canary-4711"
	s := secret(canary)
	type inner struct{ hidden access.Secret }
	holder := struct {
		Shown  access.Secret
		inner  inner
		list   []access.Secret
		byName map[string]access.Secret
	}{s, inner{s}, []access.Secret{s}, map[string]access.Secret{"k": s}}
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		fmt.Fprintf(&out, verb+verb+verb+verb+"\n", s, &s, holder, &holder)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", "s", s, "p", &s, "h", holder)
	}
	out.Write(must[[]byte](t)(json.Marshal([]any{s, &s, holder, map[access.Secret]int{s: 1}})))
	out.WriteString(errors.Join(fmt.Errorf("%w, %v", access.ErrPassword, s)).Error())
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("printed as %s:\n%s", form, out.String())
		}
	}
	if s.Reveal() != canary || s.Empty() || !(access.Secret{}).Empty() {
		t.Error("Reveal must give the text")
	}
	var got struct{ Password access.Secret }
	if err := json.Unmarshal([]byte(`{"password":"canary-4711"}`), &got); err != nil || got.Password.Reveal() != canary {
		t.Errorf("decoded %q, %v", got.Password.Reveal(), err)
	}
}

// buffer is a log that several goroutines write.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// story goes through everything that takes or gives a secret. It collects the secrets and the errors, and does not mind
// failures, so that it can also run on a catalog that fails.
func story(t *testing.T, catalog storage.Catalog, log *slog.Logger) (secrets []string, errs []error) {
	t.Helper()
	c := newClock()
	ctx, local := t.Context(), access.Local()
	r, err := access.Open(ctx, catalog, access.Options{Now: c.Now, Hash: cheap(), Logger: log})
	if err != nil {
		return nil, []error{err}
	}
	keep := func(s access.Secret, err error) access.Secret {
		if !s.Empty() {
			secrets = append(secrets, s.Reveal())
		}
		errs = append(errs, err)
		return s
	}
	token := func(tok access.NewToken, err error) access.NewToken {
		keep(tok.Secret, err)
		return tok
	}
	session := func(s access.NewSession, err error) access.NewSession {
		keep(s.Cookie, err)
		return s
	}
	link := func(l access.Link, err error) access.Secret { return keep(l.Secret, err) }
	password := func(text string) access.Secret { return keep(secret("canary password "+text), nil) }

	dev := token(r.CreateDeviceToken(ctx, local, "pi-1", access.TokenSpec{Label: "kitchen"}))
	api := token(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Admin}))
	enrolment := token(r.CreateEnrolment(ctx, local, access.TokenSpec{Uses: 2}))
	enrolled := token(r.Enrol(ctx, enrolment.Secret, "pi-2"))
	token(r.Enrol(ctx, enrolment.Secret, "pi-2"))
	token(r.Enrol(ctx, enrolment.Secret, "pi-1"))
	for _, tok := range []access.NewToken{dev, api, enrolled} {
		_, err := r.Authenticate(tok.Secret.Reveal())
		errs = append(errs, err)
		_, err = r.Authenticate(tok.Secret.Reveal() + "x")
		errs = append(errs, err)
	}
	claim := access.ClaimRequest{Secret: link(r.SetupLink(ctx)), Password: password("one")}
	admin := session(r.ClaimLink(ctx, claim))
	session(r.ClaimLink(ctx, claim))
	_, err = r.CreateUser(ctx, admin.Identity, "alice", access.Viewer)
	errs = append(errs, err)
	claim = access.ClaimRequest{Secret: link(r.UserLink(ctx, local, "alice", access.LogIn)), Agent: "browser"}
	alice := session(r.ClaimLink(ctx, claim))
	alice = session(r.ChangePassword(ctx, alice.Identity, access.PasswordChange{New: password("two")}))
	alice = session(r.ChangePassword(ctx, alice.Identity, access.PasswordChange{Old: password("two"), New: password("three")}))
	session(r.Login(ctx, access.LoginRequest{Name: "alice", Password: password("three"), Previous: alice.Cookie}))
	session(r.Login(ctx, access.LoginRequest{Name: "alice", Password: password("wrong")}))
	session(r.Login(ctx, access.LoginRequest{Name: password("as a name").Reveal(), Password: password("three")}))
	errs = append(errs, r.SetRole(ctx, local, "alice", access.Operator), r.Logout(ctx, admin.Cookie),
		r.RevokeToken(ctx, local, dev.ID), r.RevokeToken(ctx, local, dev.Secret.Reveal()),
		r.EndSession(ctx, local, "alice", alice.Cookie.Reveal()), r.DeleteUser(ctx, local, "alice"))
	return secrets, errs
}

func TestNoSecretIsLoggedOrStored(t *testing.T) {
	var log buffer
	catalog := mem.NewCatalog()
	secrets, errs := story(t, catalog, slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if len(secrets) < 20 {
		t.Fatalf("only %d secrets: %v", len(secrets), errs)
	}
	for n := 1; ; n++ { // and with every write failing in turn
		f := storagetest.FailAt(n, storage.ErrFull)
		more, failed := story(t, f.Catalog(catalog), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
		if secrets, errs = append(secrets, more...), append(errs, failed...); !f.Fired() {
			break
		}
	}
	var all strings.Builder
	all.WriteString(log.String())
	for _, item := range items(t, catalog, "") {
		all.WriteString(item.Key + string(item.Value) + "\n")
	}
	for _, err := range errs {
		if err != nil {
			all.WriteString(err.Error() + "\n")
		}
	}
	text := all.String()
	for _, s := range secrets {
		for _, part := range []string{s, s[4:]} {
			if i := strings.Index(text, part); i >= 0 {
				t.Fatalf("%q is in: %s", part, text[max(0, i-200):min(len(text), i+200)])
			}
		}
	}
	if !strings.Contains(text, "alice") || !strings.Contains(text, "kitchen") || !strings.Contains(text, access.ErrLink.Error()) {
		t.Error("the search text lacks what must be there")
	}
}

func TestTwoHubsShareNothing(t *testing.T) {
	a, _, _ := fresh(t)
	b, _, _ := fresh(t)
	if a.CookieName(false) == b.CookieName(false) {
		t.Error("two hubs use one cookie name")
	}
	one := must[access.Link](t)(a.SetupLink(t.Context()))
	two := must[access.Link](t)(b.SetupLink(t.Context()))
	if one.Secret.Reveal() == two.Secret.Reveal() {
		t.Error("two hubs made one setup link")
	}
}
