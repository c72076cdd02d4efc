package access_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

func TestTokenIsFoundUntilItIsRevoked(t *testing.T) {
	r, catalog, _ := fresh(t)
	ctx, local := t.Context(), access.Local()
	dev := must[access.NewToken](t)(r.CreateDeviceToken(ctx, local, "pi-1", access.TokenSpec{Label: "kitchen"}))
	api := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Operator}))

	check := func(r *access.Registry) {
		t.Helper()
		id := must[access.Identity](t)(r.Authenticate(dev.Secret.Reveal()))
		if id.Kind != access.KindDevice || id.Device != "pi-1" || id.Role != access.NoRole || id.Credential != dev.ID {
			t.Errorf("device token: got %+v", id)
		}
		id = must[access.Identity](t)(r.Authenticate(api.Secret.Reveal()))
		if id.Kind != access.KindAPI || id.Device != "" || id.Role != access.Operator || id.Credential != api.ID {
			t.Errorf("API token: got %+v", id)
		}
	}
	check(r)
	catalog = catalog.Reopen()
	r = open(t, catalog, access.Options{})
	check(r)

	if err := r.RevokeToken(ctx, local, dev.ID); err != nil {
		t.Fatal(err)
	}
	_, err := r.Authenticate(dev.Secret.Reveal())
	wantErr(t, "revoked", err, access.ErrUnknownToken)
	wantErr(t, "revoked twice", r.RevokeToken(ctx, local, dev.ID), storage.ErrNotFound)
	r = open(t, catalog.Reopen(), access.Options{})
	_, err = r.Authenticate(dev.Secret.Reveal())
	wantErr(t, "revoked, after a restart", err, access.ErrUnknownToken)
	must[access.Identity](t)(r.Authenticate(api.Secret.Reveal()))
}

func TestTokenTextIsRecognisableAndTyposAreTold(t *testing.T) {
	r, _, _ := fresh(t)
	ctx, local := t.Context(), access.Local()
	dev := must[access.NewToken](t)(r.CreateDeviceToken(ctx, local, "pi-1", access.TokenSpec{})).Secret.Reveal()
	api := must[access.NewToken](t)(r.CreateToken(ctx, local, access.TokenSpec{Role: access.Viewer})).Secret.Reveal()
	enrol := must[access.NewToken](t)(r.CreateEnrolment(ctx, local, access.TokenSpec{})).Secret.Reveal()
	for prefix, text := range map[string]string{"thd_": dev, "tha_": api, "the_": enrol} {
		if !regexp.MustCompile(`^` + prefix + `[0-9a-hjkmnp-tv-z]{32}$`).MatchString(text) {
			t.Errorf("token %q", text)
		}
	}
	const digits = "0123456789abcdefghjkmnpqrstvwxyz"
	for i := 4; i < len(dev); i++ {
		for _, d := range digits {
			if wrong := dev[:i] + string(d) + dev[i+1:]; wrong != dev {
				if _, err := r.Authenticate(wrong); err != access.ErrNotToken {
					t.Fatalf("%q for %q: got %v", wrong, dev, err)
				}
			}
		}
		if i+1 < len(dev) && dev[i] != dev[i+1] {
			wrong := dev[:i] + dev[i+1:i+2] + dev[i:i+1] + dev[i+2:]
			if _, err := r.Authenticate(wrong); err != access.ErrNotToken {
				t.Fatalf("%q for %q: got %v", wrong, dev, err)
			}
		}
	}
	for _, wrong := range []string{"", "x", dev[:len(dev)-1], dev + "0", " " + dev, "tha_" + dev[4:], "xxx_" + dev[4:],
		strings.Repeat("u", 36), "thd_" + strings.Repeat("\x00", 32), strings.Repeat("thd_", 1<<18)} {
		_, err := r.Authenticate(wrong)
		wantErr(t, "not a token", err, access.ErrNotToken)
	}
	typed := "thd_" + strings.NewReplacer("0", "O", "1", "L").Replace(strings.ToUpper(dev[4:]))
	if id, err := r.Authenticate(typed); err != nil || id.Device != "pi-1" {
		t.Errorf("typed from paper: got %v, %v", id, err)
	}
	other, _, _ := fresh(t)
	_, err := other.Authenticate(dev)
	wantErr(t, "token of another hub", err, access.ErrUnknownToken)
}

