package main

import (
	"maps"
	"strconv"

	"telemetryhub/device/wire"
	"telemetryhub/hub/api"
	"telemetryhub/hub/broker"
	"telemetryhub/hub/mqtt"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/ws"
	"telemetryhub/hub/ws/door"
)

// counts are what the adapters count, for GET /metrics.
type counts struct {
	devices, viewers    ws.Metrics
	sio                 sio.Metrics
	broker              broker.Metrics
	embedded, elsewhere mqtt.Metrics // of the bridges
	door                *door.Metrics
}

func (c *counts) figures() []api.Figure {
	list := []api.Figure{
		gauge("strangers", "Connections that have not authenticated.", &c.door.Strangers, nil),
		counter("connections_total", "Connections accepted.", &c.door.Accepted, nil),
		counter("strangers_displaced_total", "Connections closed before they authenticated to make room for others.", &c.door.Displaced, nil),
		counter("strangers_timed_out_total", "Connections that took too long to authenticate.", &c.door.TimedOut, nil),
		counter("tls_handshakes_failed_total", "TLS handshakes that failed.", &c.door.Handshake, nil),
	}
	for socket, m := range map[string]*ws.Metrics{"device": &c.devices, "viewer": &c.viewers} {
		of := map[string]string{"socket": socket}
		list = append(list,
			gauge("sockets", "WebSocket connections now.", &m.Open, of),
			counter("sockets_total", "WebSocket connections opened.", &m.Accepted, of),
			counter("socket_frames_received_total", "Messages received.", &m.FramesIn, of),
			counter("socket_frames_sent_total", "Messages sent.", &m.FramesOut, of),
			counter("socket_frames_compressed_total", "Messages sent compressed.", &m.FramesDeflated, of),
			counter("socket_received_bytes_total", "Bytes received.", &m.BytesIn, of),
			counter("socket_sent_bytes_total", "Bytes sent.", &m.BytesOut, of),
			counter("socket_panics_total", "Faults of the hub that ended one connection each.", &m.Panics, of),
		)
		list = append(list, byReason("sockets_refused_total", "WebSocket connections refused.", "reason", of, m.Refused)...)
		list = append(list, byReason("sockets_closed_total", "WebSocket connections ended, by close code.", "code", of, func(yield func(string, uint64) bool) {
			m.Closed(func(code wire.CloseCode, n uint64) bool { return yield(strconv.Itoa(int(code)), n) })
		})...)
	}
	return append(append(list, c.sioFigures()...), c.mqttFigures()...)
}

// sioFigures are those of Socket.IO.
func (c *counts) sioFigures() []api.Figure {
	e := &c.sio.Engine
	list := []api.Figure{
		gauge("socketio_sessions", "Socket.IO sessions now.", &e.Open, nil),
		gauge("socketio_strangers", "Socket.IO sessions that have not authenticated.", &e.Strangers, nil),
		counter("socketio_sessions_total", "Socket.IO sessions opened.", &e.Opened, nil),
		counter("socketio_upgraded_total", "Socket.IO sessions that changed from polling to WebSocket.", &e.Upgraded, nil),
		counter("socketio_strangers_displaced_total", "Socket.IO sessions closed before they authenticated to make room for others.", &e.Displaced, nil),
		counter("socketio_received_messages_total", "Messages received.", &e.MessagesIn, nil),
		counter("socketio_sent_messages_total", "Messages sent.", &e.MessagesOut, nil),
		counter("socketio_compressed_messages_total", "Messages sent compressed.", &e.MessagesDeflated, nil),
		counter("socketio_received_bytes_total", "Bytes received.", &e.BytesIn, nil),
		counter("socketio_sent_bytes_total", "Bytes sent.", &e.BytesOut, nil),
		counter("socketio_panics_total", "Faults of the hub that ended one session each.", &e.Panics, nil),
		counter("socketio_resumed_total", "Clients that went on where they had been cut off.", &c.sio.Resumed, nil),
		counter("socketio_relayed_total", "Messages of clients to others.", &c.sio.Relayed, nil),
		counter("socketio_denied_total", "What clients asked for and may not, or too often.", &c.sio.Denied, nil),
	}
	list = append(list, byReason("socketio_refused_total", "Socket.IO requests refused.", "reason", nil, e.Refused)...)
	return append(list, byReason("socketio_closed_total", "Socket.IO sessions ended.", "cause", nil, e.Closed)...)
}

