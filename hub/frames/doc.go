// Package frames is what the WebSocket connections of a hub have in common below their messages: those of devices and viewers,
// and those of Engine.IO.
//
// A [Conn] is one connection, and part of its [Owner]. gws does the upgrade, puts messages together, checks UTF-8, and finds
// what RFC 6455 forbids. A guard under it refuses what it cannot bear, and its writing side is not used: package crew writes.
// With a client that agrees on permessage-deflate (RFC 7692), inflating too is done here, beside gws, and package deflate makes
// what is sent: see [AnswerDeflate].
// The reader is the one goroutine that lives as long as the connection.
package frames
