package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Transports measures what it costs to tell many watchers of one change a second, by each way that there is. The hub is one as
// it comes, with its data on the disk: it looks at tokens, can resume, and counts. Beside each way stands the floor: a server of
// net/http, or of gws for WebSocket, that hands on what it gets and does nothing else. Every watcher must get every update, or
// the run fails. They accept compression, which the hub takes and the floor does not.
func (p Plan) Transports(ctx context.Context) error {
	for _, name := range p.Ways {
		if !slices.Contains(Ways(), name) {
			return fmt.Errorf("there is no way %q: there are %s", name, strings.Join(Ways(), ", "))
		}
	}
	fmt.Fprintf(p.Out, "%d watchers, 1 update a second each: four readings of one device at one time, 180 bytes, mode all; "+
		"server on one core, generator on another of %s\n"+
		"watchers accept compression, as browsers do: deflate and gzip over HTTP, permessage-deflate over WebSocket\n\n",
		p.Viewers, machine())
	fmt.Fprintf(p.Out, "%-10s %-6s %14s %6s %11s %11s %10s %10s %8s\n", "", "", "µs CPU/update", "ratio", "bytes up", "bytes down", "p50", "p99", "RSS MB")
	for _, way := range ways {
		if len(p.Ways) > 0 && !slices.Contains(p.Ways, way.name) {
			continue
		}
		costs := map[string][]float64{}
		for round := range p.Rounds {
			for _, server := range []string{"floor", "hub"} {
				r, rss, err := p.measureWatch(ctx, server, way.name)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", way.name, server, err)
				}
				label, ratio, cost := "", "", r.ServerCPU*1e6/float64(r.Readings)
				costs[server] = append(costs[server], cost)
				if server == "hub" {
					ratio = strconv.FormatFloat(cost/costs["floor"][round], 'f', 2, 64)
				}
				if round == 0 && server == "floor" {
					label = way.name
				}
				fmt.Fprintf(p.Out, "%-10s %-6s %14.1f %6s %11.0f %11.0f %7.2f ms %7.2f ms %8.1f\n", label, server, cost, ratio,
					float64(r.Up)/float64(r.Readings), float64(r.Down)/float64(r.Readings), r.P50, r.P99, rss)
			}
		}
		if p.Rounds > 1 {
			floor, hub := median(costs["floor"]), median(costs["hub"])
			fmt.Fprintf(p.Out, "%-10s %-6s %14.1f %6.2f   over %.1f\n", "", "median", hub, hub/floor, floor)
		}
	}
	return nil
}

// median sorts the values and returns the one in the middle.
func median(values []float64) float64 {
	slices.Sort(values)
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// measureWatch runs one server with the watchers of one way.
func (p Plan) measureWatch(ctx context.Context, server, way string) (r Result, rss float64, err error) {
	dir := filepath.Join(p.Dir, "data")
	load := WatchLoad{Way: way, Floor: server == "floor", Device: "bench-0", Watchers: p.Viewers, WarmUp: p.Seconds / 4, Duration: p.Seconds}
	p.Devices = 1
	var s *process
	err = onCore(0, func() (err error) {
		if load.Floor {
			s, err = p.startServer(ctx, "watch-server")
		} else if s, err = p.startHub(ctx, dir); err == nil {
			load.DeviceToken = s.tokens[0]
			load.Token, err = p.viewerToken(ctx, dir)
		}
		return err
	})
	if s != nil {
		defer func() { err = errors.Join(err, s.stop(dir)) }()
	}
	if err != nil {
		return Result{}, 0, err
	}
	load.Addr, load.PID = s.addr(), s.cmd.Process.Pid
	if err := p.generate(ctx, "watch-generator", load, &r); err != nil {
		return Result{}, 0, fmt.Errorf("%w; server: %s", err, s.stderr.String())
	}
	rss, err = residentMB(load.PID)
	return r, rss, err
}

// addr is the host and port of a server.
func (s *process) addr() string {
	rest := strings.TrimPrefix(s.url, "ws://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// viewerToken makes a token at the hub on dir.
func (p Plan) viewerToken(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, p.Program, "token", "create", "--role", "viewer", "--data", dir, "--output", "json").Output()
	if err != nil {
		return "", fmt.Errorf("make a token: %w", err)
	}
	var made struct{ Token string }
	err = json.Unmarshal(out, &made)
	return made.Token, err
}

// generate runs a generator on the second core.
func (p Plan) generate(ctx context.Context, name string, load any, into *Result) error {
	doc, err := json.Marshal(load)
	if err != nil {
		return err
	}
	gen := exec.CommandContext(ctx, p.Program, "bench", name)
	gen.Stdin = bytes.NewReader(doc)
	var out, stderr bytes.Buffer
	gen.Stdout, gen.Stderr = &out, &stderr
	if err := onCore(1, gen.Start); err != nil {
		return err
	}
	if err := gen.Wait(); err != nil {
		return fmt.Errorf("generator: %w: %s", err, stderr.String())
	}
	return json.Unmarshal(out.Bytes(), into)
}

// runSeconds is the time that the threads of a process have run, in finer steps than cpuSeconds: what is measured here is a
// hundredth of a core. Go keeps its threads, so none of it is lost.
func runSeconds(pid int) (float64, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(lists) == 0 {
		return cpuSeconds(pid)
	}
	var sum float64
	for _, name := range lists {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, parseErr := strconv.ParseFloat(first, 64)
		if err := errors.Join(err, parseErr); err != nil {
			return 0, err
		}
		sum += ns / 1e9
	}
	return sum, nil
}
