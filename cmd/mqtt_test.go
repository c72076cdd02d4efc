package cmd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mosquitto is Debian's broker in a process of its own.
type mosquitto struct {
	t    *testing.T
	bin  string
	dir  string
	addr string
	cmd  *exec.Cmd
}

func newMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	m := &mosquitto{t: t, bin: mosquittoProgram(t, "/usr/sbin/mosquitto"), dir: t.TempDir(), addr: freeAddress(t)}
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nlog_dest none\n",
		m.port(), m.dir)
	if os.Geteuid() == 0 {
		conf += "user root\n" // else it becomes another user, who cannot write to the folder
	}
	if err := os.WriteFile(filepath.Join(m.dir, "conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

// mosquittoProgram returns the path of one of the programs. Debian keeps the broker out of the path of users.
func mosquittoProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatalf("%v: apt-get install mosquitto mosquitto-clients", err)
	}
	if err != nil {
		t.Skipf("%v: apt-get install mosquitto mosquitto-clients", err)
	}
	return path
}

func (m *mosquitto) port() string {
	_, port, err := net.SplitHostPort(m.addr)
	if err != nil {
		m.t.Fatal(err)
	}
	return port
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command(m.bin, "-c", filepath.Join(m.dir, "conf"))
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	until(m.t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

// stop ends it as an operator would: it saves what it keeps for those who are away.
func (m *mosquitto) stop() {
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = m.cmd.Wait()
}

// heard is what mosquitto_sub prints.
type heard struct {
	mu    sync.Mutex
	lines []string
}

func (h *heard) all() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.lines...)
}

// has reports whether a line begins with the text.
func (h *heard) has(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.lines, func(line string) bool { return strings.HasPrefix(line, text) })
}

// listen runs mosquitto_sub until the test ends.
func listen(t *testing.T, addr string, args ...string) *heard {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, mosquittoProgram(t, "mosquitto_sub"), append([]string{"-h", host, "-p", port, "-v", "-q", "1"}, args...)...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h, ended := &heard{}, make(chan struct{})
	go func() {
		defer close(ended)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			h.mu.Lock()
			h.lines = append(h.lines, lines.Text())
			h.mu.Unlock()
		}
		_ = cmd.Wait() // killed
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return h
}

// publish runs mosquitto_pub and reports whether it was let in and acknowledged.
func publish(t *testing.T, addr string, args ...string) (good bool) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return exec.Command(mosquittoProgram(t, "mosquitto_pub"), append([]string{"-h", host, "-p", port, "-q", "1"}, args...)...).Run() == nil
}

func TestMQTTClientsOfOthersReadAndSend(t *testing.T) {
	addr := freeAddress(t)
	s := newServer(t, "--mqtt", addr)
	pump, viewer := s.add("pump"), s.token("viewer")
	h := listen(t, addr, "-u", "x", "-P", viewer, "-t", "telemetry/#")
	until(t, "the retained states are there", func() bool {
		return h.has("telemetry/pump/status")
	})
	if !publish(t, addr, "-i", "pump", "-u", "pump", "-P", pump, "-t", "ingest/pump", "-m", `{"temperature":21.5}`) {
		t.Fatal("mosquitto_pub was refused as the device")
	}
	until(t, "the reading comes", func() bool {
		return h.has(`telemetry/pump/temperature {"v":21.5,"t":`)
	})
	for name, args := range map[string][]string{
		"nobody":            {"-i", "pump", "-t", "ingest/pump", "-m", "{}"},
		"a wrong token":     {"-i", "pump", "-u", "x", "-P", "wrong", "-t", "ingest/pump", "-m", "{}"},
		"another client id": {"-i", "valve", "-u", "x", "-P", pump, "-t", "ingest/pump", "-m", "{}"},
	} {
		if publish(t, addr, args...) {
			t.Errorf("%s was let in", name)
		}
	}
}

// feeder sends numbers as one device over HTTP, each pack until it is acknowledged.
type feeder struct {
	id, token string
	acked     int
}

const feederPack = 10

func (f *feeder) run(ctx context.Context, addr string, pace time.Duration) {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for n := 0; ; n += feederPack {
		var pack []map[string]any
		for i := 1; i <= feederPack; i++ {
			pack = append(pack, map[string]any{"n": "n", "v": n + i})
		}
		body, _ := json.Marshal(pack) // maps of names and numbers
		for !f.send(ctx, addr, body) {
			if ctx.Err() != nil {
				return
			}
			<-tick.C
		}
		f.acked = n + feederPack
		<-tick.C
	}
}

func (f *feeder) send(ctx context.Context, addr string, body []byte) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/api/v1/devices/"+f.id+"/readings", bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	req.Header.Set("Content-Type", "application/senml+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusNoContent
}

// TestBridgeElsewhereLosesNothing has 2,000 readings a second on their way to Mosquitto, which is stopped and started, while
// the hub is killed. The outage is a minute with TORTURE.
func TestBridgeElsewhereLosesNothing(t *testing.T) {
	m := newMosquitto(t)
	h := listen(t, m.addr, "-c", "-i", "oracle", "-k", "5", "-t", "telemetry/+/n")
	s := newServer(t, "--mqtt-bridge", "tcp://"+m.addr)
	ctx, cancel := context.WithCancel(t.Context())
	var feeders []*feeder
	var wg sync.WaitGroup
	for i := range 4 {
		f := &feeder{id: fmt.Sprint("dev-", i)}
		f.token = s.add(f.id)
		feeders = append(feeders, f)
		wg.Go(func() { f.run(ctx, s.addr, 20*time.Millisecond) })
	}
	outage := 2 * time.Second
	if os.Getenv("TORTURE") != "" {
		outage = time.Minute
	}
	until(t, "readings come", func() bool { return len(h.all()) > 0 })
	<-time.After(time.Second)
	m.stop()
	<-time.After(outage / 2)
	s.kill()
	s.start()
	<-time.After(outage / 2)
	m.start()
	<-time.After(time.Second)
	s.kill()
	s.start()
	<-time.After(time.Second)
	cancel()
	wg.Wait()

	for _, f := range feeders {
		until(t, "everything of "+f.id+" has come", func() bool {
			return h.has(fmt.Sprintf(`telemetry/%s/n {"v":%d,`, f.id, f.acked))
		})
	}
	last, repeated := map[string]int{}, 0
	for _, line := range h.all() {
		topic, payload, _ := strings.Cut(line, " ")
		var reading struct{ V int }
		if err := json.Unmarshal([]byte(payload), &reading); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		switch v := reading.V; {
		case v == last[topic]+1:
			last[topic] = v
		case v > last[topic]:
			t.Fatalf("%s: %d comes after %d: some were lost, or came in another order", topic, v, last[topic])
		default:
			repeated++
		}
	}
	total := 0
	for _, f := range feeders {
		total += f.acked
		if got := last["telemetry/"+f.id+"/n"]; got < f.acked {
			t.Errorf("%s: %d of %d came", f.id, got, f.acked)
		}
	}
	t.Logf("%d readings acknowledged, %d came more than once", total, repeated)
}
