package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
	"telemetryhub/hub/ws/door"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a hub in memory with its API on a server of its own.
type rig struct {
	t      testing.TB
	hub    *hub.Hub
	access *access.Registry
	api    *api.API
	server *httptest.Server
	stop   func() // stops the hub and waits for it
}

// parts are what a test may exchange before the rig is built.
type parts struct {
	stores  hub.Stores
	options api.Options
	hub     hub.Options
	catalog storage.Catalog // of the access registry
	noDoor  bool            // polls stay with net/http, as they do under TLS
}

// noDoor is what newRig begins with, see parts.
var noDoor bool

func newRig(t testing.TB, change ...func(*parts)) *rig {
	t.Helper()
	p := parts{stores: hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}}
	p.noDoor = noDoor
	for _, c := range change {
		c(&p)
	}
	if p.catalog == nil {
		p.catalog = p.stores.Catalog
	}
	h, err := hub.Open(t.Context(), p.stores, p.hub)
	if err != nil {
		t.Fatal(err)
	}
	reg, err := access.Open(t.Context(), p.catalog, access.Options{Hash: access.HashCost{KiB: 8, Passes: 1}, Logger: p.options.Logger})
	if err != nil {
		t.Fatal(err)
	}
	p.options.Hub, p.options.Access = h, reg
	if !p.noDoor {
		if p.options.Return == nil {
			p.options.Return = door.Return
		}
		if p.options.Admit == nil {
			p.options.Admit = door.Admit
		}
	}
	a, err := api.New(p.options)
	if err != nil {
		t.Fatal(err)
	}
	probe := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { probeSocket(a, w, r) })
	a.Mount(probe, probe)
	r := &rig{t: t, hub: h, access: reg, api: a, server: httptest.NewUnstartedServer(a)}
	if !p.noDoor {
		d, err := door.New(r.server.Listener, door.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r.server.Listener, r.server.Config = d, d.Server(a)
	}
	r.server.Start()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the hub stopped with %v", err)
		}
	})
	t.Cleanup(func() {
		r.server.CloseClientConnections()
		r.server.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		r.stop()
		if err := a.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// probeSocket stands in for the sockets: it tells who asks.
func probeSocket(a *api.API, w http.ResponseWriter, r *http.Request) {
	id, err := a.Authenticate(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	_, _ = io.WriteString(w, string(id.Kind))
}

// call is one request.
type call struct {
	method, path string
	token        string
	body         string
	header       http.Header
}

// do sends a request and returns the answer with its whole body.
func (r *rig) do(c call) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), c.method, r.server.URL+c.path, strings.NewReader(c.body))
	if err != nil {
		r.t.Fatal(err)
	}
	if c.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for k, v := range c.header {
		req.Header[k] = v
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", c.method, c.path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: read the answer: %v", c.method, c.path, err)
	}
	return resp, string(body)
}

// want sends a request, checks the status, and returns the answer decoded as JSON.
func (r *rig) want(status int, c call) map[string]any {
	r.t.Helper()
	resp, body := r.do(c)
	if resp.StatusCode != status {
		r.t.Fatalf("%s %s: got %d %s, want %d", c.method, c.path, resp.StatusCode, body, status)
	}
	if body == "" {
		return nil
	}
	var v map[string]any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		r.t.Fatalf("%s %s: %v in %s", c.method, c.path, err, body)
	}
	if status >= 400 {
		checkProblem(r.t, c.method+" "+c.path, resp, v)
	}
	return v
}

// checkProblem checks that an answer is a problem document that says something.
func checkProblem(t testing.TB, what string, resp *http.Response, v map[string]any) {
	t.Helper()
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("%s: an error comes as %q", what, got)
	}
	detail, _ := v["detail"].(string)
	if status, _ := v["status"].(float64); int(status) != resp.StatusCode || v["title"] != http.StatusText(resp.StatusCode) || len(detail) < 15 {
		t.Errorf("%s: the problem document is %v", what, v)
	}
}

// token makes an API token.
func (r *rig) token(role access.Role, devices ...string) string {
	r.t.Helper()
	made, err := r.access.CreateToken(r.t.Context(), access.Local(), access.TokenSpec{Role: role, Devices: devices})
	if err != nil {
		r.t.Fatal(err)
	}
	return made.Secret.Reveal()
}

// device adds a device and returns its token.
func (r *rig) device(id device.ID) string {
	r.t.Helper()
	if _, err := r.hub.AddDevice(r.t.Context(), id, hub.DeviceAttrs{}); err != nil {
		r.t.Fatal(err)
	}
	made, err := r.access.CreateDeviceToken(r.t.Context(), access.Local(), id, access.TokenSpec{})
	if err != nil {
		r.t.Fatal(err)
	}
	return made.Secret.Reveal()
}

// person makes an account with a password and returns its cookie.
func (r *rig) person(name string, role access.Role) *http.Cookie {
	r.t.Helper()
	ctx := r.t.Context()
	if _, err := r.access.CreateUser(ctx, access.Local(), name, role); err != nil {
		r.t.Fatal(err)
	}
	link, err := r.access.UserLink(ctx, access.Local(), name, access.SetPassword)
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := r.access.ClaimLink(ctx, access.ClaimRequest{Secret: link.Secret, Password: access.NewSecret(goodPassword)})
	if err != nil {
		r.t.Fatal(err)
	}
	return r.access.SetCookie(s, false)
}

const goodPassword = "correct horse battery"

// send stores readings by hand as the device itself.
func (r *rig) send(id, token, body string) {
	r.t.Helper()
	r.want(http.StatusNoContent, call{method: "POST", path: "/api/v1/devices/" + id + "/readings", token: token, body: body})
}

// until asks until the answer is as it should be: what is on disk is shown a moment later.
func (r *rig) until(path, token string, good func(body string) bool) string {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 10_000 {
		if _, body := r.do(call{method: "GET", path: path, token: token}); good(body) {
			return body
		}
		<-tick.C
	}
	r.t.Fatalf("GET %s did not come to what it should", path)
	return ""
}

func itoa(i int) string { return strconv.Itoa(i) }

// logBuffer collects a log. Its writes come from many goroutines.
type logBuffer struct {
	mu  chan struct{}
	buf bytes.Buffer
}

func newLogBuffer() *logBuffer { return &logBuffer{mu: make(chan struct{}, 1)} }

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu <- struct{}{}
	defer func() { <-b.mu }()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu <- struct{}{}
	defer func() { <-b.mu }()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
