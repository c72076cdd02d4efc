package sio_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/fstest"

	"telemetryhub/hub/sio"
)

func TestTheClientIsServed(t *testing.T) {
	script := strings.Repeat("io();", 1000)
	r := serve(t, sio.Options{Client: fstest.MapFS{"socket.io.min.js": {Data: []byte(script)}, "secret.js": {Data: []byte("x")}}})
	get := func(method, name string, header ...string) *http.Response {
		t.Helper()
		req, err := http.NewRequest(method, r.URL+"/socket.io/"+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	for _, name := range []string{"socket.io.js", "socket.io.min.js"} {
		resp := get("GET", name, "Accept-Encoding", "identity")
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || string(body) != script || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/javascript") {
			t.Errorf("%s: %s %v", name, resp.Status, resp.Header)
		}
		packed := get("GET", name, "Accept-Encoding", "br, gzip")
		unpacked, err := gzip.NewReader(packed.Body)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(unpacked); err != nil || string(body) != script {
			t.Errorf("%s: packed it is something else: %v", name, err)
		}
		if resp := get("GET", name, "If-None-Match", resp.Header.Get("ETag")); resp.StatusCode != http.StatusNotModified {
			t.Errorf("%s was sent again: %s", name, resp.Status)
		}
		if resp := get("POST", name); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("POST: %s", resp.Status)
		}
	}
	for _, name := range []string{"socket.io.js.map", "socket.io.msgpack.min.js"} {
		if resp := get("GET", name); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", name, resp.Status)
		}
	}
	none := serve(t, sio.Options{})
	resp, err := http.Get(none.URL + "/socket.io/socket.io.js")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNotFound || !strings.Contains(string(body), "make build") {
		t.Errorf("without a client: %s %s", resp.Status, body)
	}
}
