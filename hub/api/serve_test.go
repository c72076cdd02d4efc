package api_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
)

func TestErrorsAreProblemDocuments(t *testing.T) {
	r := newRig(t)
	admin := r.token(access.Admin)
	r.device("pump")
	json := http.Header{"Content-Type": {"application/json"}}
	for _, c := range []struct {
		call
		status int
		detail string // a part of what it must say
	}{
		{call{method: "GET", path: "/nothing"}, 404, "openapi.json"},
		{call{method: "PUT", path: "/api/v1/devices", token: admin}, 405, "GET, HEAD, POST"},
		{call{method: "BREW", path: "/healthz"}, 405, "GET, HEAD"},
		{call{method: "GET", path: "/api/v1/devices"}, 401, "Authorization: Bearer"},
		{call{method: "GET", path: "/api/v1/devices", token: "tha_00"}, 401, "mistyped"},
		{call{method: "POST", path: "/api/v1/devices", token: r.token(access.Viewer), body: `{"id":"x"}`}, 403, "needs the role admin"},
		{call{method: "GET", path: "/api/v1/devices/none", token: admin}, 404, "GET /api/v1/devices"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings?metric=none", token: admin}, 404, "never sent or declared"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings", token: admin}, 422, "metric=temperature"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings?metric=a&from=noon", token: admin}, 422, "RFC 3339"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings?metric=a&from=2&to=1", token: admin}, 422, "swap"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings?metric=a&tz=Mars", token: admin}, 422, "IANA"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings?metric=a&step=5x", token: admin}, 422, "5m"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings?metric=a&agg=avg", token: admin}, 422, "step"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings?metric=a&limit=-1", token: admin}, 422, "limit"},
		{call{method: "GET", path: "/api/v1/devices/pump/readings?metrik=a", token: admin}, 422, "metrik"},
		{call{method: "GET", path: "/api/v1/live/sse?device=a", token: admin}, 422, "devices, metrics, mode, after"},
		{call{method: "GET", path: "/api/v1/live/sse?mode=some", token: admin}, 422, "latest or all"},
		{call{method: "POST", path: "/api/v1/devices", token: admin, body: `{"id":"Pump 1"}`}, 422, "a-z 0-9"},
		{call{method: "POST", path: "/api/v1/devices", token: admin, body: `{"id":"pump"}`}, 409, "exists already"},
		{call{method: "POST", path: "/api/v1/devices", token: admin, body: `{"id":"a","colour":"red"}`}, 422, "colour"},
		{call{method: "POST", path: "/api/v1/devices", token: admin, body: `{"id":`}, 400, "body"},
		{call{method: "POST", path: "/api/v1/devices", token: admin, body: `{"id":"a"} {}`}, 400, "body"},
		{call{method: "POST", path: "/api/v1/devices", token: admin, body: "id: a", header: http.Header{"Content-Type": {"text/yaml"}}}, 415, "text/yaml"},
		{call{method: "POST", path: "/api/v1/devices", token: admin, header: json}, 400, "no body"},
		{call{method: "POST", path: "/api/v1/devices", token: admin, body: "x", header: http.Header{"Content-Encoding": {"gzip"}}}, 415, "gzip"},
		{call{method: "POST", path: "/api/v1/tokens", token: admin, body: `{"role":"king"}`}, 422, "role"},
		{call{method: "POST", path: "/api/v1/tokens", token: admin, body: `{"kind":"device","device":"none"}`}, 404, "no device"},
		{call{method: "DELETE", path: "/api/v1/tokens/none", token: admin}, 404, "not found"},
		{call{method: "POST", path: "/api/v1/links/claim", body: `{"link":"thl_none"}`}, 403, "not valid any more"},
		{call{method: "POST", path: "/api/v1/login", body: `{"name":"nobody","password":"none"}`}, 401, "wrong name or password"},
		{call{method: "POST", path: "/api/v1/devices/pump/readings", token: admin, body: `{"m":"data"}`}, 422, "WebSocket"},
		{call{method: "POST", path: "/api/v1/devices/pump/readings", token: admin, header: json}, 400, "no body"},
		{call{method: "POST", path: "/api/v1/devices/none/readings", token: admin, body: `{"a":1}`}, 404, "no device"},
		{call{method: "POST", path: "/api/v1/devices/pump/readings", token: admin, body: "a", header: http.Header{"Content-Type": {"text/csv"}}}, 415, "application/cbor"},
	} {
		v := r.want(c.status, c.call)
		if detail, _ := v["detail"].(string); !strings.Contains(strings.ToLower(detail), strings.ToLower(c.detail)) {
			t.Errorf("%s %s %s: %q does not say %q", c.method, c.path, c.body, detail, c.detail)
		}
	}
}

