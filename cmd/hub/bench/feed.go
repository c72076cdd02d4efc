package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// Feed measures handing on what one device sends to many viewers over WebSocket and Socket.IO: the server on one core, the publisher and
// the viewers on another. The hub keeps its log in memory here, since those that it is compared with keep nothing. Every
// viewer must get every reading, or the run fails.
func (p Plan) Feed(ctx context.Context) error {
	fmt.Fprintf(p.Out, "1 publisher, readings of 180 bytes, mode all, tick 0, 16 in flight; server on one core, generator on another of %s\n\n", machine())
	fmt.Fprintf(p.Out, "%-8s %-9s %12s %15s %9s %9s %8s\n", "viewers", "", "deliveries/s", "µs CPU/delivery", "p50", "p99", "RSS MB")
	for _, viewers := range []int{200, 1000} {
		for _, rate := range []int{0, 20_000} {
			for round := range p.Rounds {
				for _, server := range []string{"hub", "socket.io", "floor"} {
					load := FeedLoad{Viewers: viewers, Window: 16, Rate: rate, Floor: server == "floor", SocketIO: server == "socket.io", WarmUp: p.Seconds / 3, Duration: p.Seconds}
					r, rss, err := p.measureFeed(ctx, load)
					if err != nil {
						return fmt.Errorf("%d viewers, %s: %w", viewers, server, err)
					}
					label := ""
					if round == 0 && server == "hub" {
						label = fmt.Sprint(viewers)
					}
					fmt.Fprintf(p.Out, "%-8s %-9s %12.0f %15.3f %6.2f ms %6.2f ms %8.1f\n", label, server,
						float64(r.Readings)/r.Seconds, r.ServerCPU*1e6/float64(r.Readings), r.P50, r.P99, rss)
				}
			}
		}
	}
	return nil
}

func (p Plan) measureFeed(ctx context.Context, load FeedLoad) (r Result, rss float64, err error) {
	server := "hub"
	if load.Floor {
		server = "floor"
	}
	serve := exec.CommandContext(ctx, p.Program, "bench", "feed-server", server)
	s := &process{cmd: serve, stderr: new(bytes.Buffer)}
	serve.Stderr = s.stderr
	out, err := serve.StdoutPipe()
	if err != nil {
		return Result{}, 0, err
	}
	if err := onCore(0, serve.Start); err != nil {
		return Result{}, 0, err
	}
	defer func() { err = errors.Join(err, s.stop(p.Dir+"/data")) }()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return Result{}, 0, fmt.Errorf("start the server: %w: %s", err, s.stderr.String())
	}
	load.Addr, load.PID = strings.TrimSpace(addr), serve.Process.Pid
	doc, err := json.Marshal(load)
	if err != nil {
		return Result{}, 0, err
	}
	gen := exec.CommandContext(ctx, p.Program, "bench", "feed-generator")
	gen.Stdin = bytes.NewReader(doc)
	var result, stderr bytes.Buffer
	gen.Stdout, gen.Stderr = &result, &stderr
	if err := onCore(1, gen.Start); err != nil {
		return Result{}, 0, err
	}
	if err := gen.Wait(); err != nil {
		return Result{}, 0, fmt.Errorf("generator: %w: %s; server: %s", err, stderr.String(), s.stderr.String())
	}
	if err := json.Unmarshal(result.Bytes(), &r); err != nil {
		return Result{}, 0, fmt.Errorf("generator: %w", err)
	}
	rss, err = residentMB(serve.Process.Pid)
	return r, rss, err
}
