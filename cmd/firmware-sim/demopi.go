package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"telemetryhub/device/sensor/simbus"
	"telemetryhub/firmware-sim"
)

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

// pi is a simulated Raspberry Pi: a board here, and the device program in a process of its own that reads it.
func (d *demo) pi(ctx context.Context, id string, seed uint64) error {
	dir := filepath.Join(d.dir, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := d.configure(ctx, dir, id); err != nil {
		return err
	}
	b, err := firmwaresim.NewBoard(seed)
	if err != nil {
		return err
	}
	socket := filepath.Join(dir, "board.sock")
	l, err := listenSocket(socket)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return simbus.Serve(ctx, l, b) })
	g.Go(func() error {
		agent, err := d.start(d.device, []string{"PERIPH_SIM=" + socket}, "run", "--quiet", "--config", filepath.Join(dir, "device.yaml"))
		if err != nil {
			return fmt.Errorf("start the device: %w: build it with make build", err)
		}
		select {
		case <-ctx.Done():
			return agent.stop()
		case <-agent.ended:
			return fmt.Errorf("%s has ended: %w", id, errors.Join(agent.err, errEndedItself))
		}
	})
	return g.Wait()
}

// configure writes the configuration of a device. The first time it gets an enrolment token, which it then exchanges for one
// of its own.
func (d *demo) configure(ctx context.Context, dir, id string) error {
	conf := fmt.Sprintf("hub: http://%s\ndevice: %s\ndata: .\nenrolment-file: enrolment\nspool: {sync: 1s}\nsensors:\n"+
		"  - {chip: bme280, bus: I2C1, every: 2s}\n", d.addr, id)
	if err := os.WriteFile(filepath.Join(dir, "device.yaml"), []byte(conf), 0o600); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "token")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	made, err := d.ask(ctx, "enrol", "create", "--uses", "1")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "enrolment"), []byte(made.Token+"\n"), 0o600)
}