// mqttFigures are those of the broker and the bridges.
func (c *counts) mqttFigures() []api.Figure {
	b := &c.broker
	list := []api.Figure{
		gauge("mqtt_connections", "MQTT connections now.", &b.Open, nil),
		gauge("mqtt_strangers", "MQTT connections that have not authenticated.", &b.Strangers, nil),
		gauge("mqtt_offline_sessions", "MQTT sessions that are kept without a connection.", &b.Offline, nil),
		gauge("mqtt_retained", "Topics with a retained message.", &b.Retained, nil),
		counter("mqtt_connections_total", "MQTT connections that have authenticated.", &b.Accepted, nil),
		counter("mqtt_received_messages_total", "PUBLISH packets received.", &b.MessagesIn, nil),
		counter("mqtt_sent_messages_total", "PUBLISH packets sent.", &b.MessagesOut, nil),
		counter("mqtt_received_bytes_total", "Bytes received.", &b.BytesIn, nil),
		counter("mqtt_sent_bytes_total", "Bytes sent.", &b.BytesOut, nil),
		counter("mqtt_ingested_total", "Messages of devices that were stored.", &b.Ingested, nil),
		counter("mqtt_ingest_refused_total", "Messages of devices that can never be taken.", &b.IngestBad, nil),
		counter("mqtt_ingest_failed_total", "Messages of devices that could not be stored then, and were not acknowledged.", &b.IngestFailed, nil),
		counter("mqtt_denied_total", "Publications and subscriptions that were not allowed.", &b.Denied, nil),
		counter("mqtt_dropped_total", "Messages that a client was too slow for.", &b.Dropped, nil),
		counter("mqtt_strangers_displaced_total", "MQTT connections closed before they authenticated to make room for others.", &b.Displaced, nil),
		counter("mqtt_panics_total", "Faults of the hub that ended one MQTT connection each.", &b.Panics, nil),
	}
	list = append(list, byReason("mqtt_refused_total", "MQTT connections refused.", "reason", nil, b.Refused)...)
	list = append(list, byReason("mqtt_closed_total", "MQTT connections ended.", "reason", nil, b.Closed)...)
	for name, m := range map[string]*mqtt.Metrics{"embedded": &c.embedded, "elsewhere": &c.elsewhere} {
		of := map[string]string{"broker": name}
		list = append(list,
			gauge("mqtt_bridge_connected", "1 while the bridge is connected.", &m.Connected, of),
			counter("mqtt_bridge_connects_total", "Connections made.", &m.Connects, of),
			counter("mqtt_bridge_failures_total", "Connections that failed or could not be made.", &m.Failures, of),
			counter("mqtt_bridge_published_total", "Messages that the broker has acknowledged.", &m.Published, of),
			counter("mqtt_bridge_old_total", "Readings not published, because they were old on arrival.", &m.Old, of),
			counter("mqtt_bridge_unnamed_total", "Readings not published, because no topic can have the name of their metric.", &m.Unnamed, of),
			counter("mqtt_bridge_received_total", "Messages from the broker that were stored.", &m.Received, of),
			counter("mqtt_bridge_refused_total", "Messages from the broker that can never be taken.", &m.Refused, of),
		)
	}
	return list
}

// byReason returns a counter for each reason that count knows, with the reason as one more label.
func byReason(name, help, label string, labels map[string]string, count func(func(string, uint64) bool)) (list []api.Figure) {
	count(func(reason string, _ uint64) bool {
		of := map[string]string{label: reason}
		maps.Copy(of, labels)
		list = append(list, api.Figure{Name: name, Help: help, Counter: true, Labels: of, Value: func() (total float64) {
			count(func(r string, n uint64) bool {
				if r == reason {
					total = float64(n)
				}
				return r != reason
			})
			return total
		}})
		return true
	})
	return list
}

func gauge(name, help string, v interface{ Load() int64 }, labels map[string]string) api.Figure {
	return api.Figure{Name: name, Help: help, Labels: labels, Value: func() float64 { return float64(v.Load()) }}
}

func counter(name, help string, v interface{ Load() uint64 }, labels map[string]string) api.Figure {
	return api.Figure{Name: name, Help: help, Counter: true, Labels: labels, Value: func() float64 { return float64(v.Load()) }}
}
