package api_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestTheOwnersFilesAreServed(t *testing.T) {
	r := newRig(t, func(p *parts) {
		p.options.Public = fstest.MapFS{
			"index.html":       {Data: []byte("<title>mine</title>")},
			"sub/index.html":   {Data: []byte("sub")},
			"sub/page.js":      {Data: []byte("1")},
			"bare/file.txt":    {Data: []byte("text")},
			".secret":          {Data: []byte("secret")},
			"sub/.git/config":  {Data: []byte("secret")},
			"sub/.htaccess.js": {Data: []byte("secret")},
		}
	})
	for path, want := range map[string]string{
		"/public/": "mine", "/public/index.html": "mine", "/public/sub/": "sub", "/public/sub/page.js": "1", "/public/bare/file.txt": "text",
	} {
		resp, body := r.do(call{method: "GET", path: path})
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, want) || resp.Header.Get("Content-Security-Policy") != "" ||
			resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %s %v", path, resp.StatusCode, body, resp.Header)
		}
	}
	if resp, _ := r.do(call{method: "GET", path: "/public/sub"}); resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "sub/" {
		t.Errorf("a folder without a slash: %d %s", resp.StatusCode, resp.Header.Get("Location"))
	}
	for _, path := range []string{
		"/public/.secret", "/public/sub/.git/config", "/public/sub/.htaccess.js", "/public/bare/", "/public/none", "/public/%2e%2e/x",
		"/public/..%2f..%2fetc/passwd", "/public/sub%5c..%5c.secret", "/public/index.html/x",
	} {
		r.want(http.StatusNotFound, call{method: "GET", path: path})
	}
}

func TestWithoutAFolderTheHubSaysHowToNameOne(t *testing.T) {
	r := newRig(t)
	if v := r.want(http.StatusNotFound, call{method: "GET", path: "/public/index.html"}); !strings.Contains(v["detail"].(string), "--public DIR") {
		t.Errorf("%v", v)
	}
}

func TestTheClientOfSocketIOStandsBesideTheOwnersFiles(t *testing.T) {
	r := newRig(t)
	r.api.MountSocketIO(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { _, _ = io.WriteString(w, req.URL.Path) }))
	for _, path := range []string{"/public/socket.io/socket.io.js", "/socket.io/socket.io.js"} {
		if resp, body := r.do(call{method: "GET", path: path}); resp.StatusCode != http.StatusOK || body != "/socket.io/socket.io.js" {
			t.Errorf("%s: %d %s", path, resp.StatusCode, body)
		}
	}
}

func TestARequestOfSocketIOIsIdentified(t *testing.T) {
	c := newCast(t)
	c.api.MountSocketIO(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := c.api.Identify(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, string(id.Kind))
	}))
	for caller, want := range map[string]int{nobody: 200, viewer: 200, pViewer: 200, forged: 403, pForeign: 403} {
		if got := c.ask(caller, http.MethodGet, "/socket.io/", ""); got != want {
			t.Errorf("%s is answered %d, want %d", caller, got, want)
		}
	}
}

// TestALargeFileMayTakeLongerThanARequest reads a file slowly, but reads it.
func TestALargeFileMayTakeLongerThanARequest(t *testing.T) {
	const size = 32 << 20
	r := newRig(t, func(p *parts) {
		p.options.RequestTimeout, p.options.WriteTimeout = 200*time.Millisecond, time.Second
		p.options.Public = fstest.MapFS{"film.mp4": {Data: bytes.Repeat([]byte("x"), size)}}
	})
	resp, err := http.Get(r.server.URL + "/public/film.mp4")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	total := 0
	for buf := make([]byte, 4<<20); ; <-tick.C { // slower than a request may take, but not than a write
		n, err := io.ReadFull(resp.Body, buf)
		total += n
		if err == io.EOF || err == io.ErrUnexpectedEOF && total == size {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", total, err)
		}
	}
	if total != size {
		t.Errorf("got %d bytes of %d", total, size)
	}
}
