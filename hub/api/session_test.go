package api_test

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
)

// origin is what pages of the rig's hub send.
func (r *rig) origin() http.Header { return http.Header{"Origin": {r.server.URL}} }

// with returns the headers of a page of the hub for somebody who is logged in.
func (r *rig) with(c *http.Cookie) http.Header {
	h := r.origin()
	h.Set("Cookie", c.Name+"="+c.Value)
	return h
}

func TestTheFirstAdministratorClaimsTheHubOnce(t *testing.T) {
	r := newRig(t)
	link, err := r.access.SetupLink(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	body := `{"link":"` + link.Secret.Reveal() + `","password":"` + goodPassword + `"}`
	r.want(http.StatusUnprocessableEntity, call{method: "POST", path: "/api/v1/links/claim",
		body: `{"link":"` + link.Secret.Reveal() + `","password":"short"}`})
	statuses := make(chan *http.Response, 8)
	var wg sync.WaitGroup
	for range cap(statuses) {
		wg.Go(func() {
			resp, _ := r.do(call{method: "POST", path: "/api/v1/links/claim", body: body, header: http.Header{
				"Origin": {r.server.URL}, "Content-Type": {"application/json"}}})
			statuses <- resp
		})
	}
	wg.Wait()
	close(statuses)
	var cookie *http.Cookie
	for resp := range statuses {
		switch {
		case resp.StatusCode == http.StatusForbidden:
		case resp.StatusCode != http.StatusOK:
			t.Errorf("a claim is answered %d", resp.StatusCode)
		case cookie != nil:
			t.Error("two claims of one link have won")
		default:
			cookie = resp.Cookies()[0]
		}
	}
	if cookie == nil {
		t.Fatal("no claim has won")
	}
	me := r.want(http.StatusOK, call{method: "GET", path: "/api/v1/me", header: r.with(cookie)})
	if me["kind"] != "person" || me["role"] != "admin" || me["name"] != "admin" {
		t.Errorf("whoever claimed the hub is %v", me)
	}
}

func TestTheCookieIsKeptFromScriptsAndOtherSites(t *testing.T) {
	login := func(r *rig, origin string) *http.Cookie {
		r.person("ada", access.Admin)
		resp, body := r.do(call{method: "POST", path: "/api/v1/login", body: `{"name":"Ada","password":"` + goodPassword + `"}`,
			header: http.Header{"Origin": {origin}}})
		if resp.StatusCode != http.StatusOK || len(resp.Cookies()) != 1 {
			t.Fatalf("login is answered %d %s", resp.StatusCode, body)
		}
		return resp.Cookies()[0]
	}
	plain := newRig(t)
	if c := login(plain, plain.server.URL); !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Secure {
		t.Errorf("the cookie without TLS is %v", c)
	}
	behind := newRig(t, func(p *parts) { p.options.PublicURL = &url.URL{Scheme: "https", Host: "hub.example"} })
	c := login(behind, "https://hub.example")
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || !c.Secure || !strings.HasPrefix(c.Name, "__Host-") || c.Domain != "" {
		t.Errorf("the cookie with TLS is %v", c)
	}
}

func TestLoginGivesANewSessionAndLogoutEndsIt(t *testing.T) {
	r := newRig(t)
	old := r.person("ada", access.Admin)
	h := r.with(old)
	h.Set("Content-Type", "application/json")
	resp, _ := r.do(call{method: "POST", path: "/api/v1/login", body: `{"name":"ada","password":"` + goodPassword + `"}`, header: h})
	fresh := resp.Cookies()[0]
	if fresh.Value == old.Value {
		t.Error("a login keeps the session from before")
	}
	r.want(http.StatusUnauthorized, call{method: "GET", path: "/api/v1/me", header: r.with(old)})
	r.want(http.StatusOK, call{method: "GET", path: "/api/v1/me", header: r.with(fresh)})

	resp, _ = r.do(call{method: "POST", path: "/api/v1/logout", header: r.with(fresh)})
	if resp.StatusCode != http.StatusNoContent || resp.Cookies()[0].MaxAge >= 0 {
		t.Errorf("logout is answered %d %v", resp.StatusCode, resp.Cookies())
	}
	r.want(http.StatusUnauthorized, call{method: "GET", path: "/api/v1/me", header: r.with(fresh)})
}

func TestPasswordsAreChangedByTheirOwners(t *testing.T) {
	r := newRig(t)
	cookie := r.person("vera", access.Viewer)
	change := func(old, fresh string) (*http.Response, string) {
		h := r.with(cookie)
		h.Set("Content-Type", "application/json")
		return r.do(call{method: "POST", path: "/api/v1/me/password", body: `{"old":"` + old + `","new":"` + fresh + `"}`, header: h})
	}
	if resp, body := change("not the old one at all", "another good password"); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("a change with a wrong old password is answered %d %s", resp.StatusCode, body)
	}
	if resp, body := change(goodPassword, "short"); resp.StatusCode != http.StatusUnprocessableEntity {
		t.Errorf("a change to a short password is answered %d %s", resp.StatusCode, body)
	}
	resp, body := change(goodPassword, "another good password")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("a change is answered %d %s", resp.StatusCode, body)
	}
	r.want(http.StatusUnauthorized, call{method: "GET", path: "/api/v1/me", header: r.with(cookie)})
	r.want(http.StatusOK, call{method: "GET", path: "/api/v1/me", header: r.with(resp.Cookies()[0])})
}

