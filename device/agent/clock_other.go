//go:build !linux

package agent

import "math/rand/v2"

// SystemClock returns a clock that the hub sets: whether the system's is kept by NTP is not known here.
func SystemClock() *Clock { return NewClock(ClockOptions{Boot: uint16(rand.Uint32())}) }
