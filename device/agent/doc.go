// Package agent is what runs on a device: it takes rows, keeps them in a spool, and brings them to the hub, each once and
// in order, over outages, restarts and power cuts.
//
// An [Agent] collects rows into batches and puts them into the spool ([Agent.Append]); a batch is sent only once it is durable
// there. [Agent.Run] keeps a [Conn] to the hub, made by a [Dialer], and speaks the protocol of package wire over it: hello,
// welcome, birth where the hub needs one, batches and gaps within the credit, cumulative acknowledgements. [WebSocket] is the
// Dialer for real; tests use connections in memory.
//
// # Who runs what
//
// Run starts three goroutines: one syncs the spool, one closes batches that are old enough, one has the connection. While
// connected that one reads, and a fourth writes. Run returns after all of them have ended.
//
// Locks, in the order they are taken: Agent.in (the batch being filled, held across writes to the spool so that batches keep
// their order), then the spool's own, or Agent.mu, or the mutex of the credit. The last three are never held across I/O.
package agent
