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

// Idle measures what the connection of a device costs that says nothing. The devices have been there before, so that what
// the hub knows of them is not counted: each has said hello with a stream, declared its metrics, sent a batch and got its
// ack. Then they come again.
func (p Plan) Idle(ctx context.Context) (err error) {
	s, err := p.startHub(ctx, p.Dir+"/data")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(p.Dir+"/data")) }()
	load := Load{URL: s.url, Tokens: s.tokens, Window: 1, Rate: 1} // with a rate an ack sends nothing
	g, err := load.connect()
	if err == nil {
		err = g.sendOne()
	}
	g.close()
	if err != nil {
		return err
	}
	pid := s.cmd.Process.Pid
	before, err := settled(pid)
	if err != nil {
		return err
	}
	g, err = load.connect()
	defer g.close()
	if err != nil {
		return err
	}
	after, err1 := settled(pid)
	cpu, err2 := cpuSeconds(pid)
	sleep(p.Seconds)
	later, err3 := cpuSeconds(pid)
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "%d idle devices: %.1f MB before, %.1f MB with them, %.1f kB each; %.2f %% of a core\n",
		len(g.conns), before, after, (after-before)*1000/float64(len(g.conns)), (later-cpu)/p.Seconds*100)
	return nil
}

// settled returns the resident memory of a process once it has stopped shrinking: the hub gives memory back only some time
// after it was busy.
func settled(pid int) (float64, error) {
	const interval, still = 5, 6 // seconds, and how many intervals without a change of 1 %
	least, err := residentMB(pid)
	for calm, tries := 0, 0; err == nil && calm < still && tries < 40; tries++ {
		sleep(interval)
		var now float64
		if now, err = residentMB(pid); now < least*0.99 {
			calm = 0
		} else {
			calm++
		}
		least = min(least, now)
	}
	return least, err
}

// sendOne sends a batch from every device and waits for the acks.
func (g *generator) sendOne() error {
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
