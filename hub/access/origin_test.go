package access_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"telemetryhub/hub/access"
)

func TestOriginOfASessionMustBeOursOrAllowed(t *testing.T) {
	proxied := must[access.Origins](t)(access.ParseOrigins("https://Hub.Example.org/base/",
		[]string{"https://grafana.example:3000"}))
	plain := must[access.Origins](t)(access.ParseOrigins("", nil))
	type request = access.OriginRequest
	post := func(host string, origin ...string) request {
		return request{Method: "POST", Host: host, Origin: origin}
	}
	tls := func(host string, origin ...string) request {
		return request{Method: "POST", Host: host, TLS: true, Origin: origin}
	}
	upgrade := func(host string, origin ...string) request {
		return request{Method: "GET", Upgrade: true, Host: host, Origin: origin}
	}
	for _, tc := range []struct {
		name     string
		rule     access.Origins
		req      request
		session  bool // may a session do it?
		openRule bool // may it log in?
	}{
		{"plain GET", plain, request{Method: "GET", Host: "h:8080"}, true, true},
		{"GET from elsewhere reads nothing", plain, request{Method: "GET", Host: "h", Origin: []string{"https://evil"}}, true, false},
		{"upgrade without Origin", plain, upgrade("h"), false, true},
		{"upgrade from elsewhere", plain, upgrade("h", "http://evil"), false, false},
		{"upgrade from here", plain, upgrade("h", "http://h"), true, true},
		{"POST without Origin", plain, request{Method: "POST", Host: "h"}, false, true},
		{"HEAD without Origin", plain, request{Method: "HEAD", Host: "h"}, false, true},
		{"OPTIONS without Origin", plain, request{Method: "OPTIONS", Host: "h"}, false, true},
		{"get in lower case is no GET", plain, request{Method: "get", Host: "h"}, false, true},
		{"no method", plain, request{Host: "h"}, false, true},
		{"POST from here", plain, post("h:8080", "http://h:8080"), true, true},
		{"POST from here over TLS", plain, tls("h:8443", "https://h:8443"), true, true},
		{"default port left out here", plain, post("h:80", "http://h"), true, true},
		{"default port left out there", plain, tls("h", "https://h:443"), true, true},
		{"default port of the other scheme", plain, post("h:443", "http://h"), false, false},
		{"upper case", plain, post("HUB.local", "HTTP://Hub.LOCAL"), true, true},
		{"IPv6", plain, post("[::1]:8080", "http://[::1]:8080"), true, true},
		{"IPv6, default port", plain, post("[fd00::1]", "http://[fd00::1]:80"), true, true},
		{"other scheme", plain, tls("h", "http://h"), false, false},
		{"other port", plain, post("h:8080", "http://h:8081"), false, false},
		{"null", plain, post("h", "null"), false, false},
		{"null host", plain, post("null", "null"), false, false},
		{"empty", plain, post("h", ""), false, false},
		{"empty host", plain, post("", "http://"), false, false},
		{"ours as a prefix", plain, tls("host", "https://host.evil"), false, false},
		{"ours as a suffix", plain, tls("host", "https://evilhost"), false, false},
		{"ours as the user", plain, post("host", "http://host@evil"), false, false},
		{"ours with a path", plain, post("host", "http://host/"), false, false},
		{"ours with a trailing dot", plain, post("host", "http://host."), false, false},
		{"ours twice", plain, post("h", "http://h", "http://h"), false, false},
		{"a list", plain, post("h", "http://h http://evil"), false, false},
		{"a letter that becomes ASCII", plain, post("k", "http://\u212a"), false, false},
		{"an extension", plain, post("h", "chrome-extension://h"), false, false},
		{"port zero", plain, post("h:0", "http://h:0"), false, false},
		{"port too large", plain, post("h:65536", "http://h:65536"), false, false},
		{"through the proxy", proxied, post("hub.example.org", "https://hub.example.org"), true, true},
		{"through a proxy that changes Host", proxied, post("127.0.0.1:8080", "https://hub.example.org:443"), true, true},
		{"around the proxy", proxied, post("10.0.0.5:8080", "http://10.0.0.5:8080"), true, true},
		{"public name without TLS", proxied, post("10.0.0.5:8080", "http://hub.example.org"), false, false},
		{"through the proxy, which is not known", plain, post("hub.example.org", "https://hub.example.org"), false, false},
		{"allowed", proxied, post("h", "https://Grafana.example:3000"), true, true},
		{"allowed, other port", proxied, post("h", "https://grafana.example"), false, false},
		{"zero rule, from here", access.Origins{}, post("h", "http://h"), true, true},
		{"zero rule, from elsewhere", access.Origins{}, post("h", "http://evil"), false, false},
	} {
		for check, want := range map[string]bool{"session": tc.session, "open": tc.openRule} {
			err := tc.rule.CheckSession(tc.req)
			if check == "open" {
				err = tc.rule.CheckOpen(tc.req)
			}
			if (err == nil) != want || err != nil && !errors.Is(err, access.ErrDenied) {
				t.Errorf("%s (%s): got %v, want allowed=%v", tc.name, check, err, want)
			}
		}
	}
}

