package api_test

import (
	"strings"
	"testing"

	"telemetryhub/hub/access"
)

func TestDevicesAreAddedChangedAndDeleted(t *testing.T) {
	r := newRig(t)
	admin := r.token(access.Admin)
	ask := func(status int, method, path, body string) map[string]any {
		t.Helper()
		return r.want(status, call{method: method, path: path, token: admin, body: body})
	}
	made := ask(201, "POST", "/api/v1/devices", `{"id":"pump-1","name":"Pump","labels":{"site":"farm"},"position":{"lat":52.5,"lon":13.4}}`)
	token, _ := made["token"].(string)
	if made["id"] != "pump-1" || made["name"] != "Pump" || made["presence"] != "never" || !strings.HasPrefix(token, "thd_") {
		t.Errorf("the new device is %v", made)
	}
	r.send("pump-1", token, `{"temperature":21.5,"on":true,"state":"open"}`)
	shown := r.until("/api/v1/devices/pump-1", admin, func(body string) bool { return strings.Contains(body, `"latest"`) })
	for _, part := range []string{`"value":21.5`, `"value":true`, `"value":"open"`, `"presence":"live"`, `"site":"farm"`} {
		if !strings.Contains(shown, part) {
			t.Errorf("%s does not show %s", shown, part)
		}
	}
	if strings.Contains(shown, token) {
		t.Error("the token is shown again")
	}

	changed := ask(200, "PATCH", "/api/v1/devices/pump-1", `{"name":"Pump, north","labels":{"site":"","floor":"2"}}`)
	if labels := changed["labels"].(map[string]any); changed["name"] != "Pump, north" || labels["floor"] != "2" || len(labels) != 1 ||
		changed["position"].(map[string]any)["lat"] != 52.5 {
		t.Errorf("the changed device is %v", changed)
	}
	ask(404, "PATCH", "/api/v1/devices/none", `{"name":"x"}`)
	ask(422, "PATCH", "/api/v1/devices/pump-1", `{"name":"`+strings.Repeat("x", 201)+`"}`)

	ask(204, "DELETE", "/api/v1/devices/pump-1", "")
	ask(404, "GET", "/api/v1/devices/pump-1", "")
	ask(404, "DELETE", "/api/v1/devices/pump-1", "")
	ask(409, "POST", "/api/v1/devices", `{"id":"pump-1"}`)
	r.want(401, call{method: "POST", path: "/api/v1/devices/pump-1/readings", token: token, body: `{"a":1}`})

	audit := ask(200, "GET", "/api/v1/audit", "")["entries"].([]any)
	var deeds []string
	for _, e := range audit {
		deeds = append(deeds, e.(map[string]any)["what"].(string))
	}
	for _, want := range []string{"devices.create", "devices.edit", "devices.delete", "tokens.manage"} {
		if !strings.Contains(strings.Join(deeds, " "), want) {
			t.Errorf("the audit log has %v, without %s", deeds, want)
		}
	}
	page := ask(200, "GET", "/api/v1/audit?limit=1", "")
	if next, _ := page["next"].(string); next == "" || len(page["entries"].([]any)) != 1 {
		t.Errorf("a page of the audit log is %v", page)
	} else if older := ask(200, "GET", "/api/v1/audit?limit=1&before="+next, ""); older["entries"].([]any)[0].(map[string]any)["id"] == next {
		t.Error("the next page of the audit log begins with the same entry")
	}
}

// Somebody who means to limit a token must not get one without limits.
func TestTokensAreRefusedWhatDoesNotGoWithTheirKind(t *testing.T) {
	r := newRig(t)
	admin := r.token(access.Admin)
	r.device("pump")
	for _, body := range []string{
		`{"role":"viewer","device":"pump"}`, `{"kind":"api","role":"viewer","uses":3}`,
		`{"kind":"device","device":"pump","role":"viewer"}`, `{"kind":"device","device":"pump","devices":["pump"]}`,
		`{"kind":"device","device":"pump","uses":3}`,
		`{"kind":"enrolment","device":"pump"}`, `{"kind":"enrolment","role":"viewer"}`,
	} {
		r.want(422, call{method: "POST", path: "/api/v1/tokens", token: admin, body: body})
	}
}

