package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"telemetryhub/device/agent"
	"telemetryhub/firmware-sim"
)

// newDemo returns the command behind make run.
func newDemo(w world) *cobra.Command {
	d := demo{world: w}
	c := &cobra.Command{
		Use: "demo", Short: "Start a hub, simulated Raspberry Pis and a few rooms", Args: noArgs,
		Long: "demo starts a hub on a folder of its own, three simulated Raspberry Pis whose sensors the device program reads, and three\n" +
			"rooms that are played in a loop. It prints where to look. Ctrl+C ends all of it.",
		RunE: func(c *cobra.Command, _ []string) error { return d.run(c.Context()) },
	}
	c.Flags().StringVar(&d.hub, "hub-binary", "bin/hub", "the hub program")
	c.Flags().StringVar(&d.device, "device-binary", "bin/device", "the device program")
	c.Flags().StringVar(&d.dir, "data", ".run", "folder for the data")
	return c
}

type demo struct {
	world
	hub, device, dir string
	addr, mqtt       string // of the hub
}

// pis are the simulated Raspberry Pis; each stands in a room of its own.
var pis = []string{"pi-greenhouse", "pi-workshop", "pi-cellar"}

func (d *demo) run(ctx context.Context) (err error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return err
	}
	if d.addr, err = freePort("127.0.0.1:8080"); err != nil {
		return err
	}
	if d.mqtt, err = freePort("127.0.0.1:1883"); err != nil {
		return err
	}
	server, err := d.start(d.hub, nil, "serve", "--data", d.data(), "--http", d.addr, "--mqtt", d.mqtt, "--log-level", "warn")
	if err != nil {
		return fmt.Errorf("start the hub: %w: build it with make build", err)
	}
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with the hub, for which the end of this function waits
		<-server.ended
		cancel(fmt.Errorf("the hub has ended: %w", errors.Join(server.err, errEndedItself)))
	}()
	playErr := d.play(work)
	hubErr := server.stop()
	if ctx.Err() != nil && hubErr == nil {
		return nil // that is how a demonstration ends
	}
	return errors.Join(playErr, hubErr)
}

var errEndedItself = errors.New("see its message above")

func (d *demo) data() string { return filepath.Join(d.dir, "hub") }

// freePort returns the usual address, or another if somebody has it.
func freePort(usual string) (string, error) {
	for _, addr := range []string{usual, "127.0.0.1:0"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		addr = ln.Addr().String()
		return addr, ln.Close()
	}
	return "", errors.New("no free port on 127.0.0.1")
}

// play waits for the hub and then runs the devices until ctx ends.
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
	link, err := d.ask(ctx, "user", "link", "admin", "--login")
	if err != nil {
		return fmt.Errorf("make a login link: %w", err)
	}
	rec, rooms, err := d.rooms()
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\n  OPEN        %s\n              logs you in, once, for 15 minutes from now; start again for a new one\n", link.URL)
	fmt.Fprintf(d.out, "\n  devices     %s (simulated Raspberry Pis, read by bin/device)\n              %s (played in a loop)\n",
		strings.Join(pis, ", "), strings.Join(rooms, ", "))
	fmt.Fprintf(d.out, "  watch       curl -NH 'Authorization: Bearer %s' http://%s/api/v1/live/sse\n", viewer, d.addr)
	host, port, err := net.SplitHostPort(d.mqtt)
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  mqtt        mosquitto_sub -h %s -p %s -u viewer -P %s -t 'telemetry/#' -v\n", host, port, viewer)
	fmt.Fprintf(d.out, "  read        curl -H 'Authorization: Bearer %s' 'http://%s/api/v1/devices/pi-greenhouse/readings?metric=temperature'\n", viewer, d.addr)
	fmt.Fprintf(d.out, "  administer  %s --data %s device list\n\nCtrl+C ends it.\n\n", d.hub, d.data())
	g, ctx := errgroup.WithContext(ctx)
	for i, id := range pis {
		g.Go(func() error { return d.pi(ctx, id, uint64(i)+1) })
	}
	g.Go(func() error {
		return firmwaresim.Replay(ctx, rec, firmwaresim.ReplayOptions{
			Hub: agent.Endpoint{URL: "http://" + d.addr}, Token: admin, Speed: 1, Loop: true,
			SpoolDir: filepath.Join(d.dir, "spool"), Patience: 30 * time.Second,
		})
	})
	if err := g.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// rooms makes the recording that is played in a loop.
func (d *demo) rooms() (*firmwaresim.Recording, []string, error) {
	rooms := firmwaresim.Rooms{Devices: []string{"kitchen", "living-room", "office"}, StepMS: 1000, Steps: 900, Seed: 1}
	var recording bytes.Buffer
	if err := rooms.Write(&recording); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(d.dir, "rooms.csv")
	if err := os.WriteFile(path, recording.Bytes(), 0o600); err != nil {
		return nil, nil, err
	}
	rec, err := firmwaresim.Inspect(path)
	return rec, rooms.Devices, err
}

// made is what the hub's command line answers when it has made something.
type made struct{ Token, URL string }

// ask runs a command of the hub's command line.
func (d *demo) ask(ctx context.Context, args ...string) (a made, err error) {
	cmd := exec.CommandContext(ctx, d.hub, append(args, "--data", d.data(), "--output", "json")...)
	cmd.Stderr = d.err
	out, err := cmd.Output()
	if err != nil {
		return a, fmt.Errorf("hub %s: %w", strings.Join(args, " "), err)
	}
	if err := json.Unmarshal(out, &a); err != nil {
		return a, fmt.Errorf("hub %s: %w", strings.Join(args, " "), err)
	}
	return a, nil
}

// token makes a token for this run; it expires by itself.
func (d *demo) token(ctx context.Context, role string) (string, error) {
	a, err := d.ask(ctx, "token", "create", "--role", role, "--label", "make run", "--expires", "24h")
	return a.Token, err
}
