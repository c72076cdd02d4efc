package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhereMQTTIsServed(t *testing.T) {
	for _, c := range []struct {
		args  []string
		plain string
		tls   string
	}{
		{nil, "127.0.0.1:1883", ""},
		{[]string{"--mqtt", "off"}, "", ""},
		{[]string{"--mqtt", "127.0.0.1:2"}, "127.0.0.1:2", ""},
		{[]string{"--lan"}, "127.0.0.1:1883", ":8883"},
		{[]string{"--lan", "--mqtts", ":2", "--mqtt", "off"}, "", ":2"},
		{[]string{"--lan", "--mqtts", "off"}, "127.0.0.1:1883", ""},
	} {
		s, err := settingsOf(t, "", nil, append([]string{"--data", "d"}, c.args...)...)
		if err != nil || s.mqtt.addr != c.plain || s.mqtt.tlsAddr != c.tls {
			t.Errorf("%v: %+v, %v", c.args, s, err)
		}
	}
}

func TestMQTTSettingsThatCannotBeMeantAreRefused(t *testing.T) {
	open := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(open, []byte("secret\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--mqtt", "0.0.0.0:1883"}, "--mqtt-plaintext"},
		{[]string{"--mqtt", ":1883"}, "--mqtt-plaintext"},
		{[]string{"--mqtt", "nonsense"}, "--mqtt nonsense"},
		{[]string{"--mqtts", ":8883"}, "needs a certificate"},
		{[]string{"--mqtt-plaintext", "127.0.0.1:1", "--mqtt-plaintext", ""}, "--mqtt-plaintext"},
		{[]string{"--mqtt-bridge-user", "u"}, "--mqtt-bridge-user is about a broker"},
		{[]string{"--mqtt-bridge", "tls://h", "--mqtt-bridge-password-file", open}, "chmod 600"},
		{[]string{"--mqtt-bridge", "tls://h", "--mqtt-bridge-password-file", open + "-not"}, "no such file"},
		{[]string{"--outbox", "much"}, "--outbox much"},
		{[]string{"--outbox", "-5"}, "--outbox -5"},
	} {
		_, err := settingsOf(t, "", nil, append([]string{"--data", "d"}, c.args...)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || exitCode(err) != exitUsage {
			t.Errorf("%v gives %v, want %s", c.args, err, c.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0": 0, "17": 17, "1 kB": 1000, "1KiB": 1024, "1.5GB": 1_500_000_000, "2gib": 2 << 30, "3b": 3} {
		if got, ok := parseSize(text); !ok || got != want {
			t.Errorf("%q is %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "GB", "-1", "NaN", "1e300", "1 parsec", "Inf"} {
		if got, ok := parseSize(text); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestABrokerElsewhereMustBeReachedSafely(t *testing.T) {
	for url, want := range map[string]string{
		"tcp://broker.example": "--mqtt-bridge-plaintext", "http://broker.example": "tls://host", "tls://u:secret@h": "leave out the password",
	} {
		out := command(t, exitUsage, world{env: environment()}, "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--mqtt", "off", "--mqtt-bridge", url)
		if !strings.Contains(out, want) || strings.Contains(out, "secret") {
			t.Errorf("%s: %s", url, out)
		}
	}
}

func TestAPortThatIsTakenIsNoReasonNotToStart(t *testing.T) {
	first := start(t, t.TempDir(), "--mqtt", "127.0.0.1:0")
	_, rest, _ := strings.Cut(first.out.String(), "mqtt://")
	addr, _, _ := strings.Cut(rest, " ")
	out := command(t, exitError, world{env: environment()}, "serve", "--data", t.TempDir(), "--http", "127.0.0.1:0", "--mqtt", addr)
	if !strings.Contains(out, "--mqtt: ") || !strings.Contains(out, "choose another address") {
		t.Errorf("an address that was chosen and is taken: %s", out)
	}
	s := &serveSettings{mqtt: mqttSettings{addr: addr}, data: t.TempDir()}
	log := newScreen()
	b, err := listen(s, s.logger(log))
	if err != nil || !strings.Contains(log.String(), "--mqtt") {
		t.Errorf("an address that was not chosen and is taken: %v, %s", err, log)
	}
	if b != nil {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	}
}
