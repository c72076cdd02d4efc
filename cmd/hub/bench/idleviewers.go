package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// IdleViewers measures what a viewer over WebSocket costs to whom nothing is told: it has subscribed to everything and got its
// snapshot, and then only pings come, which it answers.
func (p Plan) IdleViewers(ctx context.Context) (err error) {
	p.Devices = 1
	dir := p.Dir + "/data"
	s, err := p.startHub(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop(dir)) }()
	token, err := p.viewerToken(ctx, dir)
	if err != nil {
		return err
	}
	pid := s.cmd.Process.Pid
	before, err := settled(pid)
	if err != nil {
		return err
	}
	idle, err := cpuShare(pid, p.Seconds)
	if err != nil {
		return err
	}
	v := &idleViewers{failed: make(chan error, p.Viewers)}
	defer v.close()
	if err := v.connect(s.addr(), token, p.Viewers); err != nil {
		return err
	}
	after, err := settled(pid)
	if err != nil {
		return err
	}
	share, err := cpuShare(pid, p.Seconds)
	if err != nil {
		return err
	}
	select {
	case err := <-v.failed:
		return fmt.Errorf("a viewer was lost: %w", err)
	default:
	}
	fmt.Fprintf(p.Out, "%d idle viewers: %.1f MB before, %.1f MB with them, %.1f kB each; %.2f %% of a core before, %.2f %% with them\n",
		p.Viewers, before, after, (after-before)*1000/float64(p.Viewers), idle, share)
	return nil
}

// cpuShare returns how much of a core a process uses, in percent.
func cpuShare(pid int, seconds float64) (float64, error) {
	before, err1 := runSeconds(pid)
	sleep(seconds)
	after, err2 := runSeconds(pid)
	return (after - before) / seconds * 100, errors.Join(err1, err2)
}

// idleViewers are connections that only answer pings.
type idleViewers struct {
	conns   []net.Conn
	failed  chan error
	reading sync.WaitGroup
}

func (v *idleViewers) close() {
	for _, c := range v.conns {
		_ = c.Close() // the run is over
	}
	v.reading.Wait()
}

func (v *idleViewers) connect(addr, token string, n int) error {
	for range n {
		conn, in, err := upgrade(addr, "/api/v1/live", "", token, 1024)
		for tries := 0; err != nil && tries < 100; tries++ { // the hub lets only so many in at once
			time.Sleep(100 * time.Millisecond)
			conn, in, err = upgrade(addr, "/api/v1/live", "", token, 1024)
		}
		if err != nil {
			return err
		}
		v.conns = append(v.conns, conn)
		if _, err := conn.Write(appendMasked(nil, 0x81, []byte(`{"subscribe":{}}`))); err != nil {
			return err
		}
		for {
			op, payload, err := readFrame(in)
			if err != nil || op == 0x8 {
				return errors.Join(err, fmt.Errorf("no snapshot, but %q", payload))
			}
			if bytes.Contains(payload, []byte(`"type":"snapshot"`)) {
				break
			}
		}
		v.reading.Go(func() {
			if err := answerPings(conn, in); !errors.Is(err, net.ErrClosed) {
				v.failed <- err
			}
		})
	}
	return nil
}

func answerPings(conn net.Conn, in *bufio.Reader) error {
	for {
		op, payload, err := readFrame(in)
		switch {
		case err != nil:
			return err
		case op == 0x8:
			return fmt.Errorf("closed: %q", payload)
		case op == 0x9:
			if _, err := conn.Write(appendMasked(nil, 0x8a, payload)); err != nil {
				return err
			}
		}
	}
}
