package ws_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"telemetryhub/device/wire"
	"telemetryhub/hub/ws"
)

func TestOnlyProperRequestsAreUpgraded(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{})
	for name, c := range map[string]struct {
		request string
		status  int
	}{
		"plain":                   {request("dev:a"), 101},
		"connection among others": {request("dev:a", "Connection: keep-alive, Upgrade"), 101},
		"second connection line":  {request("dev:a", "Connection: keep-alive", "connection: UPGRADE"), 101},
		"browser's extensions":    {request("dev:a", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"), 101},
		"not an upgrade":          {request("dev:a", "Connection:", "Upgrade:"), 426},
		"connection missing":      {request("dev:a", "Connection: keep-alive"), 426},
		"upgrade to something":    {request("dev:a", "Upgrade: h2c"), 426},
		"upgrade missing":         {request("dev:a", "Upgrade:"), 426},
		"version 12":              {request("dev:a", "Sec-WebSocket-Version: 12"), 426},
		"version missing":         {request("dev:a", "Sec-WebSocket-Version:"), 426},
		"version twice":           {request("dev:a", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 12"), 426},
		"key missing":             {request("dev:a", "Sec-WebSocket-Key:"), 400},
		"key twice":               {request("dev:a", "Sec-WebSocket-Key: "+wsKey, "Sec-WebSocket-Key: "+wsKey), 400},
		"key short":               {request("dev:a", "Sec-WebSocket-Key: c2hvcnQ="), 400},
		"key not base64":          {request("dev:a", "Sec-WebSocket-Key: ????????????????????????"), 400},
		"body":                    {request("dev:a", "Content-Length: 2") + "{}", 400},
		"chunked body":            {request("dev:a", "Transfer-Encoding: chunked") + "0\r\n\r\n", 400},
		"HTTP/1.0":                {strings.Replace(request("dev:a"), "HTTP/1.1", "HTTP/1.0", 1), 400},
		"POST":                    {strings.Replace(request("dev:a"), "GET", "POST", 1), 405},
		"HTTP/2 preface":          {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 405},
		"HTTP/2 upgrade":          {request("dev:a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"), 426},
	} {
		t.Run(name, func(t *testing.T) {
			_, resp := open(t, s.addr, c.request)
			if resp.StatusCode != c.status {
				t.Fatalf("got %s, want %d", resp.Status, c.status)
			}
			switch c.status {
			case 101:
				if got := resp.Header.Get("Sec-WebSocket-Accept"); got != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 section 1.3
					t.Errorf("Sec-WebSocket-Accept is %q", got)
				}
				if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != "" {
					t.Errorf("extensions %q were agreed on", got)
				}
			case 426:
				if resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Sec-WebSocket-Version") != "13" {
					t.Errorf("the answer does not say what is spoken: %v", resp.Header)
				}
			}
			if c.status != 101 && name != "HTTP/2 preface" {
				checkProblem(t, resp)
			}
		})
	}
}

// checkProblem checks that an answer is a problem document that says something.
func checkProblem(t *testing.T, resp *http.Response) {
	t.Helper()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Status int
		Detail string
	}
	if err := json.Unmarshal(body, &doc); err != nil || doc.Status != resp.StatusCode || doc.Detail == "" {
		t.Errorf("not a problem document: %s (%v)", body, err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("content type %q", got)
	}
}

func TestSubprotocolIsAgreed(t *testing.T) {
	for name, c := range map[string]struct {
		offer  []string
		agreed string
		format wire.Format // zero means refused
	}{
		"none":             {nil, "", wire.JSON},
		"json":             {[]string{"hub.v1.json"}, "hub.v1.json", wire.JSON},
		"cbor":             {[]string{"hub.v1.cbor"}, "hub.v1.cbor", wire.CBOR},
		"both":             {[]string{"hub.v1.json, hub.v1.cbor"}, "hub.v1.cbor", wire.CBOR},
		"both on two":      {[]string{"hub.v1.json", "hub.v1.cbor"}, "hub.v1.cbor", wire.CBOR},
		"second line only": {[]string{"mqtt", "hub.v1.json"}, "hub.v1.json", wire.JSON},
		"among unknown":    {[]string{"hub.v2.cbor,hub.v1.json"}, "hub.v1.json", wire.JSON},
		"unknown":          {[]string{"hub.v2.cbor"}, "", 0},
		"empty":            {[]string{""}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub()
			s, _ := devices(t, h, ws.Options{})
			var headers []string
			for _, o := range c.offer {
				headers = append(headers, "Sec-WebSocket-Protocol: "+o)
			}
			_, resp := open(t, s.addr, request("dev:a", headers...))
			if c.format == 0 {
				if resp.StatusCode != http.StatusBadRequest {
					t.Fatalf("got %s, want 400", resp.Status)
				}
				return
			}
			if resp.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("got %s, want 101", resp.Status)
			}
			if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != c.agreed {
				t.Errorf("agreed on %q, want %q", got, c.agreed)
			}
			if got := wait(t, h.connected, "the session").options.Format; got != c.format {
				t.Errorf("the hub sends %v, want %v", got, c.format)
			}
		})
	}
}

