package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"telemetryhub/hub"
	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

func TestReadingsSurviveARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "by-the-hub")
	p := start(t, dir)
	token := p.json("device", "add", "pump", "--name", "Pump", "--label", "site=farm")["token"].(string)
	for i := range 20 {
		status, body := p.ask("POST", "/api/v1/devices/pump/readings", token, fmt.Sprintf(`{"t":%d,"v":{"a":%d.5}}`, 1766000000000+i, i))
		if status != http.StatusNoContent {
			t.Fatalf("readings are answered %d %s", status, body)
		}
		if i == 10 {
			p.hub(0, "flush")
		}
	}
	viewer := p.json("token", "create", "--role", "viewer", "--label", "test")["token"].(string)
	before := history(p, viewer)
	if code := p.stop(); code != exitOK {
		t.Fatalf("the hub ended with %d:\n%s", code, p.err)
	}
	if out := command(t, exitOK, world{env: environment()}, "check", "--data", dir); !strings.Contains(out, "intact") {
		t.Errorf("hub check says %s", out)
	}

	p = start(t, dir)
	if after := history(p, viewer); before != after || strings.Count(after, ".5]") != 20 {
		t.Errorf("before the restart: %s\nafter it: %s", before, after)
	}
	if out := p.hub(0, "device", "list"); !strings.Contains(out, "site=farm") {
		t.Errorf("the devices are %s", out)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "catalog.bolt")); err != nil || strings.Contains(string(text), token) || strings.Contains(string(text), viewer) {
		t.Errorf("a token stands in the catalog (%v)", err)
	}
}

func history(p *process, token string) string {
	p.t.Helper()
	status, body := p.ask("GET", "/api/v1/devices/pump/readings?metric=a", token, "")
	if status != http.StatusOK {
		p.t.Fatalf("history is answered %d %s", status, body)
	}
	return body
}

func TestTheSetupLinkIsShownUntilItIsUsed(t *testing.T) {
	dir := t.TempDir()
	link := func(p *process) string {
		_, rest, _ := strings.Cut(p.out.String(), "#link=")
		secret, _, _ := strings.Cut(rest, "\n")
		return secret
	}
	p := start(t, dir)
	first := link(p)
	p.stop()
	p = start(t, dir)
	second := link(p)
	if first == "" || second == "" || first == second {
		t.Fatalf("the links are %q and %q", first, second)
	}
	claim := func(link string) int {
		status, _ := p.ask("POST", "/api/v1/links/claim", "", `{"link":"`+link+`","password":"correct horse battery"}`)
		return status
	}
	if got := claim(first); got != http.StatusForbidden {
		t.Errorf("the link of an earlier start is answered %d", got)
	}
	if got := claim(second); got != http.StatusOK {
		t.Errorf("the link is answered %d", got)
	}
	p.stop()
	if p = start(t, dir); link(p) != "" {
		t.Errorf("a hub that is claimed shows a link:\n%s", p.out)
	}
	// Whoever owns the machine always gets in.
	v := p.json("user", "link", "admin", "--login")
	status, body := p.ask("POST", "/api/v1/links/claim", "", `{"link":"`+v["link"].(string)+`"}`)
	if status != http.StatusOK || !strings.HasPrefix(v["url"].(string), p.url()+"/#link=") {
		t.Errorf("the link %v is answered %d %s", v, status, body)
	}
}

func TestOneHubToAFolder(t *testing.T) {
	p := start(t, t.TempDir())
	for _, args := range [][]string{{"serve", "--data", p.dir, "--http", "127.0.0.1:0"}, {"check", "--data", p.dir}} {
		if out := command(t, exitLocked, world{env: environment()}, args...); !strings.Contains(out, "stop that hub first") {
			t.Errorf("hub %s says %s", args[0], out)
		}
	}
	if status, _ := p.ask("GET", "/readyz", "", ""); status != http.StatusOK {
		t.Errorf("the first hub is not ready any more: %d", status)
	}
}

func TestTheControlSocketIsTheOwnersAlone(t *testing.T) {
	for name, dir := range map[string]string{"short": t.TempDir(), "long": filepath.Join(t.TempDir(), strings.Repeat("long/", 30))} {
		p := start(t, dir)
		info, err := os.Stat(filepath.Join(dir, socketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the socket is %v, %v", name, info, err)
		}
		p.hub(0, "status")
		p.stop()
		if _, err := os.Stat(filepath.Join(dir, socketName)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the socket is left: %v", name, err)
		}
		if out := p.hub(exitUnavailable, "status"); !strings.Contains(out, "hub serve --data") {
			t.Errorf("%s: without a hub it says %s", name, out)
		}
	}
}

func TestASocketThatWasLeftBehindDoesNotHinder(t *testing.T) {
	dir := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, socketName), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	start(t, dir).hub(0, "status")
}

