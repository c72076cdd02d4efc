package ws_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/ws"
)

// TestStockClient runs testdata/stock.mjs with the package ws of npm, which offers compression unless it is told not to.
func TestStockClient(t *testing.T) {
	node, err := exec.LookPath("node")
	modules, absErr := filepath.Abs("../../dashboard/web/node_modules/ws/package.json")
	if absErr != nil {
		t.Fatal(absErr)
	}
	if _, statErr := os.Stat(modules); err != nil || statErr != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Node or ws is missing: run make build first (%v, %v)", err, statErr)
		}
		t.Skip("Node or ws is missing: make build installs it")
	}
	core := realHub(t)
	const devices = 1500 // a snapshot of several frames
	for i := range devices {
		id := device.ID(fmt.Sprint("room-", i))
		if _, err := core.AddDevice(t.Context(), id, hub.DeviceAttrs{}); err != nil {
			t.Fatal(err)
		}
	}
	ingest := func(id device.ID, n int) {
		t.Helper()
		if _, err := core.Ingest(t.Context(), id, wire.JSON, fmt.Appendf(nil, `{"n":%d,"temperature":21.%d,"humidity":4%d}`, n, n+1, n+1)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range devices {
		ingest(device.ID(fmt.Sprint("room-", i)), -1)
	}
	m := new(ws.Metrics)
	handler, err := ws.NewViewers(core.Subscribe, newFakeAuth(), ws.Options{Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, handler, m)
	cmd := exec.Command(node, "testdata/stock.mjs", modules, "ws://"+s.addr+"/api/v1/live", fmt.Sprint(devices))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it has ended already, unless the test fails
		_ = cmd.Wait()
	}()
	passed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch line := lines.Text(); {
		case line == "ready":
			for n := range 100 {
				ingest("room-0", n)
			}
		case line == "passed":
			passed = true
		case strings.HasPrefix(line, "ok "):
			t.Log(line)
		default:
			t.Error(line)
		}
	}
	if !passed || m.FramesDeflated.Load() < 10 {
		t.Errorf("passed: %t, with %d compressed frames", passed, m.FramesDeflated.Load())
	}
}