func TestTokenExpires(t *testing.T) {
	r, catalog, c := fresh(t)
	tok := must[access.NewToken](t)(r.CreateToken(t.Context(), access.Local(),
		access.TokenSpec{Role: access.Viewer, Expires: c.Now().Add(time.Hour)}))
	c.move(time.Hour - time.Millisecond)
	must[access.Identity](t)(r.Authenticate(tok.Secret.Reveal()))
	c.move(time.Millisecond)
	_, err := r.Authenticate(tok.Secret.Reveal())
	wantErr(t, "expired", err, access.ErrExpired)
	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	_, err = r.Authenticate(tok.Secret.Reveal())
	wantErr(t, "expired, after a restart", err, access.ErrExpired)
	if list := must[[]access.TokenInfo](t)(r.Tokens(access.Local())); len(list) != 1 || list[0].ID != tok.ID {
		t.Errorf("an expired token must stay in the list for a while, got %+v", list)
	}
}

func TestTokenArgumentsAreChecked(t *testing.T) {
	r, _, c := fresh(t)
	ctx, local := t.Context(), access.Local()
	for name, spec := range map[string]access.TokenSpec{
		"no role":      {},
		"a role above": {Role: access.Admin + 1},
		"past expiry":  {Role: access.Viewer, Expires: c.Now()},
		"long label":   {Role: access.Viewer, Label: strings.Repeat("x", 129)},
		"control":      {Role: access.Viewer, Label: "a\x1b[2Jb"},
		"newline":      {Role: access.Viewer, Label: "a\nb"},
		"not UTF-8":    {Role: access.Viewer, Label: "a\xff"},
		"bad pattern":  {Role: access.Viewer, Devices: []string{"A*"}},
		"inner star":   {Role: access.Viewer, Devices: []string{"a*b"}},
		"empty":        {Role: access.Viewer, Devices: []string{""}},
		"patterns":     {Role: access.Viewer, Devices: make([]string, 65)},
	} {
		_, err := r.CreateToken(ctx, local, spec)
		wantErr(t, name, err, access.ErrInvalid)
	}
	for _, dev := range []device.ID{"", "A", "../x", device.ID(strings.Repeat("a", 65))} {
		_, err := r.CreateDeviceToken(ctx, local, dev, access.TokenSpec{})
		wantErr(t, "device "+string(dev), err, access.ErrInvalid)
	}
	_, err := r.CreateDeviceTokens(ctx, local, nil, access.TokenSpec{})
	wantErr(t, "no device", err, access.ErrInvalid)
	for _, uses := range []int{-1, 1_000_001} {
		_, err := r.CreateEnrolment(ctx, local, access.TokenSpec{Uses: uses})
		wantErr(t, "uses", err, access.ErrInvalid)
	}
	if list := must[[]access.TokenInfo](t)(r.Tokens(local)); len(list) != 0 {
		t.Errorf("refused tokens exist: %+v", list)
	}
}

func TestManyDeviceTokensAtOnce(t *testing.T) {
	r, catalog, _ := fresh(t)
	ctx, local := t.Context(), access.Local()
	devices := []device.ID{"a", "b", "c"}
	made := must[[]access.NewToken](t)(r.CreateDeviceTokens(ctx, local, devices, access.TokenSpec{Label: "fleet"}))
	r = open(t, catalog.Reopen(), access.Options{})
	for i, tok := range made {
		id := must[access.Identity](t)(r.Authenticate(tok.Secret.Reveal()))
		if id.Device != devices[i] || tok.Device != devices[i] {
			t.Errorf("token %d: got %s and %s, want %s", i, id.Device, tok.Device, devices[i])
		}
	}
	for range 7 {
		must[access.NewToken](t)(r.CreateDeviceToken(ctx, local, "a", access.TokenSpec{}))
	}
	_, err := r.CreateDeviceToken(ctx, local, "a", access.TokenSpec{})
	wantErr(t, "a ninth token", err, access.ErrInvalid)
	if n := must[int](t)(r.RevokeDevice(ctx, local, "a")); n != 8 {
		t.Errorf("revoked %d tokens, want 8", n)
	}
	_, err = r.Authenticate(made[0].Secret.Reveal())
	wantErr(t, "revoked with its device", err, access.ErrUnknownToken)
	must[access.Identity](t)(r.Authenticate(made[1].Secret.Reveal()))
}

