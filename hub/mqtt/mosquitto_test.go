package mqtt_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub/mqtt"
)

// mosquitto is Debian's broker in a process of its own.
type mosquitto struct {
	t       *testing.T
	bin     string
	dir     string
	address string
	cmd     *exec.Cmd
}

func newMosquitto(t *testing.T) *mosquitto {
	m := &mosquitto{t: t, dir: t.TempDir()}
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} { // Debian keeps it out of the path of users
		if bin, err := exec.LookPath(name); err == nil {
			m.bin = bin
		}
	}
	if _, err := exec.LookPath("mosquitto_sub"); m.bin == "" || err != nil {
		if os.Getenv("CI") == "1" {
			t.Fatal("mosquitto and mosquitto-clients are needed: apt-get install them")
		}
		t.Skip("mosquitto or mosquitto-clients is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.address = ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\nlog_dest none\n",
		m.port(), m.dir)
	if os.Geteuid() == 0 {
		conf += "user root\n" // else it becomes another user, who cannot write to the folder
	}
	if err := os.WriteFile(m.conf(), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

func (m *mosquitto) conf() string { return filepath.Join(m.dir, "mosquitto.conf") }

func (m *mosquitto) port() string {
	_, port, _ := net.SplitHostPort(m.address)
	return port
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command(m.bin, "-c", m.conf())
	m.cmd.Stderr = os.Stderr
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if c, err := net.Dial("tcp", m.address); err == nil {
			_ = c.Close()
			return
		}
		<-tick.C
	}
	m.t.Fatal("mosquitto does not listen")
}

// stop ends it as an operator would: it saves what it keeps for those who are away.
func (m *mosquitto) stop() {
	_ = m.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = m.cmd.Wait()
}

// subscribe runs mosquitto_sub, in a session that lasts, and gives what it prints to take.
func (m *mosquitto) subscribe(ctx context.Context, topic string, take func(line string)) (done func()) {
	m.t.Helper()
	cmd := exec.CommandContext(ctx, "mosquitto_sub", "-h", "127.0.0.1", "-p", m.port(), "-t", topic, "-q", "1", "-v", "-c", "-i", "oracle", "-k", "5")
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			take(lines.Text())
		}
		_ = cmd.Wait() // killed
	})
	return wg.Wait
}

func (m *mosquitto) publish(topic, payload string, more ...string) {
	m.t.Helper()
	args := append([]string{"-h", "127.0.0.1", "-p", m.port(), "-t", topic, "-m", payload, "-q", "1"}, more...)
	if out, err := exec.Command("mosquitto_pub", args...).CombinedOutput(); err != nil {
		m.t.Fatalf("mosquitto_pub: %v, %s", err, out)
	}
}

// TestMosquittoRestartsUnderLoad is case M1 with a broker that is not ours: 2,000 readings a second, it is stopped and started,
// and nothing is lost, in the order of each device.
func TestMosquittoRestartsUnderLoad(t *testing.T) {
	m, r := newMosquitto(t), newRig(t)
	devices := []device.ID{"a", "b", "c", "d"}
	r.add(devices...)
	e, err := mqtt.ParseURL("tcp://"+m.address, mqtt.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var got []string
	ctx, cancel := context.WithCancel(t.Context())
	wait := m.subscribe(ctx, "telemetry/+/n", func(line string) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, line)
	})
	defer wait()
	defer cancel()
	r.bridge(e.Dial, func(o *mqtt.Options) {
		o.Ingest, o.Retry, o.RetryMax = r.hub, 50*time.Millisecond, 200*time.Millisecond
	})
	r.until("the oracle hears", func() bool { // its subscription may come late
		r.ingest("a", `{"n":0}`)
		mu.Lock()
		defer mu.Unlock()
		return len(got) > 0
	})

	const seconds, batch = 3, 10 // readings in one message of one device
	tick := time.NewTicker(time.Second / 50)
	defer tick.Stop()
	n := 0
	for i := range 50 * seconds {
		switch i {
		case 50:
			m.stop()
		case 100:
			m.start()
		}
		<-tick.C
		for _, id := range devices {
			r.burst(id, n, batch)
		}
		n += batch
	}
	var last map[string]int
	r.until("all of it arrives", func() bool {
		mu.Lock()
		defer mu.Unlock()
		last, _ = oracle(t, slices.DeleteFunc(slices.Clone(got), func(l string) bool { return strings.Contains(l, `{"v":0,`) }))
		for _, id := range devices {
			if last["telemetry/"+string(id)+"/n"] != n {
				return false
			}
		}
		return true
	})
}

// burst ingests count readings at once, one after the other in time.
func (r *rig) burst(id device.ID, from, count int) {
	r.t.Helper()
	now := time.Now().UnixMilli()
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, `,{"n":"n","v":%d,"t":%d.%03d}`, from+i+1, (now+int64(i))/1000, (now+int64(i))%1000)
	}
	if _, err := r.hub.Ingest(context.Background(), id, wire.JSON, []byte("["+b.String()[1:]+"]")); err != nil {
		r.t.Fatal(err)
	}
}

// TestMosquittoKeepsWhatComesWhileTheBridgeIsAway is ingest by an outside broker.
func TestMosquittoKeepsWhatComesWhileTheBridgeIsAway(t *testing.T) {
	m, r := newMosquitto(t), newRig(t)
	r.add("a")
	e, err := mqtt.ParseURL("tcp://"+m.address, mqtt.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.publish("ingest/a", `{"kept":1}`, "-r")
	ingest := func(o *mqtt.Options) { o.Ingest = r.hub }
	has := func(want uint64) func() bool { return func() bool { return r.metrics.Received.Load() == want } }
	r.bridge(e.Dial, ingest)
	r.until("what was retained is passed over", func() bool { return r.metrics.Retained.Load() == 1 })
	m.publish("ingest/a", `{"n":1}`)
	r.until("it is stored", has(1))
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	m.publish("ingest/a", `{"n":2}`)
	m.stop()
	m.start()
	m.publish("ingest/a", `{"n":3}`)
	r.bridge(e.Dial, ingest)
	r.until("the rest is stored", has(3))
}
