package api_test

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
	"telemetryhub/storage"
)

// fullLog is a log on a disk without room.
type fullLog struct{ storage.Log }

func (fullLog) Append(context.Context, []byte, storage.Position) (storage.Position, error) {
	return 0, storage.ErrFull
}

// readOnlyLog is a log on a disk that takes no writes any more.
type readOnlyLog struct{ storage.Log }

func (readOnlyLog) Append(context.Context, []byte, storage.Position) (storage.Position, error) {
	return 0, storage.ErrReadOnly
}

func TestReadyIsFalseWhenNothingCanBeAcknowledged(t *testing.T) {
	for name, change := range map[string]func(*hub.Stores){
		"full":      func(s *hub.Stores) { s.Log = fullLog{s.Log} },
		"read-only": func(s *hub.Stores) { s.Log = readOnlyLog{s.Log} },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(p *parts) {
				change(&p.stores)
				p.options.RequestTimeout = 300e6 // a full disk is waited for
			})
			admin := r.token(access.Admin)
			dev := r.device("pump")
			r.want(200, call{method: "GET", path: "/readyz"})
			resp, body := r.do(call{method: "POST", path: "/api/v1/devices/pump/readings", token: dev, body: `{"a":1}`})
			if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
				t.Errorf("readings are answered %d %s %v", resp.StatusCode, body, resp.Header)
			}
			r.until("/readyz", "", func(body string) bool { return strings.Contains(body, "cannot acknowledge") })
			r.want(503, call{method: "GET", path: "/readyz"})
			r.want(200, call{method: "GET", path: "/healthz"})
			if s := r.want(200, call{method: "GET", path: "/api/v1/status", token: admin}); s["ready"] != false || s["reason"] == "" {
				t.Errorf("the status is %v", s)
			}
			r.want(200, call{method: "GET", path: "/api/v1/devices", token: admin}) // reads go on
		})
	}
}

func TestReadyIsFalseWhileTheHubStops(t *testing.T) {
	r := newRig(t)
	dev := r.device("pump")
	r.stop()
	r.want(503, call{method: "GET", path: "/readyz"})
	r.want(503, call{method: "POST", path: "/api/v1/devices/pump/readings", token: dev, body: `{"a":1}`})
}

func TestStatusTellsWhereTheHubStands(t *testing.T) {
	r := newRig(t, func(p *parts) {
		p.options.Version, p.options.Plaintext, p.options.Fingerprint = "1.2.3", []string{"10.0.0.1:81"}, "sha256//x"
		p.options.Damage = func() []string { return []string{"log/1.bolt: a page is damaged"} }
	})
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	r.send("pump", dev, `{"a":1,"b":2}`)
	s := r.want(200, call{method: "GET", path: "/api/v1/status", token: viewer})
	if s["version"] != "1.2.3" || s["ready"] != true || s["devices"] != 1.0 || s["counts"].(map[string]any)["readings"] != 2.0 ||
		s["watermarks"].(map[string]any)["durable"].(float64) < 1 || len(s["plaintext"].([]any)) != 1 || len(s["damage"].([]any)) != 1 {
		t.Errorf("the status is %v", s)
	}
}