func TestEnrolmentGivesEachDeviceOneToken(t *testing.T) {
	r, catalog, c := fresh(t)
	ctx, local := t.Context(), access.Local()
	enrolment := must[access.NewToken](t)(r.CreateEnrolment(ctx, local, access.TokenSpec{Uses: 2, Devices: []string{"pi-*"}}))
	enrol := func(dev device.ID) (access.NewToken, error) { return r.Enrol(ctx, enrolment.Secret, dev) }

	first := must[access.NewToken](t)(enrol("pi-1"))
	if list := must[[]access.TokenInfo](t)(r.Tokens(local, access.KindEnrolment)); len(list) != 1 || list[0].Uses != 1 ||
		!list[0].LastUsed.Equal(c.Now()) {
		t.Errorf("enrolment token after one use: %+v", list)
	}
	repeated := must[access.NewToken](t)(enrol("pi-1")) // the answer got lost
	_, err := r.Authenticate(first.Secret.Reveal())
	wantErr(t, "the token that got lost", err, access.ErrUnknownToken)
	id := must[access.Identity](t)(r.Authenticate(repeated.Secret.Reveal()))
	if id.Kind != access.KindDevice || id.Device != "pi-1" {
		t.Errorf("enrolled as %+v", id)
	}
	_, err = enrol("pi-1")
	wantErr(t, "a device at work", err, access.ErrEnrolled)
	_, err = enrol("esp-1")
	wantErr(t, "a device outside the patterns", err, access.ErrDenied)
	_, err = enrol("PI")
	wantErr(t, "no device id", err, access.ErrInvalid)
	must[access.NewToken](t)(r.CreateDeviceToken(ctx, local, "pi-7", access.TokenSpec{}))
	_, err = enrol("pi-7")
	wantErr(t, "a device with a token by hand", err, access.ErrEnrolled)

	r = open(t, catalog.Reopen(), access.Options{Now: c.Now})
	must[access.NewToken](t)(enrol("pi-2"))
	_, err = enrol("pi-3")
	wantErr(t, "a third device", err, access.ErrSpent)
	must[access.NewToken](t)(enrol("pi-2")) // also the last use can be repeated
	_, err = r.Enrol(ctx, repeated.Secret, "pi-1")
	wantErr(t, "a device token for enrolment", err, access.ErrDenied)
	c.move(24 * time.Hour)
	_, err = enrol("pi-2")
	wantErr(t, "an old enrolment token", err, access.ErrExpired)
}

func FuzzAuthenticate(f *testing.F) {
	f.Add("")
	f.Add("thd_00000000000000000000000000000000")
	f.Add("tha_ZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZZ")
	f.Add("the_oOiIlLuU0000000000000000000000\x80\xff")
	f.Fuzz(func(t *testing.T, text string) {
		r, _, _ := fresh(t)
		if id, err := r.Authenticate(text); err == nil {
			t.Errorf("%q is somebody: %+v", text, id)
		}
		if _, err := r.Session(secret(text)); err == nil {
			t.Errorf("%q is a session", text)
		}
		if _, err := r.PeekLink(secret(text)); err == nil {
			t.Errorf("%q is a link", text)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	catalog, c := mem.NewCatalog(), newClock()
	r, err := access.Open(b.Context(), catalog, access.Options{Now: c.Now, Hash: cheap()})
	if err != nil {
		b.Fatal(err)
	}
	var text string
	devices := make([]device.ID, 10_000)
	for i := range devices {
		devices[i] = device.ID("pi-" + string(rune('a'+i%26)) + strings.Repeat("x", i/26%60) + string(rune('a'+i/1560)))
	}
	made, err := r.CreateDeviceTokens(b.Context(), access.Local(), devices, access.TokenSpec{})
	if err != nil {
		b.Fatal(err)
	}
	text = made[0].Secret.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Authenticate(text); err != nil {
			b.Fatal(err)
		}
	}
}
