package broker

import "sync/atomic"

// Metrics counts what happens to connections and messages. The zero value is ready. All fields and methods are safe for
// concurrent use; fields are only to be read.
type Metrics struct {
	Open      atomic.Int64 // connections that have authenticated, now
	Strangers atomic.Int64 // connections that have not, now
	Offline   atomic.Int64 // sessions without a connection, now
	Retained  atomic.Int64 // topics with a retained message, now

	Accepted                atomic.Uint64 // connections that have authenticated
	MessagesIn, MessagesOut atomic.Uint64 // PUBLISH packets
	BytesIn, BytesOut       atomic.Uint64 // as they go over the connection, above TLS
	Ingested                atomic.Uint64 // messages of devices that are on disk
	IngestBad               atomic.Uint64 // messages of devices that can never be taken; acknowledged
	IngestFailed            atomic.Uint64 // messages of devices that could not be stored now; not acknowledged
	Denied                  atomic.Uint64 // publications and subscriptions that the client was not allowed
	Dropped                 atomic.Uint64 // messages that a client was too slow for, or away for too long
	Wills                   atomic.Uint64 // wills published
	Panics                  atomic.Uint64 // caught, each ended one connection
	Displaced               atomic.Uint64 // strangers closed to make room for others

	refused [len(refusals)]atomic.Uint64
	cut     [len(cuts)]atomic.Uint64
}

// refusal names why a connection was refused. The texts are labels of metrics: never change them.
type refusal int

const (
	refusedTimeout refusal = iota
	refusedHandshake
	refusedPacket
	refusedIdentity
	refusedForbidden
	refusedClientID
	refusedWill
	refusedFull
	refusedStopping
)

var refusals = [...]string{
	refusedTimeout: "timeout", refusedHandshake: "handshake", refusedPacket: "packet", refusedIdentity: "identity",
	refusedForbidden: "forbidden", refusedClientID: "client_id", refusedWill: "will", refusedFull: "full",
	refusedStopping: "stopping",
}

// cut names why the broker ended a connection. The texts are labels of metrics: never change them.
type cut int

const (
	cutLost     cut = iota // it broke, or the client closed it without a word
	cutLeft                // the client said DISCONNECT
	cutPacket              // a packet that is not allowed
	cutSlow                // the client did not read, or not acknowledge
	cutIngest              // readings could not be stored
	cutRevoked             // the credential is no longer what it was
	cutTaken               // the client has connected anew
	cutStopping            // the hub stops
)

var cuts = [...]string{
	cutLost: "lost", cutLeft: "left", cutPacket: "packet", cutSlow: "slow", cutIngest: "ingest", cutRevoked: "revoked",
	cutTaken: "taken_over", cutStopping: "stopping",
}

// Refused calls yield with every reason for which a connection can be refused, and how often it was.
func (m *Metrics) Refused(yield func(reason string, n uint64) bool) {
	for i, name := range refusals {
		if !yield(name, m.refused[i].Load()) {
			return
		}
	}
}

// Closed calls yield with every reason for which an accepted connection can end, and how many did.
func (m *Metrics) Closed(yield func(reason string, n uint64) bool) {
	for i, name := range cuts {
		if !yield(name, m.cut[i].Load()) {
			return
		}
	}
}
