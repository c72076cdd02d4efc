package main

import (
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestMain is also a program that starts another one, for the test below.
func TestMain(m *testing.M) {
	if os.Getenv("FIRMWARE_SIM_TEST_PARENT") != "" {
		c, err := (&demo{world: world{out: os.Stdout, err: os.Stderr}}).start("sh", nil, "-c", "echo started; exec sleep 600")
		if err != nil {
			os.Exit(1)
		}
		<-c.ended
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestNothingIsLeftOfADemonstration kills a process that has started another one. Both hold the end of a pipe.
func TestNothingIsLeftOfADemonstration(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "FIRMWARE_SIM_TEST_PARENT=1")
	cmd.Stderr = os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if err := r.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, len("started\n"))); err != nil {
		t.Fatalf("it does not start: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("it is still there: %q, %v", rest, err)
	}
	_ = cmd.Wait() // it was killed
}
