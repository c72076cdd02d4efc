package api_test

import (
	"bufio"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"telemetryhub/hub/access"
)

// FuzzRequests sends any request to any address: the hub may refuse it, but must not fail.
func FuzzRequests(f *testing.F) {
	for _, s := range []struct{ method, path, query, media, body string }{
		{"GET", "/api/v1/devices/pump/readings", "metric=a&from=2026-01-01&to=1766000000123&tz=Europe/Berlin&step=1d&agg=avg&format=csv", "", ""},
		{"GET", "/api/v1/devices/pump/readings", "format=ndjson&limit=3&version=1", "", ""},
		{"GET", "/api/v1/live/sse", "devices=a,b*&metrics=*&mode=all&after=x-1-2", "", ""},
		{"GET", "/api/v1/live/poll", "devices=a,b*&mode=all&after=x-1.y.2&wait=1ms&tick=-1", "", ""},
		{"GET", "/api/v1/latest", "device=p*&metric=a", "", ""},
		{"GET", "/api/v1/audit", "before=000001766000000-000001&limit=5", "", ""},
		{"POST", "/api/v1/devices", "", "application/json", `{"id":"x","labels":{"a":"b"},"position":{"lat":1,"lon":2}}`},
		{"PATCH", "/api/v1/devices/pump", "", "application/json", `{"name":"x","labels":{"a":""}}`},
		{"POST", "/api/v1/devices/pump/readings", "", "application/senml+json", `[{"bn":"x","n":"y","v":1}]`},
		{"POST", "/api/v1/devices/pump/readings", "", "application/cbor", "\xa1\x61a\x01"},
		{"POST", "/api/v1/tokens", "", "application/json", `{"kind":"enrolment","uses":3,"devices":["a*"],"expires":9e15}`},
		{"POST", "/api/v1/users", "", "application/json", `{"name":"a","role":"viewer"}`},
		{"POST", "/api/v1/login", "", "application/json", `{"name":"a","password":"b"}`},
		{"POST", "/api/v1/links/claim", "", "application/json", `{"link":"thl_","password":"b"}`},
	} {
		f.Add(s.method, s.path, s.query, s.media, s.body)
	}
	r := newRig(f)
	r.device("pump")
	f.Fuzz(func(t *testing.T, method, path, query, media, body string) {
		if !strings.HasPrefix(path, "/") || strings.ContainsAny(method, " \r\n\t") || method == "" {
			return
		}
		ctx := t.Context()
		if strings.Contains(path, "/live/") {
			ctx = cancelled(t) // it would go on for long or for ever
		}
		req := httptest.NewRequestWithContext(ctx, "GET", "/", strings.NewReader(body))
		req.Method, req.URL = method, &url.URL{Path: path, RawQuery: query}
		req.Header.Set("Content-Type", media)
		made, err := r.access.CreateToken(t.Context(), access.Local(), access.TokenSpec{Role: access.Admin})
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+made.Secret.Reveal())
		rec := httptest.NewRecorder()
		r.api.ServeHTTP(leaving{rec}, req)
		if rec.Code == http.StatusInternalServerError {
			t.Errorf("%s %q ? %q (%s) %q is answered %s", method, path, query, media, body, rec.Body)
		}
	})
}

// leaving is the side of net/http of a client that has left.
type leaving struct{ *httptest.ResponseRecorder }

func (leaving) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	ours, theirs := net.Pipe()
	return ours, bufio.NewReadWriter(bufio.NewReader(ours), bufio.NewWriter(ours)), theirs.Close()
}
