package api_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub/access"
)

// The callers of the matrix.
const (
	nobody    = "nobody"
	viewer    = "viewer"
	operator  = "operator"
	admin     = "admin"
	elsewhere = "viewer of other devices"
	here      = "operator of this device"
	own       = "the device"
	other     = "another device"
	enrolment = "enrolment token"
	forged    = "unknown token"
	pViewer   = "person as viewer"
	pOperator = "person as operator"
	pAdmin    = "person as admin"
	pForeign  = "admin led by a foreign page"
	socket    = "control socket"
)

var (
	callers   = []string{nobody, viewer, operator, admin, elsewhere, here, own, other, enrolment, forged, pViewer, pOperator, pAdmin, pForeign, socket}
	everybody = callers
	admins    = []string{admin, pAdmin, socket}
	operators = append([]string{operator, pOperator}, admins...)
	viewers   = append([]string{viewer, pViewer}, operators...)
	people    = []string{pViewer, pOperator, pAdmin}
)

func and(lists ...[]string) []string { return slices.Concat(lists...) }

// matrix says who may use each route: written down by hand, apart from the table that the API works by. A foreign page may
// make its visitor's browser send a GET, whose answer it cannot read, and nothing else.
var matrix = map[string][]string{
	"GET /{$}":                           everybody,
	"GET /assets/{file}":                 everybody,
	"GET /welcome":                       everybody,
	"GET /welcome/{$}":                   everybody,
	"GET /public/{path...}":              everybody,
	"GET /healthz":                       everybody,
	"GET /readyz":                        everybody,
	"GET /api/openapi.json":              everybody,
	"GET /api/openapi.yaml":              everybody,
	"GET /api/live.schema.json":          everybody,
	"GET /api/asyncapi.yaml":             everybody,
	"GET /metrics":                       and(viewers, []string{pForeign}),
	"GET /device/v1":                     nil, // sees to it itself
	"GET /api/v1/live":                   nil, // likewise
	"POST /api/v1/login":                 slices.DeleteFunc(slices.Clone(everybody), func(c string) bool { return c == pForeign }),
	"POST /api/v1/links/claim":           slices.DeleteFunc(slices.Clone(everybody), func(c string) bool { return c == pForeign }),
	"POST /api/v1/logout":                people,
	"GET /api/v1/me":                     slices.DeleteFunc(slices.Clone(everybody), func(c string) bool { return c == nobody || c == forged }),
	"POST /api/v1/me/password":           people,
	"POST /api/v1/enrol":                 {enrolment},
	"GET /api/v1/status":                 and(viewers, []string{pForeign}),
	"GET /api/v1/audit":                  and(admins, []string{pForeign}),
	"POST /api/v1/flush":                 admins,
	"GET /api/v1/live/sse":               and(viewers, []string{elsewhere, here, pForeign}),
	"GET /api/v1/live/poll":              and(viewers, []string{elsewhere, here, pForeign}),
	"GET /api/v1/latest":                 and(viewers, []string{elsewhere, here, pForeign}),
	"GET /api/v1/devices":                and(viewers, []string{elsewhere, here, pForeign}),
	"POST /api/v1/devices":               admins,
	"GET /api/v1/devices/{id}":           and(viewers, []string{here, pForeign}),
	"PATCH /api/v1/devices/{id}":         and(operators, []string{here}),
	"DELETE /api/v1/devices/{id}":        admins,
	"GET /api/v1/devices/{id}/readings":  and(viewers, []string{here, pForeign}),
	"POST /api/v1/devices/{id}/readings": and(operators, []string{here, own}),
	"GET /api/v1/tokens":                 and(admins, []string{pForeign}),
	"POST /api/v1/tokens":                admins,
	"DELETE /api/v1/tokens/{id}":         admins,
	"GET /api/v1/users":                  and(admins, []string{pForeign}),
	"POST /api/v1/users":                 admins,
	"PATCH /api/v1/users/{name}":         admins,
	"DELETE /api/v1/users/{name}":        admins,
	"POST /api/v1/users/{name}/links":    admins,
	// The name in the path is that of the person as viewer.
	"GET /api/v1/users/{name}/sessions":              and(admins, []string{pViewer, pForeign}),
	"DELETE /api/v1/users/{name}/sessions/{session}": and(admins, []string{pViewer}),
}

