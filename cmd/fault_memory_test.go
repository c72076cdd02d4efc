package cmd_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// memoryGroup is a control group whose processes together get so much memory and no more.
type memoryGroup struct {
	t   *testing.T
	dir string
	v2  bool
}

// newMemoryGroup makes a group until the test ends, or skips the test where that cannot be done. Whoever runs in it must have
// ended before: begin with the group.
func newMemoryGroup(t *testing.T, limit int64) *memoryGroup {
	t.Helper()
	needRoot(t, "limit the memory of a process")
	g := &memoryGroup{t: t, dir: fmt.Sprintf("/sys/fs/cgroup/memory/telemetryhub-test-%d", os.Getpid())}
	file := "memory.limit_in_bytes"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		g.dir, g.v2, file = fmt.Sprintf("/sys/fs/cgroup/telemetryhub-test-%d", os.Getpid()), true, "memory.max"
	}
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		t.Skipf("this test needs a control group of its own: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(g.dir); err != nil {
			t.Errorf("remove the control group: %v", err)
		}
	})
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(strconv.FormatInt(limit, 10)), 0); err != nil {
		t.Skipf("this test needs control groups that limit memory: %v", err)
	}
	return g
}

// wrap is the program that runs another one in the group.
func (g *memoryGroup) wrap() []string {
	return []string{"/bin/sh", "-c", `echo $$ >"$0"/cgroup.procs && exec "$@"`, g.dir}
}

// kills returns how often the kernel killed a process of the group for want of memory.
func (g *memoryGroup) kills() int {
	g.t.Helper()
	name := "memory.oom_control"
	if g.v2 {
		name = "memory.events"
	}
	text, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if n, ok := strings.CutPrefix(line, "oom_kill "); ok {
			kills, err := strconv.Atoi(strings.TrimSpace(n))
			if err != nil {
				g.t.Fatal(err)
			}
			return kills
		}
	}
	return 0 // an old kernel does not count them; the hub would be gone
}

// peak returns the most memory that the hub has had, without what the kernel keeps of its files.
func (s *server) peak() string {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

// flood is everybody who wants too much of a hub at once.
type flood struct {
	s    *server
	stop chan struct{}
	done sync.WaitGroup
}

// often calls do again and again from n goroutines.
func (f *flood) often(n int, do func(i int)) {
	for i := range n {
		f.done.Go(func() {
			for {
				select {
				case <-f.stop:
					return
				case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
					do(i)
				}
			}
		})
	}
}

// hold opens a connection, says something, and keeps it for a while without reading what comes back.
func (f *flood) hold(say string) {
	c, err := net.DialTimeout("tcp", f.s.addr, time.Second)
	if err != nil {
		return
	}
	defer c.Close()
	_, _ = io.WriteString(c, say) // the hub may have hung up
	select {
	case <-f.stop:
	case <-time.After(time.Duration(1+rand.IntN(15)) * time.Second):
	}
}

// ask sends a request and reads the beginning of the answer.
func (f *flood) ask(method, token, path, body string, most int64) {
	req, err := http.NewRequest(method, "http://"+f.s.addr+path, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return // shed
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, bufio.NewReader(resp.Body), most) // whatever there is
}

// TestFloodInLittleMemoryIsShed gives a hub 128 MiB and lets everybody want too much at once: devices with large batches,
// strangers, viewers that do not read, whole histories, large bodies. The hub lives, and loses and doubles nothing.
func TestFloodInLittleMemoryIsShed(t *testing.T) {
	if os.Getenv("TORTURE") == "" {
		t.Skip("takes more than a minute: set TORTURE=1")
	}
	const limit, lasts = 128 << 20, 60 * time.Second
	group := newMemoryGroup(t, limit)
	s := &server{t: t, dir: filepath.Join(t.TempDir(), "data"), addr: freeAddress(t), wrap: group.wrap()}
	s.start()
	t.Cleanup(func() {
		s.kill()
		if t.Failed() {
			t.Logf("the hub said:\n%s", tail(s.out.String(), 6000))
		}
	})
	viewer := s.token("viewer")
	f := startFleet(t, s, 100)
	f.addHoarders(t, s, 30)
	poster := s.add("poster")

	fl := &flood{s: s, stop: make(chan struct{})}
	text := strings.Repeat("x", 250)
	fl.often(300, func(int) { fl.hold("GET /device/v1 HTTP/1.1\r\nHost: h\r\nX-Never-Ends: " + text) })
	upgrade := "GET /api/v1/live HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer " + viewer + "\r\n\r\n"
	subscribe := `{"subscribe":{"mode":"all"}}`
	masked := append([]byte{0x81, 0x80 | byte(len(subscribe)), 0, 0, 0, 0}, subscribe...) // the masking key is zero
	fl.often(100, func(int) { fl.hold(upgrade + string(masked)) })
	fl.often(100, func(int) {
		fl.hold("GET /api/v1/live/sse HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer " + viewer + "\r\n\r\n")
	})
	fl.often(10, func(i int) {
		fl.ask(http.MethodGet, viewer, fmt.Sprintf("/api/v1/devices/hoarder-%d/readings?format=ndjson", i), "", 1<<20)
	})
	fl.often(20, func(int) {
		fl.ask(http.MethodPost, poster, "/api/v1/devices/poster/readings", `{"text":"`+text+`"}`, 1000)
	})
	fl.often(20, func(int) {
		fl.ask(http.MethodPost, poster, "/api/v1/devices/poster/readings", strings.Repeat("y", 1<<20), 1000)
	})
	end := time.After(lasts)
	acked, worst, since := f.acked(), time.Duration(0), time.Now()
	for run := true; run; {
		select {
		case <-s.done:
			t.Fatalf("the hub ended: %v; %d kills for want of memory", s.err, group.kills())
		case <-end:
			run = false
		case <-time.After(100 * time.Millisecond):
			if n := f.acked(); n > acked {
				worst, acked, since = max(worst, time.Since(since)), n, time.Now()
			}
		}
	}
	close(fl.stop)
	fl.done.Wait()
	peak := s.peak()
	if n := group.kills(); n != 0 {
		t.Fatalf("%d kills for want of memory", n)
	}
	if worst > 10*time.Second {
		t.Errorf("for %v nothing was acknowledged", worst)
	}
	until(t, "the hub takes readings again", func() bool {
		return s.ask(http.MethodPost, "/api/v1/devices/poster/readings", poster, `{"after":1}`).code == http.StatusNoContent
	})
	f.stop()
	f.check(t, s)
	s.stop()
	f.checkLog(t, s.dir)
	t.Logf("%d batches were acked; at most %v without one; the hub had at most %s of %d MiB", f.acked(), worst, peak, limit>>20)
}
