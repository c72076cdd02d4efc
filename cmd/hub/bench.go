package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"telemetryhub/cmd/hub/bench"
)

// newBench returns the commands that measure. The hidden ones are the processes of a measurement.
func newBench(w world) *cobra.Command {
	group := &cobra.Command{Use: "bench", Short: "Measure the hub on this machine"}
	ingest := &cobra.Command{
		Use: "ingest", Short: "Measure taking readings in, beside the least that it could cost", Args: cobra.NoArgs,
		Long: "Start a hub on a new folder, drive it from a process of its own, and print how many readings it acknowledges after\n" +
			"fsync and what they cost. Beside it stands the floor: the same WebSocket library, decoding and store with nothing else.",
		RunE: func(c *cobra.Command, _ []string) error {
			return measure(c, w, bench.Plan.Ingest)
		},
	}
	ingest.Flags().Int("devices", 100, "number of devices")
	ingest.Flags().Int("rounds", 1, "how often each measurement is repeated")
	ingest.Flags().Duration("time", 6*time.Second, "how long each measurement takes")
	idle := &cobra.Command{
		Use: "idle", Short: "Measure what connected devices, or viewers, cost that say nothing", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("viewers") {
				return measure(c, w, bench.Plan.IdleViewers)
			}
			return measure(c, w, bench.Plan.Idle)
		},
	}
	idle.Flags().Int("viewers", 0, "measure so many viewers over WebSocket instead of devices")
	idle.Flags().Int("devices", 10_000, "number of devices")
	idle.Flags().Duration("time", 5*time.Second, "how long the hub is left alone before it is measured, and how long its CPU is")
	feed := &cobra.Command{
		Use: "feed", Short: "Measure handing readings on to viewers over WebSocket", Args: cobra.NoArgs,
		Long: "Start a hub that keeps its log in memory on one core, and on another one device that publishes and 200 and 1,000 viewers\n" +
			"of every reading. Beside it stands the floor: a broadcast by the same WebSocket library and nothing else.",
		RunE: func(c *cobra.Command, _ []string) error { return measure(c, w, bench.Plan.Feed) },
	}
	feed.Flags().Int("rounds", 1, "how often each measurement is repeated")
	feed.Flags().Duration("time", 4*time.Second, "how long each measurement takes")
	transports := &cobra.Command{
		Use: "transports", Short: "Measure what each way to follow the live feed costs", Args: cobra.NoArgs,
		Long: "Start a hub as it comes, and watchers that get one update a second each, by polling, long polling, server-sent events and\n" +
			"WebSocket. Beside each way stands the floor: a server in Go that does nothing else, without tokens and without resuming.",
		RunE: func(c *cobra.Command, _ []string) error { return measure(c, w, bench.Plan.Transports) },
	}
	transports.Flags().Int("viewers", 1000, "number of watchers")
	transports.Flags().StringSlice("way", nil, "measure only these ways: "+strings.Join(bench.Ways(), ", "))
	transports.Flags().Int("rounds", 1, "how often each measurement is repeated")
	transports.Flags().Duration("time", 10*time.Second, "how long each measurement takes")
	for _, c := range []*cobra.Command{ingest, idle, feed, transports} {
		c.Flags().String("in", ".", "folder on the disk to measure")
	}
	group.AddCommand(ingest, idle, feed, transports,
		newGenerator(w), newFloor(w), newFeedServer(w), newFeedGenerator(w), newWatchServer(w), newWatchGenerator(w))
	return group
}

// measure runs a benchmark on a folder of its own.
func measure(c *cobra.Command, w world, run func(bench.Plan, context.Context) error) (err error) {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	in, _ := c.Flags().GetString("in")
	dir, err := os.MkdirTemp(in, "hub-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the runs: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	p := bench.Plan{Program: program, Dir: dir, Out: w.out, Rounds: 1}
	if c.Flags().Lookup("devices") != nil {
		p.Devices, _ = c.Flags().GetInt("devices")
	}
	if c.Flags().Lookup("viewers") != nil {
		p.Viewers, _ = c.Flags().GetInt("viewers")
	}
	if c.Flags().Lookup("rounds") != nil {
		p.Rounds, _ = c.Flags().GetInt("rounds")
	}
	if c.Flags().Lookup("way") != nil {
		p.Ways, _ = c.Flags().GetStringSlice("way")
	}
	took, _ := c.Flags().GetDuration("time")
	p.Seconds = took.Seconds()
	return run(p, c.Context())
}

func newGenerator(w world) *cobra.Command {
	return &cobra.Command{Use: "generator", Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return generate[bench.Load](w)
	}}
}

func newFeedGenerator(w world) *cobra.Command {
	return &cobra.Command{Use: "feed-generator", Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return generate[bench.FeedLoad](w)
	}}
}

func newWatchGenerator(w world) *cobra.Command {
	return &cobra.Command{Use: "watch-generator", Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		return generate[bench.WatchLoad](w)
	}}
}

func newWatchServer(w world) *cobra.Command {
	return &cobra.Command{Use: "watch-server", Hidden: true, Args: cobra.NoArgs, RunE: func(c *cobra.Command, _ []string) error {
		f, addr, err := bench.ListenWatchFloor()
		if err != nil {
			return err
		}
		fmt.Fprintln(w.out, addr)
		return f.Run(c.Context())
	}}
}

// generate runs the load that the input describes.
func generate[L interface{ Run() (bench.Result, error) }](w world) error {
	var load L
	if err := json.NewDecoder(w.in).Decode(&load); err != nil {
		return err
	}
	result, err := load.Run()
	if err != nil {
		return err
	}
	return json.NewEncoder(w.out).Encode(result)
}

func newFeedServer(w world) *cobra.Command {
	return &cobra.Command{Use: "feed-server KIND", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		s, addr, err := bench.ListenFeed(c.Context(), args[0])
		if err != nil {
			return err
		}
		fmt.Fprintln(w.out, addr)
		return s.Run(c.Context())
	}}
}

func newFloor(w world) *cobra.Command {
	return &cobra.Command{Use: "floor DIR", Hidden: true, Args: cobra.ExactArgs(1), RunE: func(c *cobra.Command, args []string) error {
		f, addr, err := bench.ListenFloor(args[0], 2*time.Millisecond)
		if err != nil {
			return err
		}
		fmt.Fprintln(w.out, addr)
		<-c.Context().Done()
		return f.Close()
	}}
}