func TestProblemsDoNotEchoSecrets(t *testing.T) {
	r := newRig(t)
	const secret = "hunter2-hunter2-hunter2"
	for _, body := range []string{
		`{"name":"a","password":"` + secret + strings.Repeat("x", 2000) + `"}`, `{"name":"a","password":"` + secret + `","more":1}`,
		`{"name":5,"password":"` + secret + `"}`, `{"password":"` + secret + `"`, `["` + secret + `"]`,
	} {
		if _, answer := r.do(call{method: "POST", path: "/api/v1/login", body: body}); strings.Contains(answer, secret) {
			t.Errorf("the answer repeats the password: %s", answer)
		}
	}
}

func TestPanicsAreAnsweredAndSurvived(t *testing.T) {
	logs := newLogBuffer()
	r := newRig(t, func(p *parts) { p.options.Logger = logs.logger() })
	a, err := api.New(api.Options{Hub: r.hub, Access: r.access, Logger: logs.logger()})
	if err != nil {
		t.Fatal(err)
	}
	boom := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") })
	late := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 10_000))
		panic("too late")
	})
	a.Mount(boom, late)
	r.server.Config.Handler = a
	r.want(http.StatusInternalServerError, call{method: "GET", path: "/device/v1"})
	resp, err := http.Get(r.server.URL + "/api/v1/live")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("an answer that was cut off by a panic looks whole: %d bytes", len(body))
	}
	r.want(http.StatusOK, call{method: "GET", path: "/healthz"})
	if !strings.Contains(logs.String(), "boom") {
		t.Error("the panic is not in the log")
	}
}

func TestEveryAnswerHasTheSecurityHeaders(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.HSTS = true })
	for _, path := range []string{"/", "/healthz", "/nothing", "/api/openapi.json", "/api/v1/devices", "/metrics"} {
		resp, _ := r.do(call{method: "GET", path: path})
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cache-Control": "no-store",
		} {
			if got := resp.Header.Get(name); !strings.HasPrefix(got, want) {
				t.Errorf("GET %s: %s is %q, want %q", path, name, got, want)
			}
		}
		if got := resp.Header.Get("Strict-Transport-Security"); got != "" {
			t.Errorf("GET %s: HSTS is sent without TLS: %q", path, got)
		}
		if strings.Contains(resp.Header.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("GET %s: the policy allows what is unsafe", path)
		}
	}
	behind := newRig(t, func(p *parts) {
		p.options.HSTS, p.options.PublicURL = true, &url.URL{Scheme: "https", Host: "hub.example"}
	})
	if resp, _ := behind.do(call{method: "GET", path: "/healthz"}); resp.Header.Get("Strict-Transport-Security") == "" {
		t.Error("HSTS is not sent behind a proxy with TLS")
	}
}

