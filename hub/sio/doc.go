// Package sio brings the live feed to Socket.IO clients: the stock socket.io-client 4, in browsers and in Node, over WebSocket or
// HTTP long polling, with the change from the one to the other.
//
//	const socket = io("https://hub.example.org", {auth: {token, subscribe: {devices: ["*"], mode: "latest"}}});
//	socket.on("welcome", (text, hub) => …);      // "web Socket Works", {id, version, started, name, role, resumed}
//	socket.on("snapshot", (frame) => …);         // {type, now, devices: [D, …], more, token}
//	socket.on("reading", (frame) => …);          // mode latest: {type, devices: [D, …], token}
//	                                             // mode all: {type, readings: [[device, metric, ms, value], …], token}
//	socket.on("device", (device) => …);          // D, without its metrics: its presence or its name has changed
//
// The frames are those of the live feed on every transport, and are described at [telemetryhub/hub.Viewer.Next]; what D is, too.
// A large snapshot comes as several events, all but the last with more. In mode latest a frame also tells of devices that
// changed in something else, with empty metrics.
//
// # Who may
//
// auth.token is the token of a viewer or of more; without it counts what the request that opened the session had: a token in
// Authorization, or the session cookie of somebody who is logged in. A request with a cookie must come from a page of the
// hub's, also if there is a token in auth. Whoever may not connect gets connect_error, whose message is "unauthorized",
// "forbidden" or "bad request", and whose data.detail says what to do. When the token is revoked or the session over, the client
// is disconnected for good; when the role has changed, the connection breaks and the client comes back with the new one.
//
// # Resuming
//
// The last argument of snapshot and reading, and of what comes to a room, is a string that stock clients call the offset and
// remember. When a client connects again, it goes on exactly behind what it got last, also if the hub was killed in between:
// no reading is missed or doubled. hub.resumed in the welcome tells so; otherwise there is a snapshot. It needs the same
// subscription in auth. A client that was away for less than two minutes also keeps its id and its rooms, gets the messages that
// it missed, and has socket.recovered set, unless the hub was restarted or more than 64 KiB were missed. After a resume in mode
// all each device is told once, as nobody knows what the client missed of them.
//
// # What clients send
//
// Each answers its ack, if one is asked for, with an object, which has an error if something was not done.
//
//	subscribe {devices, metrics, mode, tick, after}   changes what is seen: {resumed}. A snapshot follows, unless after, a
//	                                                  token or an offset of the same subscription, could be taken up
//	join room, leave room                             {room, members}. At most 16 rooms
//	message …                                         to the others in the room "lobby": {sent}
//	emit room, event, …                               to the others in a room: {sent}. Viewers may send "message" to "lobby" only,
//	                                                  operators and admins any event to any room
//	command …                                         reserved: {error}
//
// Recipients get what was sent and one more argument, {from, name, room, at}: the id of the sender, who that is, and when. The
// events of the hub (welcome, snapshot, reading, device, people, command) and what begins with connect or disconnect are never
// relayed. Whoever is in the lobby gets the event people when somebody comes or goes, at most once a second:
// {connected, count, people: [{id, name, role, transport}, …]}, where count is that of the lobby, and at most 64 are named.
//
// # Compression
//
// Over WebSocket, snapshot and reading are compressed for clients that offer permessage-deflate, as stock clients do (RFC 7692), where
// that makes them smaller: once for all who see the same, but for the end of the offset. Other events are not.
//
// # Limits
//
// Those of packages eio and socket, and for each client 2 changes of the subscription a second and 10 at once, 20 messages a
// second and 100 at once, and 1 MiB of them a second and 4 MiB at once. A client that cannot keep up is conflated (latest) or
// cut off and resumes (all). An idle client costs a goroutine and about 10 KB.
package sio
