package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/sensor"
	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

// configFlag is common to the commands that work on a configuration.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "config", "/etc/telemetry-device/device.yaml", "the configuration")
}

func newRun(w world) *cobra.Command {
	var path string
	var verbose, quiet bool
	c := &cobra.Command{
		Use: "run", Short: "Read the sensors and bring what they say to the hub", Args: noArgs,
		Long:    "run works until it is told to end by SIGINT or SIGTERM.\n\nThe configuration is a YAML file:\n\n" + exampleConfig + "\n" + exitHelp,
		Example: "  device run --config device.yaml",
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := loadConfig(path)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			switch {
			case verbose:
				level = slog.LevelDebug
			case quiet:
				level = slog.LevelWarn
			}
			return runDevice(c.Context(), conf, w, slog.New(slog.NewTextHandler(w.err, &slog.HandlerOptions{Level: level})))
		},
	}
	configFlag(c, &path)
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "say more")
	c.Flags().BoolVarP(&quiet, "quiet", "q", false, "say only what is wrong")
	return c
}

// runDevice works until ctx ends. It acquires from top to bottom, and releases in reverse.
func runDevice(ctx context.Context, c *config, w world, log *slog.Logger) (err error) {
	m, err := openMachine(w)
	if err != nil {
		return err
	}
	for _, line := range m.explain {
		log.Debug("hardware", "driver", line)
	}
	data := c.path(c.Data)
	if err := os.MkdirAll(data, 0o700); err != nil {
		log.Warn("the data folder cannot be made: what is read is kept in memory only", "err", err)
	}
	dial, err := c.dialer(log)
	if err != nil {
		return err
	}
	sp, err := spool.Open(filepath.Join(data, "spool"), spool.Options{
		MaxBytes: int64(c.Spool.MaxMiB) << 20, MaxAge: time.Duration(c.Spool.MaxAge), SyncEvery: time.Duration(c.Spool.Sync), Logger: log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sp.Close()) }()
	clock := agent.SystemClock()
	a, err := agent.New(sp, dial, agent.Options{
		Device: device.ID(c.Device), Firmware: version, Model: model(m), Boot: bootID(), Clock: clock, Logger: log,
	})
	if err != nil {
		return err
	}
	o := sensor.Options{Logger: log}
	if m.simulated {
		o.Quality = device.Simulated
	}
	s, err := sensor.NewSampler(c.specs(), m, sink{a}, o)
	if err != nil {
		return err
	}
	if err := a.Declare(s.Schema()); err != nil {
		return err
	}
	log.Info("reading sensors", "device", c.Device, "sensors", len(c.Sensors), "simulated", m.simulated, "clock", clock.Quality(), "waiting", sp.Status().Waiting)
	sampling, stop := context.WithCancel(ctx)
	defer stop()
	// The agent puts into the spool what was read before its own end, so the sampler ends first.
	delivering, stopAgent := context.WithCancel(context.WithoutCancel(ctx))
	defer stopAgent()
	g := new(errgroup.Group)
	g.Go(func() error {
		defer stopAgent()
		return s.Run(sampling)
	})
	g.Go(func() error {
		defer stop()
		return a.Run(delivering)
	})
	return g.Wait()
}

// sink gives what sensors say to the agent.
type sink struct{ a *agent.Agent }

func (s sink) Sample(ctx context.Context, at time.Time, row device.Row) error {
	return s.a.Sample(ctx, at, row)
}

func (s sink) Fault(alias uint16, source string, err error) {
	e := wire.Event{Level: wire.LevelInfo, Code: "sensor_ok", Msg: source + ": works again", Alias: alias}
	if err != nil {
		e.Level, e.Code, e.Msg = wire.LevelWarn, "sensor_fault", err.Error()
	}
	s.a.Event(e)
}

// model names the hardware: what the board calls itself.
func model(m *machine) string {
	if m.simulated {
		return "simulated"
	}
	raw, err := os.ReadFile("/proc/device-tree/model") // a C string
	if err != nil {
		return ""
	}
	name := strings.TrimRight(string(raw), "\x00\n ")
	return name[:min(len(name), wire.MaxWord)]
}

// bootID names this boot of the machine, empty if it has no name.
func bootID() string {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

func newCheck(w world) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "check", Short: "Check a configuration without doing anything", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			conf, err := loadConfig(path)
			if err != nil {
				return err
			}
			if _, err := conf.dialer(slog.New(slog.DiscardHandler)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(w.out, "%s is good: %d sensors of %s for %s\n", path, len(conf.Sensors), conf.Device, conf.Hub)
			return err
		},
	}
	configFlag(c, &path)
	return c
}
