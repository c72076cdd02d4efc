package broker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/hub/broker"
)

// need returns the path of a program. Without it the test is skipped, and fails where nothing may be skipped.
func need(t *testing.T, name, install string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	missing(t, name, install)
	return ""
}

func missing(t *testing.T, name, install string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: %s", name, install)
	}
	t.Skipf("%s is missing: %s", name, install)
}

// listening runs a broker on TCP and returns its port.
func listening(t *testing.T) (*rig, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := startOn(t, ln, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }, broker.Options{})
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return r, port
}

func run(t *testing.T, path string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	return string(out), err
}

func TestMosquittoClients(t *testing.T) {
	pub, sub := need(t, "mosquitto_pub", "apt-get install mosquitto-clients"), need(t, "mosquitto_sub", "apt-get install mosquitto-clients")
	r, port := listening(t)
	hub := r.local(t)
	hub.send(retainedMessage("telemetry/pi-1/status", "online"))
	hub.ping()
	for _, version := range []string{"mqttv311", "mqttv5"} {
		as := func(id, token string, more ...string) []string {
			return append([]string{"-h", "127.0.0.1", "-p", port, "-V", version, "-i", id, "-u", "x", "-P", token}, more...)
		}
		for qos := range 3 {
			if out, err := run(t, pub, as("pi-1", tokenPi, "-q", fmt.Sprint(qos), "-t", "ingest/pi-1", "-m", `{"a":1}`)...); err != nil {
				t.Errorf("%s, QoS %d: %v %s", version, qos, err, out)
			}
		}
		if out, err := run(t, pub, as("pi-1", "guess", "-t", "ingest/pi-1", "-m", "x")...); err == nil {
			t.Errorf("%s: got in with a wrong token: %s", version, out)
		}
		if out, err := run(t, pub, "-h", "127.0.0.1", "-p", port, "-V", version, "-t", "ingest/pi-1", "-m", "x"); err == nil {
			t.Errorf("%s: got in without a token: %s", version, out)
		}
		if out, err := run(t, sub, as("panel", tokenView, "-t", "telemetry/#", "-C", "1", "-W", "10", "-v")...); err != nil ||
			strings.TrimSpace(out) != "telemetry/pi-1/status online" {
			t.Errorf("%s: %v %q", version, err, out)
		}
		if out, err := run(t, sub, as("panel", tokenView, "-t", "ingest/#", "-C", "1", "-W", "5")...); !strings.Contains(out, "denied") {
			t.Errorf("%s: %v %q", version, err, out)
		}
		// Commands wait while the device is away, and are more than it takes at once.
		away := as("pi-1", tokenPi, "-t", "telemetry/pi-1/cmd/#", "-q", "1", "-c", "-W", "10")
		if version == "mqttv5" {
			away = append(away, "-x", "600")
		}
		if out, err := run(t, sub, append(away, "-E")...); err != nil {
			t.Errorf("%s: %v %s", version, err, out)
		}
		var want []string
		for i := range 50 {
			sendAll(hub, message("telemetry/pi-1/cmd/led", fmt.Sprint(i), 1, uint16(i+1)))
			want = append(want, fmt.Sprint(i))
		}
		if out, err := run(t, sub, append(away, "-C", "50")...); err != nil || !slices.Equal(strings.Fields(out), want) {
			t.Errorf("%s: %v %q", version, err, out)
		}
	}
	eventually(t, "all is stored", func() bool { return len(r.stored.all()) == 6 })
}

func TestNodeClient(t *testing.T) {
	node := need(t, "node", "install Node 20 or newer from https://nodejs.org")
	if _, err := os.Stat("../../dashboard/web/node_modules/mqtt/package.json"); err != nil {
		missing(t, "the npm package mqtt", "run make page")
	}
	for _, version := range []string{"4", "5"} {
		r, port := listening(t)
		out, err := run(t, node, "testdata/client.mjs", "mqtt://127.0.0.1:"+port, version, tokenPi, tokenView, tokenOp)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var got struct {
			Refused  string
			Granted  []int
			Messages [][]any
			Seen     string
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := `[[telemetry/pi-1/cmd/led on 1] [telemetry/pi-1/cmd/led off 2]]`
		if fmt.Sprint(got.Messages) != want || got.Seen != "telemetry/pi-1/cmd/led" || !slices.Equal(got.Granted, []int{2}) {
			t.Errorf("MQTT %s: %s", version, out)
		}
		if !strings.Contains(strings.ToLower(got.Refused), "auth") && !strings.Contains(strings.ToLower(got.Refused), "password") {
			t.Errorf("MQTT %s: refused with %q", version, got.Refused)
		}
		if n := len(r.stored.all()); n != 3 {
			t.Errorf("MQTT %s: %d stored", version, n)
		}
	}
}

// lenient are the statements that mosquitto 2.0.11 does not keep.
var lenient = []string{
	"MQTT-2.2.2-2 reserved flags of PUBACK", "MQTT-2.2.2-2 reserved flags of PINGREQ", "MQTT-3.3.1-2 DUP with QoS 0",
}

// What the statements of the standard forbid ends a connection to mosquitto too.
func TestSameVerdictsAsMosquitto(t *testing.T) {
	path := need(t, "mosquitto", "apt-get install mosquitto")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close() // its port is free for mosquitto
	_, port, _ := net.SplitHostPort(addr)
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous true\npersistence false\nmax_packet_size 65536\n", port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "-c", conf)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = cmd.Process.Kill(), cmd.Wait() })
	other := &rig{dial: func() (net.Conn, error) { return net.Dial("tcp", addr) }}
	eventually(t, "mosquitto listens", func() bool {
		c, err := other.dial()
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	for _, c := range broken {
		for _, version := range []byte{4, 5} {
			if version == 4 && !c.v4 || !strings.HasPrefix(c.name, "MQTT-") || slices.Contains(lenient, c.name) {
				continue
			}
			x := other.connected(t, version, "op", "")
			x.wait = time.Second
			x.write([]byte(c.packet))
			p, err := x.next()
			if ended := err != nil || p.FixedHeader.Type == packets.Disconnect; !ended || os.IsTimeout(err) {
				t.Errorf("%s: mosquitto thinks otherwise, MQTT %d: %s %v", c.name, version, packets.PacketNames[p.FixedHeader.Type], err)
			}
			_ = x.c.Close()
		}
	}
}
