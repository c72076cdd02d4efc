package ws

import (
	"sync/atomic"

	"telemetryhub/device/wire"
	"telemetryhub/hub/frames"
)

// Metrics counts what happens to connections. The zero value is ready, and one may serve several handlers. All fields
// and methods are safe for concurrent use; fields are only to be read.
type Metrics struct {
	Open                atomic.Int64  // connections now
	Accepted            atomic.Uint64 // upgrades done
	FramesIn, FramesOut atomic.Uint64 // messages from and to peers, without control frames
	FramesDeflated      atomic.Uint64 // of FramesOut those that were compressed
	BytesIn, BytesOut   atomic.Uint64 // as they go over the connection, above TLS
	Panics              atomic.Uint64 // caught, each ended one connection

	refused [len(refusals)]atomic.Uint64
	closed  [len(closes)]atomic.Uint64
}

// refusal names why an upgrade was refused. The texts are labels of metrics: never change them.
type refusal int

const (
	refusedDraining refusal = iota
	refusedRate
	refusedFull
	refusedHandshake
	refusedIdentity
	refusedForbidden
	refusedThrottled
	refusedInternal
)

var refusals = [...]string{
	refusedDraining: "draining", refusedRate: "rate", refusedFull: "full", refusedHandshake: "handshake",
	refusedIdentity: "identity", refusedForbidden: "forbidden", refusedThrottled: "throttled", refusedInternal: "internal",
}

// closes are the codes that are counted one by one, so that peers cannot make labels. The first counts all others.
var closes = [...]wire.CloseCode{
	0, frames.CloseNormal, 1001, frames.CloseProtocol, frames.CloseEmpty, frames.CloseLost, frames.CloseUTF8, frames.CloseInternal,
	wire.CloseSlow, wire.CloseDraining, wire.CloseResume, wire.CloseTooFast, wire.CloseProtocol, wire.CloseWho,
	wire.CloseRevoked, wire.CloseReplaced, wire.CloseTooBig,
}

// Refused calls yield with every reason for which an upgrade can be refused, and how often it was.
func (m *Metrics) Refused(yield func(reason string, n uint64) bool) {
	for i, name := range refusals {
		if !yield(name, m.refused[i].Load()) {
			return
		}
	}
}

// Closed calls yield with every close code, sent or received, and how many connections ended with it; 1006 is a connection
// that broke, 0 stands for all codes that are not ours.
func (m *Metrics) Closed(yield func(code wire.CloseCode, n uint64) bool) {
	for i, code := range closes {
		if !yield(code, m.closed[i].Load()) {
			return
		}
	}
}

func (m *Metrics) countClose(code wire.CloseCode) {
	for i, known := range closes {
		if known == code {
			m.closed[i].Add(1)
			return
		}
	}
	m.closed[0].Add(1)
}