func TestGuessesAreSlowedAndTellNothing(t *testing.T) {
	r := newRig(t)
	r.person("ada", access.Admin)
	answer := func(name string) (int, string, string) {
		resp, body := r.do(call{method: "POST", path: "/api/v1/login", body: `{"name":"` + name + `","password":"wrong wrong wrong"}`})
		return resp.StatusCode, body, resp.Header.Get("Retry-After")
	}
	status, known, _ := answer("ada")
	if other, unknown, _ := answer("eve"); status != other || known != unknown {
		t.Errorf("a known name is answered %d %s, an unknown one %d %s", status, known, other, unknown)
	}
	for range 40 {
		var wait string
		if status, _, wait = answer("ada"); status == http.StatusTooManyRequests && wait == "" {
			t.Fatal("an attempt too many is not told when to come back")
		}
	}
	if status != http.StatusTooManyRequests {
		t.Errorf("the 40th guess is answered %d", status)
	}
}

func TestForeignPagesCannotAct(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.AllowOrigins = []string{"https://wall.example"} })
	cookie := r.person("ada", access.Admin)
	host := strings.TrimPrefix(r.server.URL, "http://")
	n := 0
	for origin, want := range map[string]int{
		r.server.URL: 201, "https://wall.example": 201,
		"": 403, "null": 403, "https://" + host: 403, "http://evil.example": 403, "http://" + host + ".evil.example": 403,
		"http://localhost:1": 403, "https://wall.example.evil.example": 403, "http://wall.example": 403, "https://wall.example:444": 403,
	} {
		h := http.Header{"Cookie": {cookie.Name + "=" + cookie.Value}, "Content-Type": {"application/json"}}
		if origin != "" {
			h.Set("Origin", origin)
		}
		n++
		resp, body := r.do(call{method: "POST", path: "/api/v1/devices", body: `{"id":"d` + itoa(n) + `"}`, header: h})
		if resp.StatusCode != want {
			t.Errorf("a request from %q is answered %d %s, want %d", origin, resp.StatusCode, body, want)
		}
	}
	token := r.token(access.Admin)
	r.want(http.StatusCreated, call{method: "POST", path: "/api/v1/devices", token: token, body: `{"id":"by-token"}`,
		header: http.Header{"Origin": {"http://evil.example"}, "Content-Type": {"application/json"}}})
}

func TestAllowedPagesMayReadTheAnswers(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.AllowOrigins = []string{"https://wall.example"} })
	ask := func(method, origin string) *http.Response {
		resp, _ := r.do(call{method: method, path: "/api/v1/devices", header: http.Header{
			"Origin": {origin}, "Access-Control-Request-Method": {"POST"}}})
		return resp
	}
	if resp := ask("OPTIONS", "https://wall.example"); resp.StatusCode != http.StatusNoContent ||
		resp.Header.Get("Access-Control-Allow-Origin") != "https://wall.example" {
		t.Errorf("a preflight of an allowed page is answered %d %v", resp.StatusCode, resp.Header)
	}
	written := newRig(t, func(p *parts) { p.options.AllowOrigins = []string{"https://Wall.example:443"} })
	resp, _ := written.do(call{method: "GET", path: "/healthz", header: http.Header{"Origin": {"https://wall.example"}}})
	if resp.Header.Get("Access-Control-Allow-Origin") != "https://wall.example" {
		t.Errorf("a page whose origin was written in another way may act, but is answered %v", resp.Header)
	}
	for _, method := range []string{"OPTIONS", "GET"} {
		if resp := ask(method, "https://evil.example"); resp.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s from another page is answered %v", method, resp.Header)
		}
	}
}

