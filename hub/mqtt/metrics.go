package mqtt

import "sync/atomic"

// Metrics counts what a bridge does. The zero value is ready. The fields are only to be read.
type Metrics struct {
	Connected atomic.Int64  // 1 while there is a connection
	Connects  atomic.Uint64 // connections made
	Failures  atomic.Uint64 // connections that failed, or could not be made
	Published atomic.Uint64 // messages that the broker has acknowledged
	Old       atomic.Uint64 // readings not published, because they were old on arrival
	Unnamed   atomic.Uint64 // readings not published, because their metric has a name that no topic can have
	Received  atomic.Uint64 // messages from the broker that were stored
	Refused   atomic.Uint64 // messages from the broker that nobody can store
	Retained  atomic.Uint64 // messages from the broker that were not news, and were passed over
}
