// Package hub is the core: it takes batches from devices, makes them durable in the log, and lets everybody else follow
// the log by a cursor of their own.
//
// A [Session] is one device connection: it decodes, checks and numbers. The committer alone decides, in log order, what
// is a duplicate and what is missing, appends groups, and only then lets sessions acknowledge. History and the live
// state are cursors over the log; a [Viewer] is a subscription to the live state, and a [Cursor]
// a reader outside of the hub, whose place in the log is remembered.
//
// The hub never writes to a socket. It calls [Peer.Wake], and the adapter pulls what there is to send: so what waits for
// a slow peer is never more than its newest state.
//
// Locks nest in this order: Viewer.mu, live.mu, entity.mu, streamTable.mu; Session.mu nests with none. No lock is held
// during I/O, except entity.mu, which orders the changes of one device's record in the catalog, Viewer.mu while a viewer
// that comes back reads the log, and those that are there for that: Hub.saving, then outbox.trimming, and slot.saving.
package hub
