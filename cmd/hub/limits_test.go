package main

import (
	"context"
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
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// fork runs hub serve as a process of its own, with as many file descriptors at most, and waits until it has said where it is.
func fork(t *testing.T, dir string, descriptors int) (*process, *exec.Cmd) {
	t.Helper()
	p := &process{t: t, dir: dir, out: newScreen(), err: newScreen(), code: make(chan int, 1)}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `ulimit -n `+strconv.Itoa(descriptors)+`; exec "$0" "$@"`,
		os.Args[0], "serve", "--data", dir, "--http", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "HUB_TEST_MAIN=1")
	cmd.Stdout, cmd.Stderr = p.out, p.err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()
	})
	p.until(p.out, "data   ")
	return p, cmd
}

func TestTooFewDescriptorsAreOutlived(t *testing.T) {
	p, cmd := fork(t, t.TempDir(), 64)
	token := p.json("device", "add", "pump")["token"].(string)
	viewer := p.json("token", "create", "--role", "viewer")["token"].(string)
	pump := openSocket(t, p, "/device/v1", token)
	address := strings.TrimPrefix(p.url(), "http://")
	var crowd []net.Conn
	for range 200 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		crowd = append(crowd, conn)
	}
	p.until(p.err, "cannot accept connections")
	if _, err := pump.Write(textFrame(`{"temperature":21.25}`)); err != nil {
		t.Fatalf("who was there before is thrown out: %v", err)
	}
	for _, conn := range crowd {
		conn.Close()
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	body := ""
	for began := time.Now(); !strings.Contains(body, "21.25"); {
		if time.Since(began) > patience {
			t.Fatalf("the reading of the device that was there before is missing: %s", body)
		}
		_, body = p.ask("GET", "/api/v1/latest", viewer, "")
		<-tick.C
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the hub ended with %v:\n%s", err, p.err)
	}
}

func TestNothingIsServedBeyondTheMachineUnlessAsked(t *testing.T) {
	p, cmd := fork(t, t.TempDir(), 1024)
	own := map[string]bool{} // sockets of the process
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil {
			own[to] = true
		}
	}
	var open []string
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		text, err := os.ReadFile("/proc/net/" + table)
		if errors.Is(err, os.ErrNotExist) {
			continue // a machine without IPv6
		}
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			// proc(5): sl, local address, remote address, state (0A listens, 07 is a UDP socket), …, inode at place 9.
			f := strings.Fields(line)
			if len(f) > 9 && (f[3] == "0A" || f[3] == "07") && own["socket:["+f[9]+"]"] {
				open = append(open, table+" "+f[1])
			}
		}
	}
	_, port, err := net.SplitHostPort(strings.TrimPrefix(p.url(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	web, broker := fmt.Sprintf("tcp 0100007F:%04X", number), fmt.Sprintf("tcp 0100007F:%04X", 1883)
	others := slices.DeleteFunc(slices.Clone(open), func(at string) bool { return at == web || at == broker }) // somebody may have the broker's port
	if !slices.Contains(open, web) || len(others) > 0 {
		t.Errorf("the hub listens at %q, want %q and %q only", open, web, broker)
	}
}

func TestManyHeadersAreRefused(t *testing.T) {
	p := start(t, t.TempDir())
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var head strings.Builder
	head.WriteString("GET /healthz HTTP/1.1\r\nHost: hub\r\n")
	for i := range 100_000 {
		fmt.Fprintf(&head, "X-%d: y\r\n", i)
	}
	_, writeErr := io.WriteString(conn, head.String()+"\r\n")
	answer, _ := io.ReadAll(conn) // the hub may have closed while we were writing
	if writeErr == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 431") || strings.Contains(string(answer), "200 OK") {
		t.Errorf("100,000 headers are answered %.60q, %v", answer, writeErr)
	}
	if status, _ := p.ask("GET", "/readyz", "", ""); status != http.StatusOK {
		t.Errorf("the next request is answered %d", status)
	}
}

func TestStoppingUnderLoadLosesNothingThatWasAcknowledged(t *testing.T) {
	p := start(t, t.TempDir())
	token := p.json("device", "add", "pump")["token"].(string)
	viewer := p.json("token", "create", "--role", "viewer")["token"].(string)
	url := p.url() + "/api/v1/devices/pump/readings"
	var (
		load  sync.WaitGroup
		mu    sync.Mutex // guards acked
		acked []int
	)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	running := make(chan struct{}, 1)
	for worker := range 4 {
		load.Go(func() {
			for i := worker; ; i += 4 {
				req, err := http.NewRequestWithContext(ctx, "POST", url, strings.NewReader(fmt.Sprintf(`{"t":%d,"v":{"a":%d}}`, 1766000000000+i, i)))
				if err != nil {
					return
				}
				req.Header.Set("Authorization", "Bearer "+token)
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					return // the hub is gone
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusNoContent {
					return // the hub is going
				}
				mu.Lock()
				if acked = append(acked, i); len(acked) == 200 {
					running <- struct{}{}
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-running:
	case <-ctx.Done():
		t.Fatalf("the hub took no 200 readings in %v", patience)
	}
	began := time.Now()
	code := p.stop()
	if took := time.Since(began); code != exitOK || took > 10*time.Second {
		t.Errorf("the hub ended with %d after %s:\n%s", code, took, p.err)
	}
	load.Wait()
	p = start(t, p.dir)
	body := history(p, viewer)
	stored := map[string]int{}
	for _, m := range regexp.MustCompile(`,(\d+)\]`).FindAllStringSubmatch(body, -1) {
		stored[m[1]]++
	}
	for _, i := range acked {
		if n := stored[strconv.Itoa(i)]; n != 1 {
			t.Fatalf("reading %d was acknowledged and is there %d times (%d were acknowledged)", i, n, len(acked))
		}
	}
}
