package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"telemetryhub/device/agent"
	"telemetryhub/device/spool"
	"telemetryhub/firmware-sim"
)

// execute runs a command line without an environment.
func execute(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), args, world{func(string) (string, bool) { return "", false }, &o, &e})
	return code, o.String(), e.String()
}

func recording(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "r.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExitCodesOfTheCommandLine(t *testing.T) {
	good := recording(t, "time_ms,device,level\n1,a,1\n")
	bad := recording(t, "hello\n")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"help", nil, exitOK, ""},
		{"exit codes", []string{"exit-codes"}, exitOK, ""},
		{"unknown command", []string{"fly"}, exitUsage, "unknown command"},
		{"unknown flag", []string{"replay", good, "--fly"}, exitUsage, "unknown flag"},
		{"no file named", []string{"replay"}, exitUsage, "name one recording"},
		{"two files", []string{"replay", good, good}, exitUsage, "name one recording"},
		{"no token", []string{"replay", good}, exitUsage, "hub token create"},
		{"two tokens", []string{"replay", good, "--token", "x", "--token-file", "y"}, exitUsage, "not both"},
		{"no such token file", []string{"replay", good, "--token-file", good + ".none"}, exitNotFound, "token file"},
		{"speed 0", []string{"replay", good, "--token", "x", "--speed", "0"}, exitUsage, "--speed"},
		{"speed of words", []string{"replay", good, "--token", "x", "--speed", "fast"}, exitUsage, "--speed"},
		{"no such file", []string{"replay", good + ".none", "--token", "x"}, exitNotFound, "no such file"},
		{"no recording", []string{"replay", bad, "--token", "x"}, exitUsage, "not a recording"},
		{"no address", []string{"replay", good, "--token", "x", "--hub", "localhost:8080"}, exitUsage, "http://host:port"},
		{"nobody there", []string{"replay", good, "--token", "x", "--hub", closed, "--patience", "50ms"}, exitUnavailable, "cannot be reached"},
	} {
		code, _, errs := execute(t, c.args...)
		if code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("%s: code %d, want %d: %s", c.name, code, c.code, errs)
		}
	}
}

func TestExitCodesOfErrors(t *testing.T) {
	for want, err := range map[int]error{
		exitOK: nil, exitError: errors.New("x"), exitUsage: usagef("x"), exitLost: firmwaresim.ErrLost,
		exitNotFound: fs.ErrNotExist, exitRefused: firmwaresim.ErrRefused, exitUnavailable: firmwaresim.ErrUnreachable,
		exitLocked: spool.ErrLocked, exitNewer: spool.ErrNewerFormat, exitInterrupted: context.Canceled,
	} {
		if err != nil {
			err = fmt.Errorf("deed: %w", err)
		}
		if got := exitCode(err); got != want {
			t.Errorf("%v: code %d, want %d", err, got, want)
		}
		if line := fmt.Sprintf("\n%5d  ", want); !strings.Contains("\n"+exitHelp, line) {
			t.Errorf("code %d is not in the help", want)
		}
	}
	if got := exitCode(fmt.Errorf("device a: %w", &agent.StopError{Code: 4503})); got != exitRefused {
		t.Errorf("a revoked device: code %d, want %d", got, exitRefused)
	}
}

func TestMeterDrawsABarOnATerminalAndLinesElsewhere(t *testing.T) {
	steps := []firmwaresim.Progress{
		{Elapsed: time.Second, Total: 4000000, Acked: 1000000, Sent: 1200000, Devices: 4, Connected: 4},
		{Elapsed: 3 * time.Second, Total: 4000000, Acked: 2000000, Sent: 2100000, Devices: 4, Connected: 1, Err: errors.New("no route\nat all")},
		{Elapsed: 6 * time.Second, Total: 4000000, Acked: 3000000, Sent: 3000000, Devices: 4, Connected: 4},
		{Elapsed: 8 * time.Second, Total: 4000000, Acked: 4000000, Sent: 4000000, Devices: 4, Done: true},
	}
	var lines, bar bytes.Buffer
	for _, m := range []*meter{{w: &lines}, {w: &bar, tty: true}} {
		for _, p := range steps {
			m.show(p)
		}
	}
	want := " 75 %  3,000,000 of 4,000,000 readings acked, 3,000,000 sent, 500,000/s, 4 of 4 devices connected\n" +
		"100 %  4,000,000 of 4,000,000 readings acked, 4,000,000 sent, 500,000/s\n"
	if got := lines.String(); strings.Count(got, "\n") != 2 || !strings.HasSuffix(got, "\n") || got[:55] != want[:55] || !strings.HasSuffix(got, want[len(want)-72:]) {
		t.Errorf("lines:\n%s want about:\n%s", got, want)
	}
	if got := bar.String(); strings.Count(got, "\r") != 4 || strings.Count(got, "\n") != 1 || !strings.Contains(got, "[============            ]  50 %") ||
		!strings.Contains(got, "(no route at all)") {
		t.Errorf("bar: %q", got)
	}
}

func TestNumbersAreGrouped(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 2185160: "2,185,160", 1 << 63: "9,223,372,036,854,775,808"} {
		if got := grouped(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
