// Package wire is the protocol between devices and the hub, both sides of it: messages, codec, limits, close codes.
// PROTOCOL.md is the specification; its examples are the golden vectors in testdata.
//
// A frame is one WebSocket message. [Peek] tells what a frame is without decoding it. Readings have a path of their
// own: an [Index], made once for each schema, and a [Decoder], which reuses its memory, turn a data message into a
// device.Batch without allocating. All other messages are structs with an Append and a Decode function each.
//
// Nothing in the package panics on input, and no decoder reads a frame of more than [MaxFrame] bytes.
package wire
