package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// dialers is how many connections are made at a time.
const dialers = 64

// Idle measures what a device costs that is connected and says nothing: it has said hello with a stream and declared its
// metrics, sent one batch, and got its ack.
func (p Plan) Idle(ctx context.Context) (err error) {
	s, err := p.startHub(ctx, p.Dir+"/data")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(p.Dir+"/data")) }()
	before, err := residentMB(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	g, err := Load{URL: s.url, Tokens: s.tokens, Window: 1, Rate: 1}.connect() // with a rate an ack sends nothing
	defer g.close()
	if err != nil {
		return err
	}
	for _, c := range g.conns {
		c.mu.Lock()
		c.sendLocked()
		c.mu.Unlock()
	}
	for deadline := time.Now().Add(time.Minute); g.acked.Load() < uint64(len(g.conns)); {
		if err := g.failed.Load(); err != nil {
			return *err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d devices got an ack in a minute", g.acked.Load(), len(g.conns))
		}
		time.Sleep(10 * time.Millisecond)
	}
	sleep(p.Seconds)
	after, err := residentMB(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	cpu, err := cpuSeconds(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	sleep(p.Seconds)
	later, err := cpuSeconds(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "%d idle devices: %.1f MB before, %.1f MB with them, %.1f kB each; %.2f %% of a core\n",
		len(g.conns), before, after, (after-before)*1000/float64(len(g.conns)), (later-cpu)/p.Seconds*100)
	return nil
}

// connect makes the connections of a load and returns when every device has been welcomed. The generator is never nil.
func (l Load) connect() (*generator, error) {
	g, err := newGenerator(l)
	if err != nil {
		return g, err
	}
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex // guards the fields of g and first
		first error
	)
	tokens := make(chan string)
	for range dialers {
		wg.Go(func() {
			for token := range tokens {
				c, err := g.dial(token)
				for tries := 0; err != nil && tries < 100; tries++ { // the hub lets only so many in at once
					time.Sleep(100 * time.Millisecond)
					c, err = g.dial(token)
				}
				mu.Lock()
				if err != nil {
					first = errors.Join(first, err)
				} else {
					g.conns = append(g.conns, c)
				}
				mu.Unlock()
			}
		})
	}
	for _, token := range l.Tokens {
		tokens <- token
	}
	close(tokens)
	wg.Wait()
	if first != nil {
		return g, first
	}
	for _, c := range g.conns {
		<-c.ready
	}
	return g, nil
}
