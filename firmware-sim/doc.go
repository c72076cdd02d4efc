// Package firmwaresim plays devices that are not there, over the real protocol and with the real agent and spool.
//
// A [Recording] is a table of what real sensors measured. [Replay] plays it as a fleet: for each device in it an agent with a
// spool of its own, fed in the order and the pace of the recording, until the hub has acknowledged every reading.
package firmwaresim
