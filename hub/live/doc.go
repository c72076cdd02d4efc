// Package live follows the live feed of a hub from another program: over WebSocket, else by server-sent events, else by long
// polling, whichever passes the network in between, and from one to the next without a gap.
//
// Over WebSocket it offers compression (permessage-deflate), which the hub takes.
//
// [Follow] calls a function with one [Frame] after the other. It connects again by itself, at a random moment of a time that
// grows, and goes on after the last frame that the function has taken. Where the hub does not know that place any more the
// function gets a [Reset] and then a [Snapshot]. Follow gives up only when somebody must act: see [StopError].
//
// The package stands beside ws and api, whose other end it is, and not under device, which is what runs on devices; like a
// program elsewhere it knows the words of device and wire, and nothing of package hub.
package live