func TestOriginSettingsAreChecked(t *testing.T) {
	for _, public := range []string{"hub.example.org", "https://", "ftp://x", "https://user@x", "https://x:99999",
		"https://*", "://x", "https://x y"} {
		_, err := access.ParseOrigins(public, nil)
		wantErr(t, "public URL "+public, err, access.ErrInvalid)
	}
	for _, allowed := range []string{"", "*", "null", "grafana.example", "https://x/", "https://x/path",
		"https://*.example", "https://x?y", "https://x#y"} {
		_, err := access.ParseOrigins("", []string{allowed})
		wantErr(t, "allowed origin "+allowed, err, access.ErrInvalid)
	}
}

func FuzzOrigin(f *testing.F) {
	f.Add("http://h", "h")
	f.Add("https://[::1]:443", "[::1]")
	f.Add("null", "null")
	f.Add("http://[", ":")
	f.Fuzz(func(t *testing.T, origin, host string) {
		req := access.OriginRequest{Method: "POST", Origin: []string{origin}, Host: host}
		if (access.Origins{}).CheckSession(req) == nil {
			// Whatever is accepted is what a browser would call the same place.
			back, err := http.NewRequest(http.MethodGet, origin, nil)
			if err != nil || back.URL.Hostname() == "" || back.URL.User != nil || back.URL.Path != "" {
				t.Errorf("accepted %q for host %q", origin, host)
			}
		}
		_, _ = access.ParseOrigins(origin, []string{host}) // must not panic
	})
}

func TestCookieHasAllAttributes(t *testing.T) {
	r, catalog, c := fresh(t)
	s := person(t, r, "alice", access.Viewer)
	for _, tls := range []bool{false, true} {
		cookie := r.SetCookie(s, tls)
		if cookie.Value != s.Cookie.Reveal() || cookie.Secure != tls || !cookie.HttpOnly || cookie.Path != "/" ||
			cookie.Domain != "" || cookie.SameSite != http.SameSiteLaxMode || cookie.MaxAge != 365*24*3600 {
			t.Errorf("cookie %+v", cookie)
		}
		if err := cookie.Valid(); err != nil {
			t.Error(err)
		}
		req := httptest.NewRequest(http.MethodGet, "/", nil)
		if !r.CookieOf(req, tls).Empty() {
			t.Error("a cookie out of nothing")
		}
		req.AddCookie(cookie)
		if id, err := r.Session(r.CookieOf(req, tls)); err != nil || id.User != "alice" {
			t.Errorf("cookie of %+v, %v", id, err)
		}
		if !r.CookieOf(req, !tls).Empty() {
			t.Error("a cookie from without TLS counts with TLS, or the other way round")
		}
		if drop := r.DropCookie(tls); drop.MaxAge >= 0 || drop.Value != "" || drop.Name != cookie.Name || drop.Secure != tls {
			t.Errorf("drop cookie %+v", drop)
		}
	}
	again := open(t, catalog.Reopen(), access.Options{Now: c.Now})
	if again.CookieName(true) != r.CookieName(true) || again.CookieName(false) != r.CookieName(false) {
		t.Error("the cookie has another name after a restart")
	}
	c.move(time.Hour)
	if cookie := again.SetCookie(s, true); cookie.MaxAge != 365*24*3600-3600 {
		t.Errorf("an hour later: %d s", cookie.MaxAge)
	}
}