func TestTokensAreShownOnceAndEndWhenRevoked(t *testing.T) {
	r := newRig(t)
	admin := r.token(access.Admin)
	r.device("pump")
	for _, body := range []string{
		`{"role":"viewer","label":"grafana","devices":["pump"]}`, `{"kind":"device","device":"pump"}`, `{"kind":"enrolment","uses":3}`,
	} {
		made := r.want(201, call{method: "POST", path: "/api/v1/tokens", token: admin, body: body})
		token, id := made["token"].(string), made["id"].(string)
		r.want(200, call{method: "GET", path: "/api/v1/me", token: token})
		if _, list := r.do(call{method: "GET", path: "/api/v1/tokens", token: admin}); strings.Contains(list, token) || !strings.Contains(list, id) {
			t.Errorf("the list of tokens is %s", list)
		}
		r.want(204, call{method: "DELETE", path: "/api/v1/tokens/" + id, token: admin})
		r.want(401, call{method: "GET", path: "/api/v1/me", token: token})
		r.want(404, call{method: "DELETE", path: "/api/v1/tokens/" + id, token: admin})
	}
	if list := r.want(200, call{method: "GET", path: "/api/v1/tokens?kind=device", token: admin})["tokens"].([]any); len(list) != 1 {
		t.Errorf("the device tokens are %v", list)
	}
}

func TestEnrolmentGivesADeviceItsToken(t *testing.T) {
	r := newRig(t)
	admin := r.token(access.Admin)
	made := r.want(201, call{method: "POST", path: "/api/v1/tokens", token: admin, body: `{"kind":"enrolment","uses":2,"devices":["farm-*"]}`})
	enrolment := made["token"].(string)
	enrol := func(status int, id string) string {
		t.Helper()
		v := r.want(status, call{method: "POST", path: "/api/v1/enrol", token: enrolment, body: `{"device":"` + id + `"}`})
		token, _ := v["token"].(string)
		return token
	}
	enrol(403, "house-1")
	enrol(422, "Farm 1")
	first := enrol(201, "farm-1")
	again := enrol(201, "farm-1") // the answer was lost, so the device asks again
	r.want(401, call{method: "POST", path: "/api/v1/devices/farm-1/readings", token: first, body: `{"a":1}`})
	r.send("farm-1", again, `{"a":1}`)
	enrol(409, "farm-1") // it is at work now
	enrol(201, "farm-2")
	enrol(403, "farm-3") // used up
	r.want(200, call{method: "GET", path: "/api/v1/devices/farm-2", token: admin})
	r.want(404, call{method: "GET", path: "/api/v1/devices/farm-3", token: admin})
	r.want(403, call{method: "GET", path: "/api/v1/devices", token: enrolment})
	r.want(403, call{method: "POST", path: "/api/v1/devices/farm-1/readings", token: enrolment, body: `{"a":1}`})
}

func TestADeletedDeviceIsNotEnrolledAgain(t *testing.T) {
	r := newRig(t)
	admin := r.token(access.Admin)
	r.device("farm-1")
	r.want(204, call{method: "DELETE", path: "/api/v1/devices/farm-1", token: admin})
	made := r.want(201, call{method: "POST", path: "/api/v1/tokens", token: admin, body: `{"kind":"enrolment"}`})
	r.want(409, call{method: "POST", path: "/api/v1/enrol", token: made["token"].(string), body: `{"device":"farm-1"}`})
	if list := r.want(200, call{method: "GET", path: "/api/v1/tokens?kind=device", token: admin})["tokens"].([]any); len(list) != 0 {
		t.Errorf("tokens of a device that does not exist are left: %v", list)
	}
}

func TestWithoutTLSBeyondTheMachineOnlyDevicesAreServed(t *testing.T) {
	r := newRig(t)
	dev, admin := r.device("pump"), r.token(access.Admin)
	cookie := r.person("ada", access.Admin)
	r.server.Config.Handler = r.api.Plain()
	r.send("pump", dev, `{"a":1}`)
	r.want(200, call{method: "GET", path: "/healthz"})
	for _, path := range []string{"/", "/metrics", "/api/v1/me", "/api/v1/devices", "/api/openapi.json", "/api/v1/live/sse", "/api/v1/live"} {
		for _, c := range []call{{token: admin}, {token: dev}, {header: r.with(cookie)}, {}} {
			c.method, c.path = "GET", path
			r.want(403, c)
		}
	}
	r.want(403, call{method: "POST", path: "/api/v1/login", body: `{"name":"ada","password":"` + goodPassword + `"}`})
	r.want(403, call{method: "POST", path: "/api/v1/devices/pump/readings", token: admin, body: `{"a":1}`})
}