func TestOtherMachinesAreServedWithTLS(t *testing.T) {
	p := start(t, t.TempDir(), "--lan", "--https", "127.0.0.1:0")
	shown := p.out.String()
	address := ""
	for _, u := range urls.FindAllString(shown, -1) {
		if strings.HasPrefix(u, "https://") {
			address = u
		}
	}
	fetch := func(config *tls.Config) (*http.Response, error) {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
		resp, err := client.Get(address + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return resp, err
	}
	resp, err := fetch(&tls.Config{InsecureSkipVerify: true})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s is answered %v, %v", address, resp, err)
	}
	pin := sha256.Sum256(resp.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
	if text := base64.StdEncoding.EncodeToString(pin[:]); !strings.Contains(shown, text) {
		t.Errorf("the pin %s is not shown:\n%s", text, shown)
	}
	if _, err := fetch(&tls.Config{}); err == nil {
		t.Error("a client that knows nothing of the certificate takes it")
	}
	if _, err := fetch(&tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	if status, _ := p.ask("GET", "/healthz", "", ""); status != http.StatusOK {
		t.Errorf("this machine is answered %d without TLS", status)
	}
	for name, base := range map[string]string{"set up": address, "or here": p.url()} {
		if !regexp.MustCompile(`(?m)^ *` + name + ` +` + regexp.QuoteMeta(base) + `/#link=`).MatchString(shown) {
			t.Errorf("no link of %s is shown behind %q:\n%s", base, name, shown)
		}
	}
	p.hub(0, "user", "add", "bob", "--role", "viewer")
	if made := p.json("user", "link", "bob"); !strings.HasPrefix(made["url"].(string), address+"/#link=") {
		t.Errorf("the link for somebody elsewhere is %v", made)
	}
}

func TestDevicesWithoutTLSAreServedWithAWarning(t *testing.T) {
	p := start(t, t.TempDir(), "--lan-plaintext", "127.0.0.1:0")
	_, rest, _ := strings.Cut(p.out.String(), "WARNING")
	address := strings.Fields(strings.TrimPrefix(strings.TrimSpace(rest), "devices at "))[0]
	token := p.json("device", "add", "pump")["token"].(string)
	admin := p.json("token", "create", "--role", "admin")["token"].(string)
	post := func(token string) int {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+address+"/api/v1/devices/pump/readings", strings.NewReader(`{"a":1}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := post(token); got != http.StatusNoContent {
		t.Errorf("the device is answered %d", got)
	}
	if got := post(admin); got != http.StatusForbidden {
		t.Errorf("an administrator is answered %d", got)
	}
	if out := p.hub(0, "status"); !strings.Contains(out, address) {
		t.Errorf("the status does not warn: %s", out)
	}
}

func TestStoppingTellsEverybodyInOrder(t *testing.T) {
	p := start(t, t.TempDir())
	token := p.json("device", "add", "pump")["token"].(string)
	viewer := p.json("token", "create", "--role", "viewer")["token"].(string)
	device := openSocket(t, p, "/device/v1", token)
	live := openSocket(t, p, "/api/v1/live", viewer)
	if _, err := live.Write(textFrame(`{"subscribe":{}}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := device.Write(textFrame(`{"temperature":21.25}`)); err != nil {
		t.Fatal(err)
	}
	for text := ""; !strings.Contains(text, "21.25"); {
		text = readFrame(t, live)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url()+"/api/v1/live/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+viewer)
	events, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	began := time.Now()
	if code := p.stop(); code != exitOK {
		t.Errorf("the hub ended with %d:\n%s", code, p.err)
	}
	if d := time.Since(began); d > 9*time.Second {
		t.Errorf("it took %s", d)
	}
	if text, err := io.ReadAll(events.Body); err != nil || !strings.Contains(string(text), "event: bye\ndata: {\"code\":4002") {
		t.Errorf("the event stream ended with %q, %v", text, err)
	}
	for name, conn := range map[string]net.Conn{"device": device, "viewer": live} {
		last := ""
		for frame := readFrame(t, conn); frame != ""; frame = readFrame(t, conn) {
			last = frame
		}
		if len(last) < 2 || int(last[0])<<8|int(last[1]) != 4002 {
			t.Errorf("the %s was told %q at last", name, last)
		}
	}
	p = start(t, p.dir)
	if status, body := p.ask("GET", "/api/v1/devices/pump/readings?metric=temperature", viewer, ""); status != 200 || !strings.Contains(body, "21.25") {
		t.Errorf("the last reading is gone: %d %s", status, body)
	}
}

// socket opens a WebSocket by hand (RFC 6455 section 1.2).
func openSocket(t *testing.T, p *process, path, token string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer "+token+"\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	var head strings.Builder
	for one := make([]byte, 1); !strings.HasSuffix(head.String(), "\r\n\r\n"); {
		if _, err := io.ReadFull(conn, one); err != nil {
			t.Fatalf("the handshake ends with %q: %v", head.String(), err)
		}
		head.Write(one)
	}
	if !strings.HasPrefix(head.String(), "HTTP/1.1 101") {
		t.Fatalf("the handshake is answered %q", head.String())
	}
	return conn
}

// textFrame returns a short text frame with a masking key of zeros.
func textFrame(text string) []byte {
	return append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}

// readFrame returns the payload of the next frame, and nothing at the end of the connection.
func readFrame(t *testing.T, conn net.Conn) string {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil {
		return ""
	}
	n := int(head[1])
	if n == 126 {
		if _, err := io.ReadFull(conn, head); err != nil {
			return ""
		}
		n = int(head[0])<<8 | int(head[1])
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(conn, payload); err != nil {
		return ""
	}
	return string(payload)
}

func TestDataOfANewerVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	start(t, dir).stop()
	path := filepath.Join(dir, "catalog.bolt")
	c, err := bolt.OpenCatalog(path, bolt.CatalogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, putErr := c.Put(t.Context(), "device/future", []byte(`{"v":99,"num":1}`), storage.Any)
	if err := errors.Join(putErr, c.Close()); err != nil {
		t.Fatal(err)
	}
	command(t, exitNewer, world{env: environment()}, "serve", "--data", dir, "--http", "127.0.0.1:0")
}

func TestDamageIsTold(t *testing.T) {
	p := start(t, t.TempDir())
	token := p.json("device", "add", "pump")["token"].(string)
	if status, body := p.ask("POST", "/api/v1/devices/pump/readings", token, `{"t":1766000000000,"v":{"a":1}}`); status != 204 {
		t.Fatalf("readings are answered %d %s", status, body)
	}
	p.hub(0, "flush")
	p.stop()
	files, err := filepath.Glob(filepath.Join(p.dir, "history", "*.bolt"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the history is %v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	whole := slices.Clone(text)
	for i := 8 << 10; i < len(text); i++ { // all but the meta pages
		text[i] ^= 0x55
	}
	if err := os.WriteFile(files[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := command(t, exitPartial, world{env: environment()}, "check", "--data", p.dir); !strings.Contains(out, "DAMAGE") {
		t.Errorf("hub check says %s", out)
	}
	if after, err := os.ReadFile(files[0]); err != nil || !bytes.Equal(after, text) {
		t.Errorf("hub check has changed the file (%v)", err)
	}
	if err := os.WriteFile(files[0], whole, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, exitOK, world{env: environment()}, "check", "--data", p.dir)
}

func TestKeysThatOthersCanReadAreRefused(t *testing.T) {
	dir := t.TempDir()
	start(t, dir, "--lan", "--https", "127.0.0.1:0").stop()
	certFile, key := filepath.Join(dir, "tls", "cert.pem"), filepath.Join(dir, "tls", "key.pem")
	args := []string{"--https", "127.0.0.1:0", "--tls-cert", certFile, "--tls-key", key}
	start(t, t.TempDir(), args...).stop()
	args = append([]string{"serve", "--data", t.TempDir(), "--http", "127.0.0.1:0"}, args...)
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if out := command(t, exitUsage, world{env: environment()}, args...); !strings.Contains(out, key) {
		t.Errorf("a key that everybody can read: %s", out)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if out := command(t, exitUsage, world{env: environment()}, args...); !strings.Contains(out, key) {
		t.Errorf("a key that is missing: %s", out)
	}
	file := filepath.Join(dir, "hub.yaml")
	if err := os.WriteFile(file, []byte("https: 127.0.0.1:0\ntls-cert: "+certFile+"\ntls-key: "+key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args = []string{"serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--config", file}
	if out := command(t, exitUsage, world{env: environment()}, args...); !strings.Contains(out, file+":2: ") || !strings.Contains(out, key) {
		t.Errorf("a key that is missing, in a file: %s", out)
	}
}

func TestLogsOfTheWholeHubHoldNoSecrets(t *testing.T) {
	p := start(t, t.TempDir(), "--log-level", "debug")
	var secrets []string
	for _, args := range [][]string{{"device", "add", "pump"}, {"token", "create", "--role", "admin"}, {"enrol", "create"}} {
		secrets = append(secrets, p.json(args...)["token"].(string))
	}
	link := p.json("user", "add", "vera")["link"].(map[string]any)["link"].(string)
	p.ask("POST", "/api/v1/links/claim", "", `{"link":"`+link+`","password":"canary password one"}`)
	p.ask("POST", "/api/v1/login", "", `{"name":"vera","password":"canary password two"}`)
	p.ask("POST", "/api/v1/enrol", secrets[2], `{"device":"fan"}`)
	p.ask("GET", "/api/v1/devices?token="+secrets[1], secrets[1], "")
	openSocket(t, p, "/device/v1", secrets[0]).Close()
	p.ask("GET", "/api/v1/live/canary-path", "canary-bearer", "")
	p.stop()
	secrets = append(secrets, link, "canary password one", "canary password two", "canary-path", "canary-bearer")
	if text := p.err.String(); !strings.Contains(text, "level=DEBUG") {
		t.Fatalf("nothing is logged at level debug:\n%s", text)
	} else {
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("the log holds %q", s)
			}
		}
	}
}

func TestTheSecondSignalEndsTheProcessAtOnce(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "--data", dir, "--http", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "HUB_TEST_MAIN=1")
	out, errs := newScreen(), newScreen()
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	wait := func(s *screen, text string) {
		for {
			shown, news := s.now()
			if strings.Contains(shown, text) {
				return
			}
			select {
			case <-news:
			case <-ctx.Done():
				t.Fatalf("the hub did not say %q:\n%s%s", text, out, errs)
			}
		}
	}
	wait(out, "data   ")
	// A request whose body does not come holds up the stop, once the hub has begun with it, which it says when it wants the body.
	conn, err := net.Dial("tcp", strings.TrimPrefix(urls.FindString(out.String()), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /api/v1/login HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if answer, err := bufio.NewReader(conn).ReadString('\n'); err != nil || answer != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("the request is answered %q, %v", answer, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait(errs, "stopping")
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitInterrupted {
		t.Errorf("the hub ended with %v:\n%s", err, errs)
	}
}

func TestAHubWhoseOutputIsGoneGoesOn(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "serve", "--data", dir, "--http", "127.0.0.1:0", "--log-level", "debug")
	cmd.Env = append(os.Environ(), "HUB_TEST_MAIN=1")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	r.Close() // nobody will ever read
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p := &process{t: t, dir: dir}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	status := func() int {
		return run(t.Context(), []string{"status"}, world{environment("HUB_DATA", dir), strings.NewReader(""), newScreen(), newScreen()})
	}
	for began := time.Now(); status() != exitOK && time.Since(began) < patience; { // its socket is there before it takes connections
		<-tick.C
	}
	for range 20 { // each is a line of the log
		p.hub(0, "status")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the hub ended with %v", err)
	}
}

func TestExitCodesFollowFromErrors(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errors.New("x"), 1}, {usagef("x"), 2}, {fmt.Errorf("a: %w", errPartial), 3}, {&apiError{Status: 404}, 4},
		{&apiError{Status: 401}, 5}, {&apiError{Status: 403}, 5}, {os.ErrPermission, 5}, {&apiError{Status: 409}, 6}, {&apiError{Status: 503}, 7},
		{&apiError{Status: 422}, 2}, {&apiError{Status: 500}, 1}, {fmt.Errorf("a: %w", errUnreachable), 7}, {storage.ErrLocked, 10},
		{storage.ErrNewerFormat, 11}, {fmt.Errorf("commit: %w", storage.ErrUnknown), 12}, {context.Canceled, 130},
		{errors.Join(storage.ErrUnknown, hub.ErrDraining), 12},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v ends with %d, want %d", c.err, got, c.want)
		}
		if c.want != 0 && !strings.Contains(exitHelp, fmt.Sprintf("\n%5d  ", c.want)) {
			t.Errorf("the exit code %d is not explained", c.want)
		}
	}
}