// cast is a rig with somebody of each kind.
type cast struct {
	*rig
	tokens  map[string]string
	cookies map[string]*http.Cookie
}

func newCast(t *testing.T) *cast {
	t.Helper()
	r := newRig(t)
	enrol, err := r.access.CreateEnrolment(t.Context(), access.Local(), access.TokenSpec{Uses: 5})
	if err != nil {
		t.Fatal(err)
	}
	c := &cast{rig: r, tokens: map[string]string{
		own: r.device("this-one"), other: r.device("that-one"), enrolment: enrol.Secret.Reveal(),
		viewer: r.token(access.Viewer), operator: r.token(access.Operator), admin: r.token(access.Admin),
		elsewhere: r.token(access.Viewer, "that-*"), here: r.token(access.Operator, "this-one"),
		forged: "tha_0123456789abcdefghjkmnpqrstvwxyz",
	}, cookies: map[string]*http.Cookie{
		pViewer: r.person("vera", access.Viewer), pOperator: r.person("otto", access.Operator), pAdmin: r.person("ada", access.Admin),
	}}
	c.cookies[pForeign] = c.cookies[pAdmin]
	return c
}

// ask sends a request with what the caller has, and returns the status.
func (c *cast) ask(caller, method, path, body string) int {
	c.t.Helper()
	if caller == socket {
		req := httptest.NewRequestWithContext(cancelled(c.t), method, path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		rec := httptest.NewRecorder()
		c.api.Local().ServeHTTP(rec, req)
		return rec.Code
	}
	req := httptest.NewRequestWithContext(cancelled(c.t), method, path, strings.NewReader(body))
	req.RemoteAddr, req.Host = "192.0.2.7:4711", "hub.test"
	req.Header.Set("Content-Type", "application/json")
	if token := c.tokens[caller]; token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if cookie := c.cookies[caller]; cookie != nil {
		req.AddCookie(cookie)
		req.Header.Set("Origin", "http://hub.test")
	}
	if caller == pForeign {
		req.Header.Set("Origin", "http://evil.test")
	}
	rec := httptest.NewRecorder()
	c.api.ServeHTTP(rec, req)
	return rec.Code
}

func TestEveryRouteLetsInWhomItShould(t *testing.T) {
	routes := newRig(t).api.Routes()
	for pattern := range matrix {
		if !slices.Contains(routes, pattern) {
			t.Errorf("the matrix has %s, which is no route", pattern)
		}
	}
	for _, pattern := range routes {
		allowed, ok := matrix[pattern]
		if !ok {
			t.Errorf("nobody has said who may use %s: add it to the matrix", pattern)
			continue
		}
		if allowed == nil {
			continue
		}
		method, path, _ := strings.Cut(pattern, " ")
		path = strings.NewReplacer("{$}", "", "{id}", "this-one", "{name}", "vera", "{session}", "none").Replace(path)
		t.Run(strings.ReplaceAll(pattern, "/", "."), func(t *testing.T) {
			t.Parallel()
			c := newCast(t)
			// Those who are refused come first: what the others do may end what is asked about.
			for _, let := range []bool{false, true} {
				for _, caller := range callers {
					if slices.Contains(allowed, caller) != let {
						continue
					}
					if let && method != http.MethodGet {
						c = newCast(t)
					}
					status := c.ask(caller, method, path, "{}")
					refused := status == http.StatusUnauthorized || status == http.StatusForbidden
					if status == http.StatusUnauthorized && let && pattern == "POST /api/v1/login" {
						refused = false // {} is no password, which is for the handler to say
					}
					if refused == let {
						t.Errorf("%s is answered %d", caller, status)
					}
					if want := http.StatusUnauthorized; !let && (caller == nobody || caller == forged) && status != want {
						t.Errorf("%s is answered %d, want %d", caller, status, want)
					}
				}
			}
		})
	}
}

func TestSocketsAskWhoIsThere(t *testing.T) {
	c := newCast(t)
	for _, path := range []string{"/device/v1", "/api/v1/live"} {
		for caller, want := range map[string]int{
			nobody: 200, viewer: 200, own: 200, pViewer: 200, // the socket itself decides what each may do there
			forged: 403, pForeign: 403,
		} {
			if got := c.ask(caller, http.MethodGet, path, ""); got != want {
				t.Errorf("%s: %s is answered %d, want %d", path, caller, got, want)
			}
		}
	}
}

func TestSocketsAreToldThatAnotherSchemeIsNoToken(t *testing.T) {
	r := newRig(t)
	for _, values := range [][]string{{"Basic YTpi"}, {"Bearer"}, {"Bearer a", "Bearer b"}} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/device/v1", nil)
		req.Header["Authorization"] = values
		if _, err := r.api.Authenticate(req); !errors.Is(err, access.ErrNotToken) {
			t.Errorf("Authorization %q: %v, which a socket takes for a fault of the hub", values, err)
		}
	}
}

