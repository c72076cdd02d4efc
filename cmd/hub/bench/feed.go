package bench

import (
	"context"
	"errors"
	"fmt"
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
	kind := "hub"
	if load.Floor {
		kind = "floor"
	}
	var s *process
	err = onCore(0, func() (err error) {
		s, err = p.startServer(ctx, "feed-server", kind)
		return err
	})
	if err != nil {
		return Result{}, 0, err
	}
	defer func() { err = errors.Join(err, s.stop(p.Dir+"/data")) }()
	load.Addr, load.PID = s.addr(), s.cmd.Process.Pid
	if err := p.generate(ctx, "feed-generator", load, &r); err != nil {
		return Result{}, 0, fmt.Errorf("%w; server: %s", err, s.stderr.String())
	}
	rss, err = residentMB(load.PID)
	return r, rss, err
}
