package hub

import (
	"math/rand/v2"
	"time"

	"telemetryhub/device/wire"
)

const (
	// pauseFor is how long devices are asked to send no data when there is no room for it. It is asked again before it is
	// over, and ended when there is room. A device whose hub cannot tell it any more tries again after it.
	pauseFor = 10 * time.Second
	// comeBack is the earliest time after which devices connect again to a hub that stops, and backPerSecond how many of them
	// in a second: so that a hub that starts again is not met by all of them at once.
	comeBack      = 500 * time.Millisecond
	backPerSecond = 500
)

// noRoom is told by the committer at each try that found no room, and once when there is room again.
func (h *Hub) noRoom(full bool) {
	if !full {
		h.pause.Store(nil)
	} else {
		if time.Since(h.pausedAt) < pauseFor/2 && h.pause.Load() != nil {
			return
		}
		h.pausedAt = time.Now()
		h.pause.Store(&wire.Slow{ForMS: uint32(pauseFor / time.Millisecond), Why: wire.SlowFull})
	}
	for _, e := range h.registry.all() {
		if s := e.connected(); s != nil {
			s.peer.Wake()
		}
	}
}

// pauseLocked appends the pause that is in force if the device does not know of it yet, or its end.
func (s *Session) pauseLocked(dst []byte) (frame []byte, ok bool) {
	now := s.hub.pause.Load()
	if !s.greeted || now == s.told {
		return dst, false
	}
	s.told = now
	if now == nil {
		now = &wire.Slow{Win: uint32(s.hub.options.Window), Why: wire.SlowFull}
	}
	return wire.AppendSlow(dst, s.format, now), true
}

// farewell closes the session because the hub takes no more. A device that speaks the protocol is told when to come back:
// each of n devices at a time of its own.
func (s *Session) farewell(n int) {
	spread := time.Duration(n) * time.Second / backPerSecond
	bye := wire.Bye{
		Code: wire.CloseDraining, RetryMS: uint32((comeBack + rand.N(spread+1)) / time.Millisecond), Why: wire.CloseDraining.Reason(),
	}
	s.mu.Lock()
	if s.greeted && !s.ended {
		s.out = append(s.out, wire.AppendBye(nil, s.format, &bye)) // the last message: not counted against maxControl
	}
	s.mu.Unlock()
	s.peer.Close(wire.CloseDraining, wire.CloseDraining.Reason())
}
