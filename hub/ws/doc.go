// Package ws brings devices and viewers to the hub over WebSocket, on lxzan/gws.
//
// [Devices] and [Viewers] are http.Handlers. What a client may do is decided before the upgrade: address, request,
// identity, rate, in this order. After it one goroutine, the reader, lives as long as the connection and owns it; a writer
// runs while there is something to write, and pulls it from the hub (hub.Peer). When the reader has returned, the writer is
// waited for and the session ended: that is the one end of a connection, whatever caused it.
//
// What a peer can cost, by default:
//
//	nothing said after the upgrade     10 s, then closed with 4001
//	no frame and no pong               62.5 s (2.5 pings), then closed with 4001
//	a write that the peer does not read 10 s, then cut; closing takes 2 s at most
//	a frame from a device              64 KiB, else 4513; from a viewer 4 KiB. While a device sends one, gws holds it in a
//	                                   buffer of up to 128 KiB, and up to 192 KiB more for a message in fragments
//	fragments of one message           1,024, else 4500
//	pings, pongs                       20 a second and 100 at once, else 4029; only the last ping is answered
//	changes of a subscription          2 a second and 10 at once, else 4029
//	upgrades                           1,000 a second, 50 from one address, 20,000 open, else 503 with Retry-After
//	a connection that is idle          one goroutine, about 6 KB for a viewer and 8 KB for a device
//
// Connections of which nobody knows yet who they are never get here; package door bounds them.
//
// Viewers may have messages compressed (permessage-deflate, RFC 7692), if they offer it. No message refers to one before, so
// neither side of a connection keeps a window, which would cost more than all else: what a viewer costs that is idle grows by
// 50 bytes. Frames are compressed where the hub writes them, once for all who see the same; those of less than 64 bytes or more
// than 1 MiB, and those that do not get smaller, go as they are. What a viewer sends compressed is inflated up to the limit of
// its messages and no further. Devices are not offered compression: CBOR is short, and their batches are sent once.
//
// What is below messages package frames does.
package ws
