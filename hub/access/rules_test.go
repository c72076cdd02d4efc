package access_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/hub/access"
)

// The columns of the matrix: everybody there is.
func everybody() map[string]access.Identity {
	return map[string]access.Identity{
		"nobody":          {},
		"device":          {Kind: access.KindDevice, Device: "pi-1", Credential: "d"},
		"enrolment":       {Kind: access.KindEnrolment, Credential: "e"},
		"enrolment pi-*":  {Kind: access.KindEnrolment, Credential: "e", Devices: []string{"pi-*"}},
		"api viewer":      {Kind: access.KindAPI, Role: access.Viewer, Credential: "a"},
		"api operator":    {Kind: access.KindAPI, Role: access.Operator, Credential: "a"},
		"api admin":       {Kind: access.KindAPI, Role: access.Admin, Credential: "a"},
		"api admin pi-1":  {Kind: access.KindAPI, Role: access.Admin, Credential: "a", Devices: []string{"pi-1"}},
		"api viewer pi-*": {Kind: access.KindAPI, Role: access.Viewer, Credential: "a", Devices: []string{"x", "pi-*"}},
		"viewer":          {Kind: access.KindPerson, User: "v", Role: access.Viewer, Credential: "s"},
		"operator":        {Kind: access.KindPerson, User: "o", Role: access.Operator, Credential: "s"},
		"admin":           {Kind: access.KindPerson, User: "a", Role: access.Admin, Credential: "s"},
		"local":           access.Local(),
		// Nobody makes these, but they must not open anything either.
		"device as admin":    {Kind: access.KindDevice, Device: "pi-1", Role: access.Admin},
		"enrolment as admin": {Kind: access.KindEnrolment, Role: access.Admin},
		"nobody as admin":    {Role: access.Admin},
		"unknown kind":       {Kind: "root", Role: access.Admin},
		"unknown role":       {Kind: access.KindPerson, User: "x", Role: access.Admin + 1},
	}
}

// For every action: who may do it at all, who may do it on pi-1, who on esp-1. Names are those of everybody. An
// identity limited to some devices, or to one, appears in the second or third list only.
func matrix() map[access.Action][3]string {
	const (
		fromViewer   = "api viewer, api operator, api admin, viewer, operator, admin, local"
		fromOperator = "api operator, api admin, operator, admin, local"
		fromAdmin    = "api admin, admin, local"
		limited      = ", api admin pi-1"
	)
	everywhere := func(who string) [3]string { return [3]string{who, who, who} }
	return map[access.Action][3]string{
		access.ReadLive:     {fromViewer, fromViewer + limited + ", api viewer pi-*", fromViewer},
		access.ReadHistory:  {fromViewer, fromViewer + limited + ", api viewer pi-*", fromViewer},
		access.ReadDevices:  {fromViewer, fromViewer + limited + ", api viewer pi-*", fromViewer},
		access.ReadStatus:   everywhere(fromViewer),
		access.ReadMetrics:  everywhere(fromViewer),
		access.EditDevice:   {fromOperator, fromOperator + limited, fromOperator},
		access.SendCommand:  {fromOperator, fromOperator + limited, fromOperator},
		access.CreateDevice: everywhere(fromAdmin),
		access.DeleteDevice: {fromAdmin, fromAdmin + limited, fromAdmin},
		access.SendReadings: {"", "device, device as admin", ""},
		access.Enrol:        {"", "enrolment, enrolment pi-*, enrolment as admin", "enrolment, enrolment as admin"},
		access.ManageTokens: everywhere(fromAdmin),
		access.ManageUsers:  everywhere(fromAdmin),
		access.ReadAudit:    everywhere(fromAdmin),
		access.Configure:    everywhere(fromAdmin),
		access.Maintain:     everywhere(fromAdmin),
		access.OwnAccount:   everywhere("viewer, operator, admin, unknown role"),
	}
}

func TestWhoMayDoWhat(t *testing.T) {
	want := matrix()
	for _, a := range access.Actions() {
		row, ok := want[a]
		if !ok {
			t.Errorf("%s: not in the matrix", a)
			continue
		}
		for name, id := range everybody() {
			if got := id.Can(a); got != slices.Contains(strings.Split(row[0], ", "), name) {
				t.Errorf("%s, %s: Can is %v", a, name, got)
			}
			if err := id.Require(a); (err == nil) != id.Can(a) || err != nil && !errors.Is(err, access.ErrDenied) {
				t.Errorf("%s, %s: Require returned %v", a, name, err)
			}
			for i, dev := range []device.ID{"pi-1", "esp-1"} {
				got := id.CanOn(a, dev)
				if got != slices.Contains(strings.Split(row[i+1], ", "), name) {
					t.Errorf("%s on %s, %s: CanOn is %v", a, dev, name, got)
				}
				if err := id.RequireOn(a, dev); (err == nil) != got || err != nil && !errors.Is(err, access.ErrDenied) {
					t.Errorf("%s on %s, %s: RequireOn returned %v", a, dev, name, err)
				}
			}
		}
	}
	if len(want) != len(access.Actions()) {
		t.Errorf("the matrix has %d actions, the table %d", len(want), len(access.Actions()))
	}
}

func TestUnknownActionIsDenied(t *testing.T) {
	for name, id := range everybody() {
		for _, a := range []access.Action{"", "live.write", "LIVE.READ", "live.read "} {
			if id.Can(a) || id.CanOn(a, "pi-1") || id.Require(a) == nil || id.RequireOn(a, "pi-1") == nil {
				t.Errorf("%s may do %q", name, a)
			}
		}
	}
}

// Whoever asks for a change must have the right to it, whatever the layers above have checked.
func TestChangesNeedTheRight(t *testing.T) {
	r, _, _ := fresh(t)
	ctx := t.Context()
	tok := must[access.NewToken](t)(r.CreateToken(ctx, access.Local(), access.TokenSpec{Role: access.Viewer}))
	alice := person(t, r, "alice", access.Viewer)
	for name, by := range everybody() {
		if by.Can(access.ManageTokens) {
			continue
		}
		one := func(_ any, err error) error { return err }
		for deed, err := range map[string]error{
			"CreateToken":       one(r.CreateToken(ctx, by, access.TokenSpec{Role: access.Viewer})),
			"CreateDeviceToken": one(r.CreateDeviceToken(ctx, by, "pi-1", access.TokenSpec{})),
			"CreateEnrolment":   one(r.CreateEnrolment(ctx, by, access.TokenSpec{})),
			"Tokens":            one(r.Tokens(by)),
			"RevokeToken":       r.RevokeToken(ctx, by, tok.ID),
			"RevokeDevice":      one(r.RevokeDevice(ctx, by, "pi-1")),
			"CreateUser":        one(r.CreateUser(ctx, by, "bob", access.Viewer)),
			"Users":             one(r.Users(by)),
			"UserLink":          one(r.UserLink(ctx, by, "alice", access.SetPassword)),
			"SetRole":           r.SetRole(ctx, by, "alice", access.Admin),
			"DeleteUser":        r.DeleteUser(ctx, by, "alice"),
			"Sessions":          one(r.Sessions(by, "alice")),
			"EndSession":        r.EndSession(ctx, by, "alice", alice.Credential),
			"Audit":             one(r.Audit(ctx, by, "", 10)),
		} {
			if !errors.Is(err, access.ErrDenied) {
				t.Errorf("%s by %s: got error %v", deed, name, err)
			}
		}
	}
	if id, err := r.Session(alice.Cookie); err != nil || id.Role != access.Viewer {
		t.Errorf("after refused changes: %+v, %v", id, err)
	}
}
