package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// following is a hub live that runs inside the test.
type following struct {
	*process
	lines *screen
}

func (p *process) follow(args ...string) *following {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f := &following{process: &process{t: p.t, dir: p.dir, err: newScreen(), cancel: cancel, code: make(chan int, 1)}, lines: newScreen()}
	f.out = f.lines
	w := world{environment("HUB_DATA", p.dir), strings.NewReader(""), f.lines, f.err}
	go func() { f.code <- run(ctx, append([]string{"live"}, args...), w) }()
	p.t.Cleanup(func() { f.stop() })
	return f
}

func TestLivePrintsReadingsAsTheyCome(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "data"))
	device := p.json("device", "add", "porch")["token"].(string)
	file := filepath.Join(t.TempDir(), "viewer")
	if err := os.WriteFile(file, []byte(p.json("token", "create", "--role", "viewer")["token"].(string)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	send := func(body string) {
		if code, text := p.ask("POST", "/api/v1/devices/porch/readings", device, body); code != 204 {
			t.Fatalf("the reading is answered %d %s", code, text)
		}
	}
	send(`{"t":1766000000123,"v":{"temperature":21.5,"note":"\u001b[2J"}}`)
	latest := p.follow("--device", "po*")
	latest.until(latest.lines, "porch  temperature  21.5\n")
	if shown := latest.until(latest.lines, `porch  note  "\x1b[2J"`); strings.ContainsRune(shown, 0x1b) {
		t.Errorf("a device can act on the terminal: %q", shown)
	}
	all := p.follow("--url", p.url(), "--token-file", file, "--mode", "all", "--metric", "level", "--output", "ndjson")
	for began := time.Now(); !strings.Contains(all.lines.String(), `"level"`) && time.Since(began) < patience; { // it does not say when it begins
		send(`{"level":7,"other":true}`)
		send(`{"level":7,"other":true}`)
	}
	line, _, _ := strings.Cut(all.until(all.lines, "\n"), "\n")
	var got struct {
		Device, Metric string
		T              int64
		V              float64
	}
	if err := json.Unmarshal([]byte(line), &got); err != nil || got.Device != "porch" || got.Metric != "level" || got.V != 7 || got.T == 0 {
		t.Errorf("the line is %s: %v", line, err)
	}
	if strings.Contains(all.lines.String(), "other") {
		t.Error("a metric is printed that was not asked for")
	}
	for _, f := range []*following{latest, all} {
		if code := f.stop(); code != exitOK {
			t.Errorf("it ended with %d: %s", code, f.err)
		}
	}
}

func TestLiveSaysWhatIsWrong(t *testing.T) {
	p := start(t, filepath.Join(t.TempDir(), "data"))
	file := filepath.Join(t.TempDir(), "viewer")
	if err := os.WriteFile(file, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text := p.hub(exitAuth, "live", "--url", p.url(), "--token-file", file); !strings.Contains(text, "hub token create") {
		t.Errorf("a wrong token is answered %s", text)
	}
	for _, args := range [][]string{
		{"--mode", "some"}, {"--output", "xml"}, {"--token-file", file}, {"--url", p.url()}, {"--device", "*x"},
		{"--url", "http://192.0.2.1", "--token-file", file}, {"--url", p.url(), "--token-file", file, "--pin", "x"},
	} {
		p.hub(exitUsage, append([]string{"live"}, args...)...)
	}
	p.stop()
	p.hub(exitUnavailable, "live")
}
