package access_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"testing"

	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

var update = flag.Bool("update", false, "write testdata/v1.json anew (only when format 1 was never released)")

// golden is a catalog of format 1 with the secrets that were given out for it.
type golden struct {
	Device, API, Limited, Enrolment, Cookie, Link, Password string

	Catalog map[string]json.RawMessage
}

// makeGolden writes the file.
func makeGolden(t *testing.T, file string) {
	t.Helper()
	r, catalog, _ := fresh(t)
	ctx, local := t.Context(), access.Local()
	admin := person(t, r, "admin", access.Admin)
	must[access.UserInfo](t)(r.CreateUser(ctx, local, "alice", access.Operator))
	secrets := func(tok access.NewToken, err error) string {
		return must[access.NewToken](t)(tok, err).Secret.Reveal()
	}
	g := golden{
		Device: secrets(r.CreateDeviceToken(ctx, local, "pi-1", access.TokenSpec{Label: "kitchen"})),
		API:    secrets(r.CreateToken(ctx, admin.Identity, access.TokenSpec{Role: access.Operator})),
		Limited: secrets(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Viewer, Devices: []string{"pi-*"},
			Expires: newClock().Now().AddDate(20, 0, 0)})),
		Enrolment: secrets(r.CreateEnrolment(ctx, local, access.TokenSpec{Uses: 3})),
		Cookie:    admin.Cookie.Reveal(),
		Link:      must[access.Link](t)(r.UserLink(ctx, local, "alice", access.SetPassword)).Secret.Reveal(),
		Password:  goodPassword,
		Catalog:   map[string]json.RawMessage{},
	}
	for _, item := range items(t, catalog, "") {
		g.Catalog[item.Key] = item.Value
	}
	text := must[[]byte](t)(json.MarshalIndent(g, "", "\t"))
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFormat1IsReadForEver(t *testing.T) {
	const file = "testdata/v1.json"
	if *update {
		makeGolden(t, file)
	}
	var g golden
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(file)), &g); err != nil {
		t.Fatal(err)
	}
	catalog, ctx := mem.NewCatalog(), t.Context()
	for key, value := range g.Catalog {
		must[storage.Revision](t)(catalog.Put(ctx, key, value, storage.Any))
	}
	r := open(t, catalog, access.Options{Now: newClock().Now})
	if id := must[access.Identity](t)(r.Authenticate(g.Device)); id.Kind != access.KindDevice || id.Device != "pi-1" {
		t.Errorf("device token: %+v", id)
	}
	if id := must[access.Identity](t)(r.Authenticate(g.API)); id.Kind != access.KindAPI || id.Role != access.Operator || !id.Can(access.SendCommand) {
		t.Errorf("API token: %+v", id)
	}
	id := must[access.Identity](t)(r.Authenticate(g.Limited))
	if id.Can(access.ReadLive) || !id.CanOn(access.ReadLive, "pi-9") || id.CanOn(access.ReadLive, "esp") {
		t.Errorf("limited API token: %+v", id)
	}
	must[access.NewToken](t)(r.Enrol(ctx, secret(g.Enrolment), "pi-2"))
	if id := must[access.Identity](t)(r.Session(secret(g.Cookie))); id.User != "admin" || id.Role != access.Admin {
		t.Errorf("session: %+v", id)
	}
	must[access.NewSession](t)(login(t, r, "admin", g.Password, "192.0.2.1"))
	if s := must[access.NewSession](t)(claim(t, r, access.Link{Secret: secret(g.Link)}, "another good password")); s.User != "alice" {
		t.Errorf("link: %+v", s.Identity)
	}
	if log, err := r.Audit(ctx, access.Local(), "", 100); err != nil || len(log) < 8 || log[len(log)-1].What != string(access.ManageUsers) {
		t.Errorf("audit log: %+v, %v", log, err)
	}
}

// However a value is damaged, opening neither panics nor lets anybody in.
func FuzzOpen(f *testing.F) {
	text, err := os.ReadFile("testdata/v1.json")
	if err != nil {
		f.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		f.Fatal(err)
	}
	for key, value := range g.Catalog {
		f.Add(key, []byte(value))
	}
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		catalog := mem.NewCatalog()
		if _, err := catalog.Put(t.Context(), key, value, storage.Any); err != nil {
			return
		}
		r, err := access.Open(t.Context(), catalog, access.Options{Now: newClock().Now, Hash: cheap()})
		if err != nil {
			if !errors.Is(err, storage.ErrNewerFormat) {
				t.Errorf("open: %v", err)
			}
			return
		}
		for _, by := range must[[]access.UserInfo](t)(r.Users(access.Local())) {
			_, err := login(t, r, by.Name, "", "192.0.2.1")
			wantErr(t, "no password", err, access.ErrCredentials)
		}
		must[[]access.TokenInfo](t)(r.Tokens(access.Local()))
		if _, err := r.Audit(t.Context(), access.Local(), "", 10); err != nil {
			t.Errorf("audit: %v", err)
		}
	})
}