func TestLinksNeverComeFromTheHostOfARequest(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.LinkBase = "https://hub.example" })
	admin := r.token(access.Admin)
	v := r.want(http.StatusCreated, call{method: "POST", path: "/api/v1/users", token: admin, body: `{"name":"vera"}`,
		header: http.Header{"Host": {"evil.example"}, "X-Forwarded-Host": {"evil.example"}, "Content-Type": {"application/json"}}})
	link := v["link"].(map[string]any)
	if link["url"] != "https://hub.example/#link="+link["link"].(string) {
		t.Errorf("the link is %v", link)
	}
	if got := api.LinkURL("https://h", access.Link{Secret: access.NewSecret("s")}); got != "https://h/#link=s" {
		t.Errorf("LinkURL is %s", got)
	}
}

func TestPeopleAreManaged(t *testing.T) {
	r := newRig(t)
	admin := r.token(access.Admin)
	post := func(status int, path, body string) map[string]any {
		t.Helper()
		return r.want(status, call{method: "POST", path: path, token: admin, body: body})
	}
	made := post(http.StatusCreated, "/api/v1/users", `{"name":"Vera","role":"operator"}`)
	if made["name"] != "vera" || made["role"] != "operator" || made["has_password"] != false {
		t.Errorf("the new person is %v", made)
	}
	post(http.StatusConflict, "/api/v1/users", `{"name":"vera"}`)
	post(http.StatusUnprocessableEntity, "/api/v1/users", `{"name":"../vera"}`)
	post(http.StatusUnprocessableEntity, "/api/v1/users", `{"name":"x","role":"king"}`)
	link := post(http.StatusCreated, "/api/v1/users/vera/links", `{}`)
	if link["purpose"] != "password" || link["user"] != "vera" {
		t.Errorf("the link is %v", link)
	}
	post(http.StatusForbidden, "/api/v1/users/vera/links", `{"purpose":"login"}`) // of the control socket only
	post(http.StatusNotFound, "/api/v1/users/nobody/links", `{}`)

	resp, body := r.do(call{method: "POST", path: "/api/v1/links/claim", body: `{"link":"` + link["link"].(string) + `","password":"` + goodPassword + `"}`})
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("a claim is answered %d %s", resp.StatusCode, body)
	}
	vera := resp.Cookies()[0]
	list := r.want(http.StatusOK, call{method: "GET", path: "/api/v1/users/vera/sessions", header: r.with(vera)})["sessions"].([]any)
	if len(list) != 1 {
		t.Fatalf("the sessions are %v", list)
	}
	r.want(http.StatusForbidden, call{method: "GET", path: "/api/v1/users/ada/sessions", header: r.with(vera)})
	resp, _ = r.do(call{method: "DELETE", path: "/api/v1/users/vera/sessions/" + list[0].(map[string]any)["id"].(string), header: r.with(vera)})
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("ending the own session is answered %d", resp.StatusCode)
	}
	r.want(http.StatusUnauthorized, call{method: "GET", path: "/api/v1/me", header: r.with(vera)})

	r.want(http.StatusNoContent, call{method: "PATCH", path: "/api/v1/users/vera", token: admin, body: `{"role":"viewer"}`})
	r.want(http.StatusNoContent, call{method: "DELETE", path: "/api/v1/users/vera", token: admin})
	r.want(http.StatusNotFound, call{method: "DELETE", path: "/api/v1/users/vera", token: admin})
	if users := r.want(http.StatusOK, call{method: "GET", path: "/api/v1/users", token: admin})["users"].([]any); len(users) != 0 {
		t.Errorf("people are left: %v", users)
	}
}
