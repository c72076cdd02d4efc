package hub

import (
	"context"
	"sync"

	"telemetryhub/storage"
)

// progress is how far a cursor has come, for those who wait for it.
type progress struct {
	mu    sync.Mutex // guards the fields below
	pos   storage.Position
	moved chan struct{} // closed when pos grows; nil if nobody waits
}

// set notes that the cursor has come to pos.
func (p *progress) set(pos storage.Position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pos = pos
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// wait returns when the cursor has come to pos, or with the error of ctx.
func (p *progress) wait(ctx context.Context, pos storage.Position) error {
	for {
		p.mu.Lock()
		if p.pos >= pos {
			p.mu.Unlock()
			return nil
		}
		if p.moved == nil {
			p.moved = make(chan struct{})
		}
		moved := p.moved
		p.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