func TestOnlyDevicesConnectAsDevicesAndOnlyViewersView(t *testing.T) {
	for name, c := range map[string]struct {
		headers          []string
		device, viewer   int
		retry, challenge bool
	}{
		"nobody":    {nil, 401, 401, false, true},
		"device":    {[]string{"Authorization: Bearer dev:a"}, 101, 403, false, false},
		"viewer":    {[]string{"Authorization: Bearer viewer"}, 403, 101, false, false},
		"scoped":    {[]string{"Authorization: Bearer scoped"}, 403, 101, false, false},
		"enrolment": {[]string{"Authorization: Bearer enrol"}, 403, 403, false, false},
		"unknown":   {[]string{"Authorization: Bearer bad"}, 401, 401, false, true},
		"mistyped":  {[]string{"Authorization: Bearer mistyped"}, 401, 401, false, true},
		"expired":   {[]string{"Authorization: Bearer old"}, 401, 401, false, true},
		"throttled": {[]string{"Authorization: Bearer throttled"}, 429, 429, true, false},
		"busy":      {[]string{"Authorization: Bearer busy"}, 503, 503, true, false},
		"broken":    {[]string{"Authorization: Bearer broken"}, 500, 500, false, false},

		"person":                {[]string{"Cookie: session=person", "Origin: http://hub"}, 403, 101, false, false},
		"logged out":            {[]string{"Cookie: session=logout", "Origin: http://hub"}, 401, 401, false, true},
		"foreign origin":        {[]string{"Cookie: session=person", "Origin: http://evil"}, 403, 403, false, false},
		"null origin":           {[]string{"Cookie: session=person", "Origin: null"}, 403, 403, false, false},
		"origin looks like":     {[]string{"Cookie: session=person", "Origin: http://hub.evil"}, 403, 403, false, false},
		"other port":            {[]string{"Cookie: session=person", "Origin: http://hub:81"}, 403, 403, false, false},
		"token, foreign origin": {[]string{"Authorization: Bearer viewer", "Origin: http://evil"}, 403, 101, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			devices, _ := devices(t, newFakeHub(), ws.Options{})
			viewers, _ := viewers(t, newFakeFeed(), ws.Options{})
			for what, s := range map[string]struct {
				addr string
				want int
			}{"device": {devices.addr, c.device}, "viewer": {viewers.addr, c.viewer}} {
				_, resp := open(t, s.addr, request("", c.headers...))
				if resp.StatusCode != s.want {
					t.Errorf("%s: got %s, want %d", what, resp.Status, s.want)
				}
				if s.want == 101 || resp.StatusCode == 101 {
					continue
				}
				if got := resp.Header.Get("Retry-After") != ""; got != (c.retry && s.want == c.device) {
					t.Errorf("%s: Retry-After is %q", what, resp.Header.Get("Retry-After"))
				}
				if got := resp.Header.Get("WWW-Authenticate") != ""; got != (s.want == 401) {
					t.Errorf("%s: WWW-Authenticate is %q", what, resp.Header.Get("WWW-Authenticate"))
				}
				checkProblem(t, resp)
			}
		})
	}
}

func TestCauseOfAnInternalErrorIsNotTold(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{})
	_, resp := open(t, s.addr, request("broken"))
	if body, _ := io.ReadAll(resp.Body); strings.Contains(string(body), "fire") {
		t.Errorf("the client was told %s", body)
	}
}
