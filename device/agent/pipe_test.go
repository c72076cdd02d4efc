package agent_test

import (
	"bytes"
	"errors"
	"sync"
	"time"

	"telemetryhub/device/agent"
	"telemetryhub/device/wire"
)

var errCut = errors.New("the connection was cut")

type frame struct {
	format wire.Format
	data   []byte
}

// pipe is a connection in memory: the agent has the Conn methods, the hub the others. A cut takes effect at once, as when
// the network goes away; what was on its way is lost.
type pipe struct {
	up, down chan frame
	cut      chan struct{} // closed when the connection is gone
	once     sync.Once

	mu   sync.Mutex
	end  error // why, for the agent
	idle time.Duration
	got  wire.CloseCode // what the agent closed with
}

func newPipe() *pipe {
	return &pipe{up: make(chan frame, 4), down: make(chan frame, 4), cut: make(chan struct{}), idle: time.Hour}
}

var _ agent.Conn = (*pipe)(nil)

func (p *pipe) Serve(handle func(wire.Format, []byte) error) error {
	for {
		p.mu.Lock()
		idle := p.idle
		p.mu.Unlock()
		timer := time.NewTimer(idle)
		select {
		case f := <-p.down:
			timer.Stop()
			if f.data == nil {
				continue // a ping
			}
			if err := handle(f.format, f.data); err != nil {
				p.finish(errCut)
				return err
			}
		case <-p.cut:
			timer.Stop()
			select {
			case f := <-p.down: // came before the close
				if f.data != nil {
					if err := handle(f.format, f.data); err != nil {
						return err
					}
				}
				continue
			default:
			}
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.end
		case <-timer.C:
			p.finish(errors.New("nothing came for " + idle.String()))
		}
	}
}

func (p *pipe) Write(f wire.Format, data []byte) error {
	select {
	case <-p.cut:
		return errCut
	default:
	}
	select {
	case p.up <- frame{f, bytes.Clone(data)}:
		return nil
	case <-p.cut:
		return errCut
	case <-time.After(10 * time.Second):
		return errors.New("write timed out")
	}
}

func (p *pipe) SetIdle(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = d
}

func (p *pipe) Close(code wire.CloseCode) {
	p.mu.Lock()
	p.got = code
	p.mu.Unlock()
	p.finish(errCut)
}

// finish ends the connection; the agent learns err.
func (p *pipe) finish(err error) {
	p.once.Do(func() {
		p.mu.Lock()
		p.end = err
		p.mu.Unlock()
		close(p.cut)
	})
}

// send gives a frame to the agent. It reports false if the connection is gone.
func (p *pipe) send(data []byte) bool {
	select {
	case <-p.cut:
		return false
	case p.down <- frame{wire.CBOR, data}:
		return true
	}
}
