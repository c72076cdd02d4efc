// Package crew writes to connections: to the sockets of devices and viewers, to those of Socket.IO, and to event streams.
//
// A [Crew] is a few hands for all connections of a hub together. An [Outlet] is the writing side of
// one connection: it is woken when there is something to write, pulls that from its [Source], and costs nothing but its memory
// while there is not. Nobody waits for a peer that does not read but a goroutine of its own, and only for so long.
package crew
