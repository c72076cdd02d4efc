package api_test

import (
	"encoding/json"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"telemetryhub/hub/access"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestTheDocumentListsEveryRouteAndIsWhole(t *testing.T) {
	r := newRig(t, func(p *parts) { p.options.Version = "0.0.0" })
	resp, text := r.do(call{method: "GET", path: "/api/openapi.json"})
	if got := resp.Header.Get("Content-Type"); !strings.HasPrefix(got, "application/vnd.oai.openapi+json") {
		t.Errorf("it comes as %s", got)
	}
	var doc map[string]any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if doc["openapi"] != "3.1.0" {
		t.Errorf("it is of version %v", doc["openapi"])
	}
	paths := doc["paths"].(map[string]any)
	files := []string{"GET /{$}", "GET /assets/{file}", "GET /welcome", "GET /welcome/{$}", "GET /public/{path...}", "GET /api/openapi.json",
		"GET /api/openapi.yaml", "GET /api/live.schema.json", "GET /api/asyncapi.yaml"}
	for _, route := range r.api.Routes() {
		method, path, _ := strings.Cut(route, " ")
		item, _ := paths[path].(map[string]any)
		op, _ := item[strings.ToLower(method)].(map[string]any)
		if op == nil {
			if !slices.Contains(files, route) {
				t.Errorf("%s is not in it", route)
			}
			continue
		}
		if id, _ := op["operationId"].(string); id == "" || op["summary"] == "" || len(op["responses"].(map[string]any)) == 0 {
			t.Errorf("%s is not described: %v", route, op)
		}
		for _, name := range strings.Split(path, "/") {
			if name, ok := strings.CutPrefix(name, "{"); ok && !strings.Contains(toJSON(t, op["parameters"]), `"name":"`+strings.TrimSuffix(name, "}")+`"`) {
				t.Errorf("%s does not describe %s", route, name)
			}
		}
	}
	walkRefs(doc, func(ref string) {
		var at any = doc
		for _, step := range strings.Split(strings.TrimPrefix(ref, "#/"), "/") {
			m, _ := at.(map[string]any)
			at = m[step]
		}
		if at == nil {
			t.Errorf("%s leads nowhere", ref)
		}
	})

	name := filepath.Join("testdata", "openapi.json")
	cookie := r.access.CookieName(true)
	text = strings.ReplaceAll(text, cookie, "__Host-hub-00000000")
	if *update {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(golden) {
		t.Errorf("it differs from %s: look at the difference after go test ./hub/api -update", name)
	}

	_, asYAML := r.do(call{method: "GET", path: "/api/openapi.yaml"})
	var same map[string]any
	if err := yaml.Unmarshal([]byte(asYAML), &same); err != nil || len(same["paths"].(map[string]any)) != len(paths) {
		t.Errorf("the document in YAML is another: %v", err)
	}
}

func TestTheDocumentHasTheStatusesThatCome(t *testing.T) {
	r := newRig(t)
	admin, viewer := r.token(access.Admin), r.token(access.Viewer)
	r.device("pump")
	paths := r.want(http.StatusOK, call{method: "GET", path: "/api/openapi.json"})["paths"].(map[string]any)
	large := `{"name":"` + strings.Repeat("x", 40<<10) + `"}`
	for _, c := range []struct {
		status int
		path   string // as in the document
		call
	}{
		{404, "/api/v1/audit", call{method: "GET", path: "/api/v1/audit?before=x", token: admin}},
		{422, "/api/v1/devices", call{method: "GET", path: "/api/v1/devices?x=1", token: admin}},
		{422, "/healthz", call{method: "GET", path: "/healthz?x=1"}},
		{413, "/api/v1/login", call{method: "POST", path: "/api/v1/login", body: large}},
		{415, "/api/v1/login", call{method: "POST", path: "/api/v1/login", body: "a", header: http.Header{"Content-Type": {"text/plain"}}}},
		{413, "/api/v1/devices", call{method: "POST", path: "/api/v1/devices", token: admin, body: large}},
		{200, "/api/v1/devices/{id}/readings", call{method: "POST", path: "/api/v1/devices/pump/readings", token: admin, body: `{"a":1,"b c":2}`}},
		{401, "/api/v1/live/sse", call{method: "GET", path: "/api/v1/live/sse"}},
		{422, "/api/v1/live/sse", call{method: "GET", path: "/api/v1/live/sse?mode=x", token: viewer}},
		{401, "/metrics", call{method: "GET", path: "/metrics", header: http.Header{"Via": {"1.1 proxy"}}}},
	} {
		resp, body := r.do(c.call)
		if resp.StatusCode != c.status {
			t.Errorf("%s %s is answered %d %s, want %d", c.method, c.call.path, resp.StatusCode, body, c.status)
		}
		op := paths[c.path].(map[string]any)[strings.ToLower(c.method)].(map[string]any)
		if op["responses"].(map[string]any)[itoa(c.status)] == nil {
			t.Errorf("the document says nothing of %d at %s %s", c.status, c.method, c.path)
		}
	}
}

func toJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func walkRefs(v any, yield func(string)) {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			if ref, ok := item.(string); ok && k == "$ref" {
				yield(ref)
				continue
			}
			walkRefs(item, yield)
		}
	case []any:
		for _, item := range v {
			walkRefs(item, yield)
		}
	}
}

func TestThePageIsOpenAndSetsItsOwnHeaders(t *testing.T) {
	r := newRig(t, func(p *parts) {
		p.options.Page = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", "script-src 'self'")
			w.Header().Set("Cache-Control", "immutable")
			_, _ = w.Write([]byte("page at " + r.URL.Path))
		})
	})
	for _, path := range []string{"/", "/welcome", "/welcome/", "/assets/index-a1.js"} {
		resp, body := r.do(call{method: "GET", path: path})
		if resp.StatusCode != 200 || body != "page at "+path {
			t.Errorf("%s is answered %d %s", path, resp.StatusCode, body)
		}
		if got := resp.Header.Get("Content-Security-Policy") + resp.Header.Get("Cache-Control"); got != "script-src 'self'immutable" {
			t.Errorf("%s has the headers %s", path, got)
		}
		if resp.Header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s may be framed", path)
		}
	}
	for _, path := range []string{"/assets/", "/assets/a/b.js", "/index.html", "/welcome/index.html"} {
		r.want(http.StatusNotFound, call{method: "GET", path: path})
	}
	r = newRig(t)
	r.want(http.StatusNotFound, call{method: "GET", path: "/"})
}
