package sio_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestStockClient runs testdata/stock.mjs with socket.io-client from npm against a hub that it has killed in between.
func TestStockClient(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	modules, absErr := filepath.Abs("../../dashboard/web/node_modules/socket.io-client/package.json")
	if absErr != nil {
		t.Fatal(absErr)
	}
	if _, statErr := os.Stat(modules); err != nil || statErr != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("Node or socket.io-client is missing: run make build first (%v, %v)", err, statErr)
		}
		t.Skip("Node or socket.io-client is missing: make build installs it")
	}
	for name, transports := range map[string]string{"default": "", "polling": "polling", "websocket": "websocket"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runStock(t, node, modules, transports)
		})
	}
}

func runStock(t *testing.T, node, modules, transports string) {
	c := startHub(t)
	cmd := exec.Command(node, "testdata/stock.mjs", modules, "http://"+c.addr, transports)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
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
		case line == "kill":
			c.kill()
			if err := c.start(); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Write([]byte("killed\n")); err != nil {
				t.Fatal(err)
			}
		case line == "passed":
			passed = true
		case strings.HasPrefix(line, "ok "):
			t.Log(line)
		default:
			t.Error(line)
		}
	}
	if !passed {
		t.Error("the script did not get to its end")
	}
}
