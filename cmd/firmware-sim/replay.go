package main

import (
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"telemetryhub/device/agent"
	"telemetryhub/firmware-sim"
)

// replayFlags are the flags of replay as they were given.
type replayFlags struct {
	hub, token, tokenFile, pin string
	plaintext                  bool
	speed                      string
	maxGap, patience           time.Duration
	loop, quiet, verbose       bool
	spool, state               string
}

func newReplay(w world) *cobra.Command {
	var f replayFlags
	c := &cobra.Command{
		Use:   "replay FILE.csv[.gz]",
		Short: "Play a recording of real sensors as a fleet",
		Long: "replay plays each device in the recording as a device of its own, with spool, credit and resume, and ends when the hub\n" +
			"has acknowledged every reading. It adds the devices that it needs. It goes on when the hub is restarted meanwhile.\n\n" +
			"The file is a table in CSV, gzipped or not: time_ms,device, then one column for each metric.\n\n" + exitHelp,
		Example: "  firmware-sim replay room-climate-A.csv.gz --hub http://127.0.0.1:8080 --token-file token --speed max\n" +
			"  firmware-sim replay room-climate-A.csv.gz --hub https://hub.local:8443 --pin sha256//… --speed 1 --loop --max-gap 5s",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("name one recording: see %s --help", c.CommandPath())
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return replay(c, w, &f, args[0]) },
	}
	fl := c.Flags()
	fl.StringVar(&f.hub, "hub", "http://127.0.0.1:8080", "address of the hub")
	fl.StringVar(&f.token, "token", "", "API token that may add devices (better: HUB_TOKEN or --token-file, which other users cannot see)")
	fl.StringVar(&f.tokenFile, "token-file", "", "file with the token")
	fl.StringVar(&f.pin, "pin", "", "fingerprint of the hub's certificate, as the hub prints it")
	fl.BoolVar(&f.plaintext, "plaintext", false, "send tokens without TLS beyond this machine")
	fl.StringVar(&f.speed, "speed", "1", "1 plays in recorded time, 10 ten times as fast, max as fast as the hub takes it")
	fl.DurationVar(&f.maxGap, "max-gap", 0, "shorten longer gaps to this (0: leave them)")
	fl.BoolVar(&f.loop, "loop", false, "begin again at the end, and stamp readings with the present time")
	fl.StringVar(&f.spool, "spool", "", "folder for the spools of the devices (default: in memory)")
	fl.StringVar(&f.state, "state", "", "file that remembers device tokens and how far it came (default: replay.json in --spool)")
	fl.DurationVar(&f.patience, "patience", 30*time.Second, "how long to wait for the hub at the start")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "show no progress")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "show what each device does")
	return c
}

func replay(c *cobra.Command, w world, f *replayFlags, path string) error {
	token, err := f.secret(w)
	if err != nil {
		return err
	}
	speed, err := parseSpeed(f.speed)
	if err != nil {
		return err
	}
	o := firmwaresim.ReplayOptions{
		Hub:   agent.Endpoint{URL: strings.TrimSuffix(f.hub, "/"), Pin: f.pin, Plaintext: f.plaintext},
		Token: token, Speed: speed, MaxGap: f.maxGap, Loop: f.loop, SpoolDir: f.spool, StateFile: f.state, Patience: f.patience,
	}
	if f.verbose {
		o.Logger = slog.New(slog.NewTextHandler(w.err, nil))
	}
	rec, err := firmwaresim.Inspect(path)
	if err != nil {
		return err
	}
	meter := newMeter(w.err)
	if !f.quiet {
		fmt.Fprintf(w.err, "%s: %d devices, %d metrics, %d rows, %s readings\n",
			path, len(rec.Devices), len(rec.Metrics), rec.Rows, grouped(uint64(rec.Readings)))
		if texts := rec.Texts(); len(texts) > 0 {
			fmt.Fprintf(w.err, "not every field is a number, so taken as text: %s\n", strings.Join(texts, ", "))
		}
		if rec.Early > 0 && !f.loop {
			fmt.Fprintf(w.err, "%d rows are from before the year 2000: the hub files them under the time of arrival; "+
				"time_ms counts milliseconds since 1970\n", rec.Early)
		}
		o.Progress, o.Every = meter.show, meter.every
	}
	began := time.Now()
	if err := firmwaresim.Replay(c.Context(), rec, o); err != nil {
		return err
	}
	if !f.quiet {
		fmt.Fprintf(w.out, "all readings acknowledged in %v\n", time.Since(began).Round(10*time.Millisecond))
	}
	return nil
}

// secret finds the token: flag, file, environment.
func (f *replayFlags) secret(w world) (string, error) {
	switch {
	case f.token != "" && f.tokenFile != "":
		return "", usagef("give --token or --token-file, not both")
	case f.token != "":
		return f.token, nil
	case f.tokenFile != "":
		data, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return "", fmt.Errorf("token file: %w", err)
		}
		return strings.TrimSpace(string(data)), nil
	}
	if t, ok := w.env("HUB_TOKEN"); ok && t != "" {
		return t, nil
	}
	return "", usagef("a token that may add devices is needed: hub token create --role admin prints one; give it by HUB_TOKEN or --token-file")
}

// parseSpeed returns zero for max.
func parseSpeed(s string) (float64, error) {
	if s == "max" {
		return 0, nil
	}
	v, err := strconv.ParseFloat(strings.TrimSuffix(s, "x"), 64)
	if err != nil || !(v > 0 && v <= 1e9) {
		return 0, usagef("--speed %q: use a number above 0, or max", s)
	}
	return v, nil
}
