package main

import (
	"strconv"

	"telemetryhub/device/wire"
	"telemetryhub/hub/api"
	"telemetryhub/hub/ws"
	"telemetryhub/hub/ws/door"
)

// counts are what the adapters count, for GET /metrics.
type counts struct {
	devices, viewers ws.Metrics
	door             *door.Metrics
}

func (c *counts) figures() []api.Figure {
	gauge := func(name, help string, v interface{ Load() int64 }, labels map[string]string) api.Figure {
		return api.Figure{Name: name, Help: help, Labels: labels, Value: func() float64 { return float64(v.Load()) }}
	}
	counter := func(name, help string, v interface{ Load() uint64 }, labels map[string]string) api.Figure {
		return api.Figure{Name: name, Help: help, Counter: true, Labels: labels, Value: func() float64 { return float64(v.Load()) }}
	}
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
			counter("socket_received_bytes_total", "Bytes received.", &m.BytesIn, of),
			counter("socket_sent_bytes_total", "Bytes sent.", &m.BytesOut, of),
			counter("socket_panics_total", "Faults of the hub that ended one connection each.", &m.Panics, of),
		)
		m.Refused(func(reason string, _ uint64) bool {
			list = append(list, api.Figure{Name: "sockets_refused_total", Help: "WebSocket connections refused.", Counter: true,
				Labels: map[string]string{"socket": socket, "reason": reason}, Value: func() float64 { return refusedFor(m, reason) }})
			return true
		})
		m.Closed(func(code wire.CloseCode, _ uint64) bool {
			list = append(list, api.Figure{Name: "sockets_closed_total", Help: "WebSocket connections ended, by close code.", Counter: true,
				Labels: map[string]string{"socket": socket, "code": strconv.Itoa(int(code))}, Value: func() float64 { return closedWith(m, code) }})
			return true
		})
	}
	return list
}

func refusedFor(m *ws.Metrics, reason string) (total float64) {
	m.Refused(func(r string, n uint64) bool {
		if r == reason {
			total = float64(n)
		}
		return r != reason
	})
	return total
}

func closedWith(m *ws.Metrics, code wire.CloseCode) (total float64) {
	m.Closed(func(c wire.CloseCode, n uint64) bool {
		if c == code {
			total = float64(n)
		}
		return c != code
	})
	return total
}
