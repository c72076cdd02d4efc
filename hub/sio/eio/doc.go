// Package eio is a server of Engine.IO v4: messages in both directions over HTTP long polling or WebSocket, with a change from
// the one to the other in flight. Socket.IO is spoken in these messages.
//
// A [Session] is opened by a request without a sid, and goes on over as many requests as its client likes, or over one
// WebSocket. What is to be sent is never queued here: the session's [Stream] is asked for it by whatever can carry it just then,
// so that nothing is lost or reordered when the transport changes. Over WebSocket a goroutine, the reader, lives as long as the
// connection; a writer runs while there is something to write, and writes many frames in one system call.
//
// What a client can cost, by default:
//
//	before its session is admitted     one of 256 places, 16 KiB a message or request, 5 s in all
//	a message, or a polling request    1 MiB after that
//	no answer to a ping                20 s, pings are sent every 25 s
//	a write that it does not read      10 s, then cut; closing takes 2 s at most
//	polling requests of a session      one GET and one POST at a time; a second one before the answer ends the session
//	fragments of one message           1,024, control frames 20 a second and 100 at once
//
// Over WebSocket permessage-deflate (RFC 7692) is agreed on with clients that offer it. What they send is inflated up to the limit of
// a message; what they get is compressed where the stream has done that, and nothing is kept for it. Polls are never compressed.
//
// When all places are taken, the oldest session from the address that holds most of them gives way, unless it is younger than a
// second and the newcomer comes from there too: then the newcomer is sent away with 503, as its own kind are being served.
//
// A sid is 144 random bits, and stands only for requests of the same identity as the one that opened the session: a request
// with another credential, or with none where there was one, is refused, and the session goes on. Requests that stand on a
// cookie must come from a page of ours; see [Options].
package eio
