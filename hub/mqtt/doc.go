// Package mqtt is the bridge: it hands on what devices sent to an MQTT broker, the embedded one or another, and takes readings
// from it. It is a client of that broker (MQTT 3.1.1, on paho).
//
//	telemetry/<device>/<metric>   {"v":21.4,"t":1766000000123,"u":"Cel"}, QoS 1, not retained unless asked; "u" only with a unit
//	telemetry/<device>/status     online or offline, QoS 1, retained; removed when the device is deleted
//	telemetry/_hub/status         online or offline, QoS 1, retained; offline also when the hub dies (last will)
//	ingest/<device>               in: the forms by hand and SenML packs, as for Hub.Ingest
//	telemetry/<device>/cmd/...    reserved for commands; nobody publishes or subscribes there yet
//
// Readings are a cursor over the log: one is committed only when the broker has acknowledged it and all before it. So an
// outage of the broker, or of the hub, loses nothing that the log is kept for, and after it some may come twice, in order. A
// reading that was older than a minute when it reached the hub is history, and is not published.
//
// Paho is never trusted with more than one connection: each has a client of its own with nothing stored, and what was not
// acknowledged is read from the cursor again. Its goroutines cannot be recovered from, so whatever the broker sends is checked
// before paho sees it, and what paho writes never waits for the network.
//
// The bridge subscribes to ingest/ only, and never publishes there, so what it sends cannot come back to it.
package mqtt
