package ws

import (
	"net/netip"
	"time"
)

// ReadSubscription is readSubscription, for the tests outside the package.
var ReadSubscription = readSubscription

// Limiter is limiter, for the tests outside the package.
type Limiter struct{ l *limiter }

// NewLimiter is newLimiter.
func NewLimiter(all, source Rate) Limiter { return Limiter{newLimiter(all, source)} }

// Allow is limiter.allowSource now.
func (l Limiter) Allow(addr netip.Addr) bool { return l.l.allowSource(addr, time.Now()) }

// Sources returns how many addresses are remembered.
func (l Limiter) Sources() int { return len(l.l.sources) }
