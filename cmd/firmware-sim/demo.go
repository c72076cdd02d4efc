package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"telemetryhub/device/agent"
	"telemetryhub/firmware-sim"
)

// newDemo returns the command behind make run.
func newDemo(w world) *cobra.Command {
	d := demo{world: w}
	c := &cobra.Command{
		Use: "demo", Short: "Start a hub and a few simulated rooms", Args: noArgs,
		Long: "demo starts a hub on a folder of its own, plays simulated rooms into it in a loop, and prints where to look.\n" +
			"Ctrl+C ends both.",
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context()) },
	}
	c.Flags().StringVar(&d.hub, "hub-binary", "bin/hub", "the hub program")
	c.Flags().StringVar(&d.dir, "data", ".run", "folder for the data")
	return c
}

type demo struct {
	world
	hub, dir string
	addr     string
}

func (d *demo) run(ctx context.Context) (err error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	if d.addr, err = freePort(); err != nil {
		return err
	}
	server := exec.Command(d.hub, "serve", "--data", d.data(), "--http", d.addr, "--log-level", "warn")
	server.Stdout, server.Stderr = d.out, d.err
	server.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl+C reaches the rooms first, then the hub
	if err := server.Start(); err != nil {
		return fmt.Errorf("start the hub: %w: build it with make build", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		err := <-ended
		cancel(fmt.Errorf("the hub has ended: %w", errors.Join(err, errHubEnded)))
		ended <- err
	}()
	playErr := d.play(work)
	_ = server.Process.Signal(syscall.SIGTERM) // it may have ended already
	<-exited
	hubErr := <-ended
	if ctx.Err() != nil && hubErr == nil {
		return nil // that is how a demonstration ends
	}
	return errors.Join(playErr, hubErr)
}

var errHubEnded = errors.New("see its message above")

func (d *demo) data() string { return filepath.Join(d.dir, "hub") }

// freePort returns the usual address, or another if somebody has it.
func freePort() (string, error) {
	for _, addr := range []string{"127.0.0.1:8080", "127.0.0.1:0"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		addr = ln.Addr().String()
		return addr, ln.Close()
	}
	return "", errors.New("no free port on 127.0.0.1")
}

// play waits for the hub and plays the rooms until ctx ends.
func (d *demo) play(ctx context.Context) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	admin, err := d.token(ctx, "admin")
	if err != nil {
		return err
	}
	viewer, err := d.token(ctx, "viewer")
	if err != nil {
		return err
	}
	path := filepath.Join(d.dir, "rooms.csv")
	rooms := firmwaresim.Rooms{Devices: []string{"kitchen", "living-room", "office"}, StepMS: 1000, Steps: 900, Seed: 1}
	var recording bytes.Buffer
	if err := rooms.Write(&recording); err != nil {
		return err
	}
	if err := os.WriteFile(path, recording.Bytes(), 0o600); err != nil {
		return err
	}
	rec, err := firmwaresim.Inspect(path)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\n  devices     %s, a reading a second each\n", strings.Join(rooms.Devices, ", "))
	fmt.Fprintf(d.out, "  watch       curl -NH 'Authorization: Bearer %s' http://%s/api/v1/live/sse\n", viewer, d.addr)
	fmt.Fprintf(d.out, "  read        curl -H 'Authorization: Bearer %s' 'http://%s/api/v1/devices/kitchen/readings?metric=temperature'\n", viewer, d.addr)
	fmt.Fprintf(d.out, "  administer  %s --data %s device list\n\nCtrl+C ends it.\n\n", d.hub, d.data())
	err = firmwaresim.Replay(ctx, rec, firmwaresim.ReplayOptions{
		Hub: agent.Endpoint{URL: "http://" + d.addr}, Token: admin, Speed: 1, Loop: true,
		SpoolDir: filepath.Join(d.dir, "spool"), Patience: 30 * time.Second,
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// ready waits until the hub takes readings.
func (d *demo) ready(ctx context.Context) error {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.addr+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_, _ = io.Copy(io.Discard, resp.Body) // only the status counts
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-retry.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// token makes a token for this run; it expires by itself.
func (d *demo) token(ctx context.Context, role string) (string, error) {
	cmd := exec.CommandContext(ctx, d.hub, "token", "create", "--role", role, "--label", "make run", "--expires", "24h", "--data", d.data(), "--output", "json")
	cmd.Stderr = d.err
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	var answer struct{ Token string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	return answer.Token, nil
}
