// Package broker is the MQTT broker in the hub, for MQTT 3.1.1 and MQTT 5, on mochi-mqtt/server.
//
// There are three sorts of clients. A device publishes its readings to ingest/<its id>, and gets commands. An integration
// reads telemetry/# and homeassistant/#, and sends commands if its token is an operator's. The hub itself publishes, over a
// connection that does not leave the process ([Broker.Dial]). Who may what stands in grant.go; the password is a token, the
// user name is ignored, and nobody is let in without one, on loopback neither.
//
// # Readings
//
// A PUBLISH to ingest/<device> is acknowledged when it is on disk. What can never be taken is acknowledged, logged and
// counted. What cannot be stored now is not acknowledged and the connection is closed, so that the device sends it again.
// Readings are not distributed. Of QoS 2 each is stored once as long as the session lives; of QoS 0 and 1, one that was
// sent again is stored again, as a reading of the same time.
//
// # Messages to clients
//
// QoS 1 and 2 hold as far as the session: it is kept without a connection for up to an hour, in memory, with its messages up
// to 1 MiB. A client for which one message had to be dropped is cut, or its session ended, so that it can see the gap. Topic
// aliases are not agreed on, and MQTT 3.1 is not spoken.
//
// Retained messages are the hub's: anybody else who wants one retained is disconnected. An empty one too: what it would
// delete is the hub's. They live in memory only, and whoever publishes them does it again at each start, so none outlives
// what it says. They are sent to new subscribers with QoS 0, as fast as these read.
//
// A will is checked at CONNECT as if it were published then, and is published when the connection ends without DISCONNECT,
// also when the same client connects anew. It is not when the hub stops, as it is not the client that went away, and not when the
// credential was revoked.
//
// # What a client can cost, by default
//
//	TLS handshake and CONNECT    10 s together and 8 KiB; 1,024 connections that have not authenticated
//	a packet                     64 KiB, of which nothing is allocated before it is there
//	silence                      1.5 keep-alives, which are 1 to 300 s, also if the client wants 0 or more
//	a write                      10 s for each 32 KiB; 512 messages and 1 MiB may wait, else it is cut
//	unacknowledged messages      4,096, else it is cut
//	subscriptions                64, of filters up to 256 bytes and 16 levels
//	sessions without connection  256 for at most 1 h; the oldest goes
//
// mochi is used below its listeners and timers, for sessions, subscriptions and QoS. A connection is checked before mochi
// sees any of it, packet by packet, because it has no recover and some packets make it panic; and nothing that mochi does
// can wait for a client, because it holds locks meanwhile.
package broker
