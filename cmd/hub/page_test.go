package main

import (
	"net/http"
	"strings"
	"testing"
)

func TestThePageIsServed(t *testing.T) {
	p := start(t, t.TempDir())
	resp, err := http.Get(p.url() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "script-src 'self'") {
		t.Errorf("the page is answered %d with the policy %q", resp.StatusCode, resp.Header.Get("Content-Security-Policy"))
	}
	if status, body := p.ask("GET", "/", "", ""); status != http.StatusOK || !strings.Contains(body, "<title>Telemetry Hub</title>") {
		t.Errorf("the page is answered %d: %s", status, body)
	}
}