// browserHeaders are those that tell a browser what it may do with an answer.
var browserHeaders = []string{"X-Content-Type-Options", "Content-Security-Policy", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Resource-Policy", "Cross-Origin-Opener-Policy"}

func TestPollsWithATokenAreAnsweredWithoutHeadersForBrowsers(t *testing.T) {
	r := newRig(t)
	token, cookie := bearerOf(r.token(access.Viewer)), r.with(r.person("vera", access.Viewer))
	for _, c := range []struct {
		call
		status int
		all    bool
	}{
		{call{method: "GET", path: "/api/v1/live/poll?wait=0", header: token}, 200, false},
		{call{method: "HEAD", path: "/api/v1/live/poll?wait=0", header: token}, 200, false},
		{call{method: "GET", path: "/api/v1/live/poll?wait=x", header: token}, 422, false},
		{call{method: "GET", path: "/api/v1/live/poll?wait=0", header: bearerOf("nobody's")}, 401, false},
		{call{method: "GET", path: "/api/v1/live/poll?wait=0", header: cookie}, 200, true},
		{call{method: "GET", path: "/api/v1/live/poll?wait=0"}, 401, true},
		{call{method: "POST", path: "/api/v1/live/poll", header: token}, 405, true},
		{call{method: "GET", path: "/api/v1/latest", header: token}, 200, true},
	} {
		resp, _ := r.do(c.call)
		if resp.StatusCode != c.status || resp.Header.Get("Cache-Control") == "" {
			t.Errorf("%s %s: %s %v", c.method, c.path, resp.Status, resp.Header)
		}
		for _, name := range browserHeaders {
			if got := resp.Header.Get(name); (got != "") != c.all {
				t.Errorf("%s %s: %s is %q", c.method, c.path, name, got)
			}
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	r := newRig(t)
	token := r.device("pump")
	path := "/api/v1/devices/pump/readings"
	whole := `{"text":"` + strings.Repeat("x", 4000) + `"` + strings.Repeat(" ", 64<<10-4012) + `}`
	if len(whole) > 64<<10 {
		t.Fatalf("the largest body has %d bytes", len(whole))
	}
	r.want(http.StatusNoContent, call{method: "POST", path: path, token: token, body: whole})
	v := r.want(http.StatusRequestEntityTooLarge, call{method: "POST", path: path, token: token, body: whole + strings.Repeat(" ", 100)})
	if detail, _ := v["detail"].(string); !strings.Contains(detail, "65536") {
		t.Errorf("the answer to a large body is %v", v)
	}

	// A body that says that it is large, and one that does not say but is.
	for _, header := range []string{"Content-Length: 10737418240", "Transfer-Encoding: chunked"} {
		conn := dial(t, r)
		_, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer "+token+
			"\r\nContent-Type: application/json\r\n"+header+"\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		sent := flood(conn, header)
		status, err := io.ReadAll(conn)
		if sent > 8<<20 || err == nil && !strings.HasPrefix(string(status), "HTTP/1.1 413") {
			t.Errorf("%s: %d bytes were taken and answered %.20q", header, sent, status)
		}
		conn.Close()
	}
}

// flood writes until the other side closes or has taken 16 MiB.
func flood(w io.Writer, header string) (sent int) {
	block := []byte(strings.Repeat(" ", 64<<10))
	if strings.HasPrefix(header, "Transfer") {
		block = []byte("10000\r\n" + string(block) + "\r\n")
	}
	for sent < 16<<20 {
		n, err := w.Write(block)
		sent += n
		if err != nil {
			return sent
		}
	}
	return sent
}

func dial(t *testing.T, r *rig) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", r.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestABodyThatNeverComesIsGivenUp(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.BodyTimeout = 50 * time.Millisecond })
	conn := dial(t, r)
	_, err := io.WriteString(conn, "POST /api/v1/login HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
	if err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408") {
		t.Errorf("the answer is %q, %v", answer, err)
	}
}

func TestProxiesAreBelievedOnlyWhenNamed(t *testing.T) {
	login := func(r *rig, from string) int {
		resp, _ := r.do(call{method: "POST", path: "/api/v1/login", body: `{"name":"ada","password":"wrong wrong wrong"}`,
			header: http.Header{"X-Forwarded-For": {from}}})
		return resp.StatusCode
	}
	// One source runs into its throttle however it calls itself…
	r := newRig(t)
	last := 0
	for i := range 40 {
		last = login(r, netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}).String())
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("guesses with forged addresses are answered %d", last)
	}
	// …and behind a proxy that is trusted, sources are told apart, by what the nearest trusted hop saw.
	trusted := newRig(t, func(p *parts) { p.options.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	for range 40 {
		last = login(trusted, "1.2.3.4, 10.0.0.1")
	}
	if last != http.StatusTooManyRequests {
		t.Errorf("guesses of one source behind a proxy are answered %d", last)
	}
	resp, _ := trusted.do(call{method: "POST", path: "/api/v1/login", body: `{"name":"eve","password":"wrong wrong wrong"}`,
		header: http.Header{"X-Forwarded-For": {"1.2.3.4, 10.0.0.2"}}})
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("another source behind the proxy is answered %d", resp.StatusCode)
	}
}

func TestRequestsThatAreCancelledLeaveNothingBehind(t *testing.T) {
	r := newRig(t)
	token := r.token(access.Admin)
	dev := r.device("pump")
	for i := range 200 {
		r.send("pump", dev, `{"t":`+itoa(1_766_000_000_000+i)+`,"v":{"temperature":`+itoa(i)+`}}`)
	}
	for i := range 100 {
		ctx, cancel := context.WithCancel(t.Context())
		path := []string{"/api/v1/live/sse", "/api/v1/devices/pump/readings?format=ndjson", "/api/v1/devices"}[i%3]
		req, err := http.NewRequestWithContext(ctx, "GET", r.server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		if i%2 == 0 {
			time.AfterFunc(time.Duration(i)*10*time.Microsecond, cancel)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			var one [1]byte
			_, _ = resp.Body.Read(one[:]) // whatever it says, the stream is left in the middle
			resp.Body.Close()
		}
		cancel()
	}
	r.want(http.StatusOK, call{method: "GET", path: "/healthz"})
}

func TestLogsHoldNoSecrets(t *testing.T) {
	logs := newLogBuffer()
	r := newRig(t, func(p *parts) { p.options.Logger = logs.logger(); p.hub.Logger = logs.logger() })
	admin := r.token(access.Admin)
	secrets := []string{admin}
	put := func(name string) string {
		s := "canary-" + name + "-Zq8vN3kT"
		secrets = append(secrets, s)
		return s
	}
	for _, c := range []call{
		{method: "GET", path: "/api/v1/devices", token: put("bearer")},
		{method: "GET", path: "/api/v1/devices?token=" + put("query"), token: admin},
		{method: "GET", path: "/" + put("path")},
		{method: "GET", path: "/api/v1/devices/" + strings.ToLower(put("device")), token: admin},
		{method: "GET", path: "/api/v1/devices", header: http.Header{"Cookie": {r.access.CookieName(false) + "=" + put("cookie")}}},
		{method: "GET", path: "/api/v1/devices", header: http.Header{"Authorization": {"Basic " + put("basic")}}},
		{method: "POST", path: "/api/v1/login", body: `{"name":"` + put("name") + `","password":"` + put("password") + `"}`},
		{method: "POST", path: "/api/v1/login", body: `{"name":"` + put("broken")},
		{method: "POST", path: "/api/v1/links/claim", body: `{"link":"` + put("link") + `","password":"` + put("new") + `"}`},
		{method: "POST", path: "/api/v1/enrol", token: put("enrol"), body: `{"device":"a"}`},
		{method: put("METHOD"), path: "/healthz"},
	} {
		r.do(c)
	}
	made := r.want(http.StatusCreated, call{method: "POST", path: "/api/v1/devices", token: admin, body: `{"id":"pump"}`})
	secrets = append(secrets, made["token"].(string))
	user := r.want(http.StatusCreated, call{method: "POST", path: "/api/v1/users", token: admin, body: `{"name":"vera"}`})
	link := user["link"].(map[string]any)["link"].(string)
	secrets = append(secrets, link, "a long new password")
	resp, _ := r.do(call{method: "POST", path: "/api/v1/links/claim", body: `{"link":"` + link + `","password":"a long new password"}`})
	secrets = append(secrets, resp.Cookies()[0].Value)

	text := logs.String()
	if !strings.Contains(text, "route=") {
		t.Fatal("requests are not logged at level debug")
	}
	for _, s := range secrets {
		if strings.Contains(text, s) || strings.Contains(text, strings.ToLower(s)) {
			t.Errorf("the log holds %q", s)
		}
	}
}
