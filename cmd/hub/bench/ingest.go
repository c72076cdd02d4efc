package bench

import (
	"bufio"
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
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Plan is a benchmark of ingest.
type Plan struct {
	// Program is this program: servers and generator are processes of it.
	Program string
	// Dir is the folder for the data of the runs; it must exist, and its disk is what is measured.
	Dir string
	// Devices is the number of connections.
	Devices int
	// Viewers is the number of those who follow the live feed.
	Viewers int
	// Ways are the transports to measure, of those that Ways returns; none means all.
	Ways []string
	// Seconds is how long each run measures; a third of it is spent on warming up before.
	Seconds float64
	// Rounds is how often each run is repeated.
	Rounds int
	// Out takes the table.
	Out io.Writer
}

// workload is one row of the table.
type workload struct {
	name         string
	window, rate int
}

var workloads = []workload{
	{"1 batch in flight", 1, 0},
	{"8 batches in flight", 8, 0},
	{"steady 20,000 readings/s", 8, 2000},
}

// Ingest measures the hub and the floor in turn and writes a table.
func (p Plan) Ingest(ctx context.Context) error {
	fmt.Fprintf(p.Out, "%d devices, %d readings a batch, CBOR, acked after fsync; server and generator on the same %s\n\n", p.Devices, readingsPerBatch, machine())
	fmt.Fprintf(p.Out, "%-26s %-6s %12s %14s %9s %9s %8s\n", "", "", "readings/s", "µs CPU/reading", "ack p50", "ack p99", "RSS MB")
	for _, w := range workloads {
		for round := range p.Rounds {
			for _, s := range []struct {
				name  string
				start func(context.Context, string) (*process, error)
			}{{"hub", p.startHub}, {"floor", p.startFloor}} {
				r, rss, err := p.measure(ctx, w, s.start)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, s.name, err)
				}
				label := ""
				if round == 0 && s.name == "hub" {
					label = w.name
				}
				fmt.Fprintf(p.Out, "%-26s %-6s %12.0f %14.2f %6.2f ms %6.2f ms %8.1f\n", label, s.name,
					float64(r.Readings)/r.Seconds, r.ServerCPU*1e6/float64(r.Readings), r.P50, r.P99, rss)
			}
		}
	}
	return nil
}

func machine() string {
	cpus, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "machine"
	}
	return fmt.Sprintf("%d cores", bytes.Count(cpus, []byte("processor\t")))
}

// process is a server to be measured.
type process struct {
	cmd    *exec.Cmd
	url    string
	tokens []string
	stderr *bytes.Buffer
}

// stop ends the process and removes what it wrote.
func (s *process) stop(dir string) error {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = s.cmd.Wait()                          // how it ends does not matter any more
	return os.RemoveAll(dir)
}

func (p Plan) measure(ctx context.Context, w workload, start func(context.Context, string) (*process, error)) (r Result, rss float64, err error) {
	dir := filepath.Join(p.Dir, "data")
	s, err := start(ctx, dir)
	if err != nil {
		return Result{}, 0, errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, s.stop(dir)) }()
	load := Load{URL: s.url, Tokens: s.tokens, Window: w.window, Rate: w.rate, WarmUp: p.Seconds / 3, Duration: p.Seconds, PID: s.cmd.Process.Pid}
	doc, err := json.Marshal(load)
	if err != nil {
		return Result{}, 0, err
	}
	gen := exec.CommandContext(ctx, p.Program, "bench", "generator")
	gen.Stdin = bytes.NewReader(doc)
	var stderr bytes.Buffer
	gen.Stderr = &stderr
	out, err := gen.Output()
	if err != nil {
		return Result{}, 0, fmt.Errorf("generator: %w: %s; server: %s", err, stderr.String(), s.stderr.String())
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return Result{}, 0, fmt.Errorf("generator: %w", err)
	}
	rss, err = residentMB(s.cmd.Process.Pid)
	return r, rss, err
}

// startHub starts a hub as it comes, and adds its devices.
func (p Plan) startHub(ctx context.Context, dir string) (*process, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return nil, err
	}
	s := &process{url: "ws://" + addr + "/device/v1", stderr: new(bytes.Buffer)}
	s.cmd = exec.CommandContext(ctx, p.Program, "serve", "--data", dir, "--http", addr, "--log-level", "warn")
	s.cmd.Stderr = s.stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := ready(ctx, "http://"+addr+"/readyz"); err != nil {
		return nil, errors.Join(err, s.stop(dir))
	}
	var list strings.Builder
	for i := range p.Devices {
		fmt.Fprintf(&list, "bench-%d\n", i)
	}
	add := exec.CommandContext(ctx, p.Program, "device", "add", "--from", "-", "--data", dir, "--output", "json")
	add.Stdin = strings.NewReader(list.String())
	out, err := add.Output()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("add devices: %w", err), s.stop(dir))
	}
	var added []struct{ Token string }
	if err := json.Unmarshal(out, &added); err != nil {
		return nil, errors.Join(fmt.Errorf("add devices: %w", err), s.stop(dir))
	}
	for _, d := range added {
		s.tokens = append(s.tokens, d.Token)
	}
	return s, nil
}

// ready waits until the hub says that it is.
func ready(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the hub did not become ready: %w", errors.Join(err, ctx.Err()))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// startFloor starts a floor at the pace of the hub.
func (p Plan) startFloor(ctx context.Context, dir string) (*process, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s, err := p.startServer(ctx, "floor", dir)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s.tokens = make([]string, p.Devices)
	return s, nil
}

// startServer starts a server of this program that prints its address.
func (p Plan) startServer(ctx context.Context, args ...string) (*process, error) {
	s := &process{stderr: new(bytes.Buffer)}
	s.cmd = exec.CommandContext(ctx, p.Program, append([]string{"bench"}, args...)...)
	s.cmd.Stderr = s.stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = s.cmd.Wait() // it has said why
		return nil, fmt.Errorf("start %s: %w: %s", args[0], err, s.stderr.String())
	}
	s.url = "ws://" + strings.TrimSpace(addr) + "/device/v1"
	return s, nil
}

// cpuSeconds returns the processor time that a process has used (proc(5), fields 14 and 15 of stat).
func cpuSeconds(pid int) (float64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("unexpected /proc/%d/stat", pid)
	}
	const ticks = 100 // USER_HZ, the same on every Linux that Go runs on
	user, err1 := strconv.ParseFloat(fields[11], 64)
	system, err2 := strconv.ParseFloat(fields[12], 64)
	return (user + system) / ticks, errors.Join(err1, err2)
}

// residentMB returns the memory of a process that is in RAM, in millions of bytes.
func residentMB(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmRSS:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("no VmRSS in /proc/%d/status", pid)
}