func TestTokensInTheAddressAreNotLookedAt(t *testing.T) {
	r := newRig(t)
	token := r.token(access.Admin)
	for _, path := range []string{
		"/api/v1/devices?token=" + token, "/api/v1/devices?access_token=" + token, "/api/v1/live/sse?token=" + token,
		"/api/v1/devices?authorization=Bearer%20" + token, "/metrics?token=" + token,
	} {
		r.want(http.StatusUnauthorized, call{method: "GET", path: path, header: http.Header{"X-Forwarded-For": {"192.0.2.7"}}})
	}
	for _, header := range []string{token, "Basic " + token, "Token " + token, "Bearer", "Bearer " + token + ",x"} {
		r.want(http.StatusUnauthorized, call{method: "GET", path: "/api/v1/devices", header: http.Header{"Authorization": {header}}})
	}
	r.want(http.StatusUnauthorized, call{method: "GET", path: "/api/v1/devices",
		header: http.Header{"Authorization": {"Bearer " + token, "Bearer " + token}}})
	r.want(http.StatusOK, call{method: "GET", path: "/api/v1/devices", header: http.Header{"Authorization": {"bearer " + token}}})
}

func TestPathsMeanWhatTheySay(t *testing.T) {
	c := newCast(t)
	for _, path := range []string{
		"/api/v1/devices/:id", "/api/v1/devices/{id}", "/api/v1/devices/%2e%2e", "/api/v1/devices/%2e%2e/tokens", "/api/v1/devices/..%2ftokens",
		"/api/v1/devices/%252e%252e", "/api/v1/devices/a%00b", `/api/v1/devices/..%5ctokens`, "/api/v1/devices//readings", "//api/v1/devices",
		"/api/v1/devices/", "/api/v1/devices/this-one/", "/api/v1/", "/api", "/API/v1/devices", "/api/v1/devices/%2fetc%2fpasswd",
		"/debug/pprof/", "/debug/vars", "/docs", "/schemas/x", "/.git/config", "/api/v1/devices/./this-one",
	} {
		if got := c.ask(admin, http.MethodGet, path, ""); got != http.StatusNotFound {
			t.Errorf("GET %s is answered %d to an administrator", path, got)
		}
		if got := c.ask(nobody, http.MethodGet, path, ""); got != http.StatusNotFound && got != http.StatusUnauthorized {
			t.Errorf("GET %s is answered %d to nobody", path, got)
		}
	}
}

// cancelled returns a context that is over, so that a stream that is allowed ends at once.
func cancelled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestListsHoldOnlyWhatTheCallerMaySee(t *testing.T) {
	c := newCast(t)
	c.until("/api/v1/latest", c.tokens[viewer], func(body string) bool {
		for _, id := range []device.ID{"this-one", "that-one"} {
			if _, err := c.hub.Ingest(t.Context(), id, wire.JSON, []byte(`{"temperature":1}`)); err != nil {
				t.Fatal(err)
			}
		}
		return strings.Contains(body, "this-one") && strings.Contains(body, "that-one")
	})
	for _, path := range []string{"/api/v1/devices", "/api/v1/latest"} {
		for caller, want := range map[string][2]bool{viewer: {true, true}, elsewhere: {false, true}, here: {true, false}} {
			_, body := c.do(call{method: "GET", path: path, token: c.tokens[caller]})
			if got := [2]bool{strings.Contains(body, "this-one"), strings.Contains(body, "that-one")}; got != want {
				t.Errorf("GET %s shows %s %v, want %v", path, caller, got, want)
			}
		}
	}
}
