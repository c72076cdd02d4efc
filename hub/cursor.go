package hub

import (
	"context"
	"errors"
	"time"

	"telemetryhub/storage"
)

// follow is followTicking without a tick.
func (h *Hub) follow(ctx context.Context, pos storage.Position, apply func(storage.Entry) error) error {
	return h.followTicking(ctx, pos, apply, nil, nil)
}

// followTicking calls apply for every group after pos, in log order, until ctx ends (nil) or apply or the log fails. What the
// tail no longer holds is read from the log; what has been trimmed away is skipped, after a call of apply with an empty
// damaged entry in its place. While there is nothing to apply, poll is called at each tick; its error ends the walk too.
func (h *Hub) followTicking(ctx context.Context, pos storage.Position, apply func(storage.Entry) error, tick <-chan time.Time, poll func() error) error {
	var groups []tailGroup
	for {
		got, grown, ok := h.tail.after(pos, groups[:0])
		groups = got
		if !ok {
			next, err := h.catchUp(ctx, pos, apply)
			if err != nil {
				return ignoreCancel(ctx, err)
			}
			pos = next
			continue
		}
		for i, g := range groups {
			if err := apply(storage.Entry{Position: g.pos, Group: g.group}); err != nil {
				return ignoreCancel(ctx, err)
			}
			pos = g.pos
			groups[i] = tailGroup{}
		}
		if len(groups) > 0 {
			continue
		}
		select {
		case <-grown:
		case <-tick:
			if err := poll(); err != nil {
				return ignoreCancel(ctx, err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// catchUp reads the log after pos and returns the position that it came to.
func (h *Hub) catchUp(ctx context.Context, pos storage.Position, apply func(storage.Entry) error) (storage.Position, error) {
	var applyErr error
	err := h.log.Read(ctx, pos, func(e storage.Entry) bool {
		if applyErr = apply(e); applyErr != nil {
			return false
		}
		if e.Position > pos {
			pos = e.Position
		}
		return ctx.Err() == nil
	})
	if errors.Is(err, storage.ErrTrimmed) {
		pos = h.log.First()
		return pos, apply(storage.Entry{Position: pos, Damaged: true})
	}
	return pos, errors.Join(applyErr, err, ctx.Err())
}

func ignoreCancel(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}
