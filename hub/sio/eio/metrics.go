package eio

import "sync/atomic"

// Metrics counts what happens to sessions. The zero value is ready. All fields and methods are safe for concurrent use; fields
// are only to be read.
type Metrics struct {
	Open                    atomic.Int64  // sessions now
	Strangers               atomic.Int64  // of them those that were not admitted yet
	Opened                  atomic.Uint64 // sessions
	Upgraded                atomic.Uint64 // sessions that changed from polling to WebSocket
	Displaced               atomic.Uint64 // strangers closed to make room for others
	MessagesIn, MessagesOut atomic.Uint64 // from and to clients
	MessagesDeflated        atomic.Uint64 // of MessagesOut those that were compressed
	BytesIn, BytesOut       atomic.Uint64 // of WebSocket frames and of polling bodies
	Panics                  atomic.Uint64 // caught, each ended one session

	refused [len(refusals)]atomic.Uint64
	closed  [len(causes)]atomic.Uint64
}

// cause names why a session ended. The texts are labels of metrics: never change them.
type cause int

const (
	causeClient    cause = iota // the client said so
	causeServer                 // whoever stands behind the stream said so
	causeTransport              // the connection broke, or a polling request was broken off
	causePing                   // no answer to a ping
	causeProtocol               // what the client sent is not Engine.IO
	causeOverlap                // two GET or two POST at a time
	causeTooBig                 // a message or a request over the limit
	causeStranger               // not admitted in time
	causeDisplaced              // not admitted, and gave way to another
	causeSlow                   // the client did not read
	causePanic                  // our fault
	causeStop                   // the server stops
)

var causes = [...]string{
	causeClient: "client", causeServer: "server", causeTransport: "transport", causePing: "ping", causeProtocol: "protocol",
	causeOverlap: "overlap", causeTooBig: "too big", causeStranger: "stranger", causeDisplaced: "displaced",
	causeSlow: "slow", causePanic: "panic", causeStop: "stop",
}

// Refused calls yield with every reason for which a request can be refused, and how often one was.
func (m *Metrics) Refused(yield func(reason string, n uint64) bool) {
	for i, name := range refusals {
		if !yield(name, m.refused[i].Load()) {
			return
		}
	}
}

// Closed calls yield with every cause for which a session can end, and how often one did.
func (m *Metrics) Closed(yield func(cause string, n uint64) bool) {
	for i, name := range causes {
		if !yield(name, m.closed[i].Load()) {
			return
		}
	}
}