func TestMetricsAreForProgramsOnThisMachineAndThoseWithAToken(t *testing.T) {
	r := newRig(t, func(p *parts) {
		p.options.Figures = []api.Figure{{Name: "sockets_total", Help: "Sockets.", Counter: true, Labels: map[string]string{"socket": "device"},
			Value: func() float64 { return 7 }}}
	})
	viewer, dev := r.token(access.Viewer), r.device("pump")
	cursor, err := r.hub.OpenCursor(t.Context(), "mqtt")
	if err != nil {
		t.Fatal(err)
	}
	defer cursor.Close()
	resp, body := r.do(call{method: "GET", path: "/metrics"})
	if resp.StatusCode != 200 {
		t.Fatalf("a program on this machine is answered %d", resp.StatusCode)
	}
	for _, line := range []string{"hub_ready 1", `hub_sockets_total{socket="device"} 7`, "hub_devices 1", `hub_cursor_lag_seconds{cursor="mqtt"} 0`, "go_goroutines", "hub_build_info"} {
		if !strings.Contains(body, line) {
			t.Errorf("the figures have no line %s", line)
		}
	}
	for _, h := range []http.Header{
		{"X-Forwarded-For": {"192.0.2.1"}}, {"Forwarded": {"for=192.0.2.1"}}, {"Via": {"1.1 proxy"}}, {"X-Real-Ip": {"192.0.2.1"}},
	} {
		r.want(401, call{method: "GET", path: "/metrics", header: h})
		h.Set("Authorization", "Bearer "+viewer)
		if resp, _ := r.do(call{method: "GET", path: "/metrics", header: h}); resp.StatusCode != 200 {
			t.Errorf("a viewer is answered %d", resp.StatusCode)
		}
		h.Set("Authorization", "Bearer "+dev)
		r.want(403, call{method: "GET", path: "/metrics", header: h})
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", r.server.URL+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "rebound.example" // a page whose name was made to point at this machine
	resp, err = http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != 401 {
		t.Errorf("a page under another name is answered %d", resp.StatusCode)
	}
	// Left as it comes, nginx sends its own name of the hub as Host, and says nothing of whom it asks for.
	behind := newRig(t, func(p *parts) { p.options.PublicURL = &url.URL{Scheme: "https", Host: "hub.example"} })
	behind.want(401, call{method: "GET", path: "/metrics"})
	trusting := newRig(t, func(p *parts) { p.options.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	trusting.want(401, call{method: "GET", path: "/metrics"})
}

func TestMetricsDoNotGrowWithWhatClientsSend(t *testing.T) {
	r := newRig(t)
	admin := r.token(access.Admin)
	r.do(call{method: "GET", path: "/nothing"})
	r.do(call{method: "BREW", path: "/healthz"})
	r.do(call{method: "GET", path: "/api/v1/devices/x", token: admin})
	r.do(call{method: "GET", path: "/metrics"})
	_, before := r.do(call{method: "GET", path: "/metrics"})
	for i := range 200 {
		id := device.ID("d" + itoa(i))
		if _, err := r.hub.AddDevice(t.Context(), id, hub.DeviceAttrs{}); err != nil {
			t.Fatal(err)
		}
		r.do(call{method: "GET", path: "/nothing/" + itoa(i)})
		r.do(call{method: "M" + itoa(i), path: "/healthz"})
		r.do(call{method: "GET", path: "/api/v1/devices/x" + itoa(i), token: admin})
	}
	_, after := r.do(call{method: "GET", path: "/metrics"})
	if n, m := strings.Count(before, "\n"), strings.Count(after, "\n"); m > n {
		t.Errorf("%d lines became %d", n, m)
	}
}

func TestRequestsAreCountedByRouteMethodAndStatus(t *testing.T) {
	r := newRig(t)
	viewer := r.token(access.Viewer)
	const path = "/api/v1/live/poll?wait=0"
	resp, _ := r.do(call{method: "GET", path: path, token: viewer})
	known := bearerOf(viewer)
	known.Set("If-None-Match", resp.Header.Get("Etag"))
	for range 2 {
		r.do(call{method: "GET", path: path, header: known})
		r.do(call{method: "GET", path: path})
		r.do(call{method: "HEAD", path: path, token: viewer})
	}
	_, body := r.do(call{method: "GET", path: "/metrics"})
	for labels, n := range map[string]int{
		`code="2xx",method="GET"`: 1, `code="3xx",method="GET"`: 2, `code="4xx",method="GET"`: 2, `code="2xx",method="HEAD"`: 2,
	} {
		if line := fmt.Sprintf("hub_http_requests_total{%s,route=\"GET /api/v1/live/poll\"} %d\n", labels, n); !strings.Contains(body, line) {
			t.Errorf("there is no %s", line)
		}
	}
}

func TestHistoryIsFlushedOnRequest(t *testing.T) {
	r := newRig(t)
	dev := r.device("pump")
	r.send("pump", dev, `{"t":1766000000123,"v":{"a":1}}`)
	r.want(204, call{method: "POST", path: "/api/v1/flush", token: r.token(access.Admin)})
}
