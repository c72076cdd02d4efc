// Package socket is a server of Socket.IO v5 over package eio: namespaces, rooms, acknowledgements in both directions, binary
// attachments, and recovery of what a client missed while its connection was broken.
//
// A [Server] has the namespaces that it was made with. A client connects to each of them with a payload of its own; what then
// stands for it there is a [Socket]. What a namespace does is a [Handler], whose functions run in the goroutine that reads from
// the client, one at a time for one client, except Next.
//
// What is sent waits in one queue for each client, bounded in bytes; a client that lets it overflow is closed as slow. Beside
// the queue a namespace may have a source, Handler.Next, that is asked for packets only when they can be written: that is how
// a stream of any speed goes to clients of any speed without being queued.
//
// # Recovery
//
// Where Handler.Recover is set, a client gets a pid besides its id when it connects, and what is emitted to rooms it is in, and
// whatever its source sends, ends in one more argument, a string: the offset. A stock client (4.6 or newer) remembers the last
// one and sends pid and offset when it connects again. If its socket is still remembered, and by the same owner, and nothing
// that it missed was dropped, then it is the same socket again, with its id and its rooms, and gets what it missed; the client's
// recovered is true. An offset is what Handler.Mark says about the source, a "~", and the number of the last emit that the
// client got; the mark alone is what survives a restart of the server. As clients take the last argument of any event for an
// offset if it is a string, whatever else is sent must end in something else.
//
// # Limits
//
// By default a client may send 16 attachments a packet, in all as large as one message, an event name of 128 characters, and
// values that are nested 128 deep; 1 MiB may wait for it; and 64 acks may be due from it. Of each socket 64 KiB of emits are
// remembered, for two minutes; of sockets whose clients are away 1,024, the oldest giving way. A session may be refused
// eight times. What is not allowed ends the connection, as the protocol wants it.
//
// Locks nest in this order: Namespace.mu, client.mu. None is held while a function of a Handler runs.
package socket
