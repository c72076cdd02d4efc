package ws

import (
	"net/netip"
	"time"

	"telemetryhub/device/wire"
)

// Guard is guard, for the tests outside the package.
type Guard struct {
	g     guard
	limit uint64
}

// NewGuard returns a guard for frames of at most limit bytes.
func NewGuard(limit int) *Guard { return &Guard{limit: uint64(limit)} }

// Check is guard.check at the same moment each time.
func (g *Guard) Check(p []byte) (int, wire.CloseCode) {
	n, v := g.g.check(p, g.limit, func() time.Duration { return time.Second })
	return n, v.code
}

// Functions for the tests outside the package.
var (
	ReadSubscription = readSubscription
	Clip             = clip
)

// Limiter is limiter, for the tests outside the package.
type Limiter struct{ l *limiter }

// NewLimiter is newLimiter.
func NewLimiter(all, source Rate) Limiter { return Limiter{newLimiter(all, source)} }

// Allow is limiter.allowSource now.
func (l Limiter) Allow(addr netip.Addr) bool { return l.l.allowSource(addr, time.Now()) }

// Sources returns how many addresses are remembered.
func (l Limiter) Sources() int { return len(l.l.sources) }
