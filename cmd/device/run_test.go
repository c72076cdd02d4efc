package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"telemetryhub/device/sensor/simbus"
	"telemetryhub/firmware-sim"
)

// execute runs a command line; sim is the socket of a simulated board.
func execute(t *testing.T, sim string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	env := func(name string) (string, bool) { return sim, name == simEnv && sim != "" }
	code = run(t.Context(), args, world{env, &o, &e})
	return code, o.String(), e.String()
}

// board serves a simulated board and returns its socket.
func board(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "board.sock")
	b, err := firmwaresim.NewBoard(1)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- simbus.Serve(ctx, l, b) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return path
}

// write makes a configuration in a folder of its own, with a token beside it that only its owner can read.
func write(t *testing.T, text string) (path string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"device.yaml": text, "token": "thd_something\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "device.yaml")
}

const good = `hub: http://127.0.0.1:8080
device: greenhouse-1
data: data
token-file: token
sensors:
  - {chip: bme280, bus: I2C1, every: 10s}
`

func TestConfigurationsThatCannotBeAreRefusedWithAReason(t *testing.T) {
	if code, out, errs := execute(t, "", "check", "--config", write(t, good)); code != exitOK || !strings.Contains(out, "is good") {
		t.Fatalf("the good one: %d %s%s", code, out, errs)
	}
	for name, tc := range map[string]struct{ old, new, says string }{
		"unknown key":        {"data: data", "data: data\nspeed: 3", "speed"},
		"unknown key below":  {"every: 10s", "evry: 10s", "evry"},
		"not YAML":           {"sensors:", "sensors: [", "device.yaml"},
		"no device":          {"device: greenhouse-1", "device: Green House", "device"},
		"no hub":             {"hub: http://127.0.0.1:8080", "hub: 127.0.0.1:8080", "begin it with http"},
		"plain text":         {"127.0.0.1:8080", "hub.example:8080", "use https"},
		"pin without TLS":    {"data: data", "data: data\npin: sha256//AAAA", "only with https"},
		"no data":            {"data: data\n", "", "name a folder"},
		"no token":           {"token-file: token\n", "", "enrolment-file"},
		"two tokens":         {"token-file: token", "token-file: token\nenrolment-file: e", "one of them"},
		"token is missing":   {"token-file: token", "token-file: tokn", "no such file"},
		"no sensors":         {"  - {chip: bme280, bus: I2C1, every: 10s}\n", "  []\n", "device scan"},
		"unknown chip":       {"chip: bme280", "chip: bme281", "is not known"},
		"impossible address": {"bus: I2C1", "bus: I2C1, address: 0x10", "0x76, 0x77"},
		"no time":            {"every: 10s", "every: soon", "soon"},
		"too often":          {"every: 10s", "every: 1ms", "100ms"},
		"twice the same": {"sensors:\n  - {chip: bme280, bus: I2C1, every: 10s}",
			"sensors:\n  - {chip: bme280, bus: I2C1}\n  - {chip: bme280, bus: I2C1, address: 0x77}", "prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(good, tc.old, tc.new, 1)
			if text == good {
				t.Fatal("the case changes nothing")
			}
			code, _, errs := execute(t, "", "check", "--config", write(t, text))
			if want := exitUsage; code != want && !(code == exitError && name == "token is missing") || !strings.Contains(errs, tc.says) {
				t.Errorf("exit code %d, %s", code, errs)
			}
		})
	}
}

func TestErrorOfAConfigurationNamesItsLine(t *testing.T) {
	_, _, errs := execute(t, "", "check", "--config", write(t, strings.Replace(good, "data: data", "dada: data", 1)))
	if !strings.Contains(errs, "[3:1]") || !strings.Contains(errs, "dada") {
		t.Errorf("got %s", errs)
	}
}

func TestTokenThatOthersCanReadIsRefused(t *testing.T) {
	path := write(t, good)
	if err := os.Chmod(filepath.Join(filepath.Dir(path), "token"), 0o640); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := execute(t, "", "run", "--config", path); code != exitUsage || !strings.Contains(errs, "chmod 600") {
		t.Errorf("%d %s", code, errs)
	}
}

func TestMissingConfigurationComesWithAnExample(t *testing.T) {
	code, _, errs := execute(t, "", "run", "--config", filepath.Join(t.TempDir(), "device.yaml"))
	if code != exitUsage || !strings.Contains(errs, "enrolment-file: enrolment") {
		t.Errorf("%d %s", code, errs)
	}
	// The example itself is one that is taken, but for the fingerprint.
	text := strings.NewReplacer("pin: sha256//…", "# pin:", "enrolment-file: enrolment ", "token-file: token ").Replace(exampleConfig)
	if code, _, errs := execute(t, "", "check", "--config", write(t, text)); code != exitOK {
		t.Errorf("the example: %d %s", code, errs)
	}
}

func TestSensorsAreScannedAndRead(t *testing.T) {
	sim := board(t)
	code, out, errs := execute(t, sim, "scan")
	if code != exitOK || !strings.Contains(out, "- chip: bme280\n    bus: I2C1\n    address: 0x76") {
		t.Errorf("scan: %d %s%s", code, out, errs)
	}
	// What scan prints is a piece of a configuration.
	text := good[:strings.Index(good, "sensors:")] + out
	if code, out, errs = execute(t, sim, "read", "--config", write(t, text)); code != exitOK || strings.Count(out, "bme280@I2C1/0x76") != 3 {
		t.Errorf("read: %d %s%s", code, out, errs)
	}
	two := strings.Replace(good, "sensors:", "sensors:\n  - {chip: bme280, bus: I2C1, address: 0x77, prefix: b/}", 1)
	if code, out, errs = execute(t, sim, "read", "--config", write(t, two)); code != exitPartial || !strings.Contains(errs, "0x77") || strings.Count(out, "\n") != 3 {
		t.Errorf("read with a sensor that is not there: %d %s%s", code, out, errs)
	}
	if code, _, errs := execute(t, sim, "scan", "--bus", "I2C9"); code != exitError || !strings.Contains(errs, "it has I2C1") {
		t.Errorf("scan of a bus that is not there: %d %s", code, errs)
	}
}

func TestMachineWithoutHardwareSaysWhatToDo(t *testing.T) {
	if _, err := os.Stat("/dev/i2c-1"); err == nil {
		t.Skip("this machine has a bus I2C1")
	}
	if code, out, errs := execute(t, "", "hardware"); code != exitOK || !strings.Contains(out, "sysfs-i2c") {
		t.Errorf("hardware: %d %s%s", code, out, errs)
	}
	if code, _, errs := execute(t, "", "scan"); code != exitError || !strings.Contains(errs, "raspi-config") {
		t.Errorf("scan: %d %s", code, errs)
	}
}

func TestExitCodesAreExplained(t *testing.T) {
	_, out, _ := execute(t, "", "exit-codes")
	for _, code := range []string{"  0 ", "  1 ", "  2 ", "  3 ", "  5 ", " 10 ", " 11 ", " 13 ", "130 "} {
		if !strings.Contains(out, code) {
			t.Errorf("%q is not explained", code)
		}
	}
	if code, _, errs := execute(t, "", "fly"); code != exitUsage || !strings.Contains(errs, "unknown command") {
		t.Errorf("%d %s", code, errs)
	}
}
