package dashboard

import (
	"compress/gzip"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// build is what Vite makes, in small.
func build() fstest.MapFS {
	script := strings.Repeat("console.log(1);", 100)
	return fstest.MapFS{
		"index.html":          {Data: []byte(`<script type="module" src="./assets/index-a1.js"></script><link rel="stylesheet" href="./assets/index-b2.css">`)},
		"welcome/index.html":  {Data: []byte(`<script defer src="../socket.io/socket.io.min.js"></script><script type="module" src="../assets/index-a1.js"></script>`)},
		"placeholder.html":    {Data: []byte("<p>make build</p>")},
		"assets/index-a1.js":  {Data: []byte(script)},
		"assets/index-b2.css": {Data: []byte("a{}")},
		"assets/index-a1.map": {Data: []byte("{}")},
		"notes.js":            {Data: []byte("not an asset")},
	}
}

func handler(t *testing.T, dist fstest.MapFS) *Handler {
	t.Helper()
	h, err := newHandler(dist)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(h http.Handler, method, target, accept string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	if accept != "" {
		r.Header.Set("Accept-Encoding", accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	var r io.Reader = resp.Body
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r)
		if err != nil {
			t.Fatal(err)
		}
		r = z
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFilesComeWithTheirTypeAndCaching(t *testing.T) {
	h := handler(t, build())
	for _, c := range []struct {
		path, kind, caching string
		status              int
	}{
		{"/", "text/html; charset=utf-8", "no-store", 200},
		{"/welcome/", "text/html; charset=utf-8", "no-store", 200},
		{"/assets/index-a1.js", "text/javascript; charset=utf-8", "public, max-age=31536000, immutable", 200},
		{"/assets/index-b2.css", "text/css; charset=utf-8", "public, max-age=31536000, immutable", 200},
		{"/assets/index-a1.map", "text/plain; charset=utf-8", "no-store", 404}, // not in the table of types
		{"/assets/", "text/plain; charset=utf-8", "no-store", 404},
		{"/assets/../notes.js", "text/plain; charset=utf-8", "no-store", 404},
		{"/notes.js", "text/plain; charset=utf-8", "no-store", 404},
		{"/index.html", "text/plain; charset=utf-8", "no-store", 404},
		{"/welcome/index.html", "text/plain; charset=utf-8", "no-store", 404},
		{"/placeholder.html", "text/plain; charset=utf-8", "no-store", 404},
	} {
		resp := ask(h, "GET", c.path, "")
		if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != c.kind || resp.Header.Get("Cache-Control") != c.caching {
			t.Errorf("%s is answered %d %s %s", c.path, resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header.Get("Cache-Control"))
		}
		if got := resp.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s may be sniffed: %q", c.path, got)
		}
	}
	if resp := ask(h, "POST", "/", ""); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST is answered %d", resp.StatusCode)
	}
}

func TestPolicyAllowsNothingInline(t *testing.T) {
	for _, path := range []string{"/", "/welcome/"} {
		got := ask(handler(t, build()), "GET", path, "").Header.Get("Content-Security-Policy")
		for _, part := range []string{"unsafe", "*", "http:", "https:", "data:", "blob:"} {
			if strings.Contains(got, part) {
				t.Errorf("the policy of %s has %s: %s", path, part, got)
			}
		}
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"} {
			if !strings.Contains(got, part) {
				t.Errorf("the policy of %s lacks %s: %s", path, part, got)
			}
		}
	}
}

func TestWelcomeWithoutItsSlashLeadsThereUnderAnyPrefix(t *testing.T) {
	resp := ask(handler(t, build()), "GET", "/welcome", "")
	if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != "welcome/" {
		t.Errorf("answered %d with the location %q", resp.StatusCode, got)
	}
}

func TestGzipOnlyWhereItIsTakenAndWorthIt(t *testing.T) {
	h := handler(t, build())
	for _, c := range []struct {
		path, accept, coding string
	}{
		{"/assets/index-a1.js", "gzip, br", "gzip"},
		{"/assets/index-a1.js", "br;q=1.0, gzip;q=0.5", "gzip"},
		{"/assets/index-a1.js", "gzip;q=0", ""},
		{"/assets/index-a1.js", "br", ""},
		{"/assets/index-a1.js", "", ""},
		{"/assets/index-b2.css", "gzip", ""},
	} {
		resp := ask(h, "GET", c.path, c.accept)
		if got := resp.Header.Get("Content-Encoding"); got != c.coding {
			t.Errorf("%s for %q comes as %q", c.path, c.accept, got)
		}
		if got, want := body(t, resp), string(build()[c.path[1:]].Data); got != want {
			t.Errorf("%s for %q has another content", c.path, c.accept)
		}
		head := ask(h, "HEAD", c.path, c.accept)
		if head.Header.Get("Content-Length") != resp.Header.Get("Content-Length") || body(t, &http.Response{Body: head.Body}) != "" {
			t.Errorf("HEAD %s differs", c.path)
		}
	}
}

func TestPlaceholderStandsInForTheBuild(t *testing.T) {
	resp := ask(handler(t, fstest.MapFS{"placeholder.html": build()["placeholder.html"]}), "GET", "/", "")
	if text := body(t, resp); resp.StatusCode != 200 || !strings.Contains(text, "make build") {
		t.Errorf("answered %d: %s", resp.StatusCode, text)
	}
	resp = ask(handler(t, fstest.MapFS{"placeholder.html": build()["placeholder.html"]}), "GET", "/welcome/", "")
	if text := body(t, resp); resp.StatusCode != http.StatusNotFound || !strings.Contains(text, "make build") {
		t.Errorf("/welcome/ is answered %d: %s", resp.StatusCode, text)
	}
	if _, err := newHandler(fstest.MapFS{}); err == nil {
		t.Error("a hub without any page starts")
	}
}

var reference = regexp.MustCompile(`(?:src|href)="([^"]*)"`)

// What is compiled in is the build, or the placeholder after a fresh clone; either must hold together.
func TestEveryReferenceOfThePagesIsServed(t *testing.T) {
	h, err := New()
	if err != nil {
		t.Fatal(err)
	}
	for name := range h.pages {
		checkPage(t, h, "/"+name)
	}
}

func checkPage(t *testing.T, h *Handler, page string) {
	t.Helper()
	text := body(t, ask(h, "GET", page, ""))
	base := &url.URL{Path: page}
	for _, m := range reference.FindAllStringSubmatch(text, -1) {
		target := m[1]
		if strings.HasPrefix(target, "/") || strings.Contains(target, ":") {
			t.Errorf("%s refers to %s, which is not relative, so the page would not work under a prefix", page, target)
		}
		there := base.JoinPath(target).Path
		if client, ok := strings.CutPrefix(there, "/socket.io/"); ok {
			if _, err := fs.Stat(SocketIO(), client); err != nil {
				t.Errorf("%s refers to %s: %v", page, target, err)
			}
		} else if strings.HasPrefix(target, ".") {
			if resp := ask(h, "GET", there, ""); resp.StatusCode != 200 {
				t.Errorf("%s refers to %s, which is answered %d", page, target, resp.StatusCode)
			}
		}
	}
	for _, what := range []string{"<style", "style=", " onload=", "https://"} {
		if strings.Contains(text, what) {
			t.Errorf("%s has %s, which its policy forbids", page, what)
		}
	}
	if regexp.MustCompile(`<script[^>]*>[^<]`).MatchString(text) {
		t.Errorf("%s has a script inline", page)
	}
}
