package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/hub/broker"
)

func TestRetainedMessages(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub := r.local(t)
	hub.send(retainedMessage("telemetry/pi-1/status", "online"))
	hub.send(retainedMessage("telemetry/pi-2/status", "online"))
	hub.send(retainedMessage("homeassistant/sensor/pi-1/t/config", "{}"))
	hub.send(retainedMessage("telemetry/pi-2/status", "")) // forgets it
	hub.ping()
	for _, version := range []byte{4, 5} {
		x := r.connected(t, version, "x", tokenView)
		x.subscribe(1, "telemetry/#", "$share/g/homeassistant/#")
		if p := x.expectMessage("telemetry/pi-1/status", "online"); !p.FixedHeader.Retain || p.FixedHeader.Qos != 0 {
			t.Errorf("retain %v, QoS %d", p.FixedHeader.Retain, p.FixedHeader.Qos)
		}
		x.ping() // and nothing for the share
		x.subscribe(1, "telemetry/+/status")
		x.expectMessage("telemetry/pi-1/status", "online")
		hub.send(retainedMessage("telemetry/pi-1/status", "online"))
		if p := x.expect(packets.Publish); p.FixedHeader.Retain {
			t.Error("a message as it comes is marked as retained") // MQTT-3.3.1-9
		}
		_ = x.c.Close()
		eventually(t, "it is gone", func() bool { return r.metrics.Open.Load() == 1 })
	}
	if n := r.metrics.Retained.Load(); n != 2 {
		t.Errorf("%d topics are retained", n)
	}
}

func TestRetainHandling(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub := r.local(t)
	hub.send(retainedMessage("telemetry/pi-1/status", "online"))
	hub.ping()
	x := r.connected(t, 5, "x", tokenView)
	for _, c := range []struct {
		handling byte
		want     bool
	}{{2, false}, {1, false}, {0, true}, {1, false}} {
		p := packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1,
			Filters: packets.Subscriptions{{Filter: "telemetry/#", RetainHandling: c.handling}},
		}
		p.Properties.SubscriptionIdentifier = []int{5}
		x.send(p)
		x.expect(packets.Suback)
		if c.want {
			if p := x.expectMessage("telemetry/pi-1/status", "online"); len(p.Properties.SubscriptionIdentifier) != 1 {
				t.Errorf("subscription ids %v", p.Properties.SubscriptionIdentifier)
			}
		}
		x.ping()
	}
}

// Home Assistant reads thousands of retained messages, more than may wait to be written.
func TestManyRetainedMessagesReachASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{MaxPendingBytes: 64 << 10})
		hub := r.local(t)
		const n = 3000
		for i := range n {
			hub.send(retainedMessage(fmt.Sprintf("homeassistant/sensor/pi-%04d/config", i), strings.Repeat("x", 200)))
		}
		hub.ping()
		x := r.connected(t, 5, "x", tokenView)
		x.subscribe(2, "homeassistant/#")
		for i := range n {
			if i%100 == 0 {
				time.Sleep(time.Second)
			}
			x.expectMessage(fmt.Sprintf("homeassistant/sensor/pi-%04d/config", i), strings.Repeat("x", 200))
		}
		x.ping()
		_ = r.stop()
	})
}

func TestRetainedMessagesDoNotAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{})
		hub := r.local(t)
		p := retainedMessage("telemetry/pi-1/status", "online")
		hub.send(p)
		hub.ping()
		for range 25 * 60 { // more than a day, within the keep-alive
			time.Sleep(time.Minute)
			hub.ping()
		}
		x := r.connected(t, 5, "x", tokenView)
		x.subscribe(0, "telemetry/#")
		x.expectMessage("telemetry/pi-1/status", "online")
		_ = r.stop()
	})
}

func TestRetainedMessagesAreBounded(t *testing.T) {
	r := start(t, false, broker.Options{MaxRetainedBytes: 1000})
	hub := r.local(t)
	for i := range 10 {
		hub.send(retainedMessage(fmt.Sprint("telemetry/pi-1/", i), strings.Repeat("x", 384)))
	}
	hub.ping()
	if n := r.metrics.Retained.Load(); n != 2 {
		t.Errorf("%d topics are retained", n)
	}
	hub.send(retainedMessage("telemetry/pi-1/0", ""))
	hub.send(retainedMessage("telemetry/pi-1/9", "y"))
	hub.ping()
	x := r.connected(t, 4, "x", tokenView)
	x.subscribe(0, "telemetry/#")
	x.expectMessage("telemetry/pi-1/1", strings.Repeat("x", 384))
	x.expectMessage("telemetry/pi-1/9", "y")
}

// The hub subscribes to commands and publishes their results below the same topics.
func TestTheHubDoesNotHearItself(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub, op := r.local(t), r.connected(t, 4, "op", tokenOp)
	hub.subscribe(1, "telemetry/+/cmd/#", "telemetry/#")
	op.subscribe(0, "telemetry/+/cmd/#")
	hub.send(message("telemetry/pi-1/cmd/led/result", "done", 1, 1))
	hub.expect(packets.Puback)
	hub.ping()
	op.expectMessage("telemetry/pi-1/cmd/led/result", "done")
	op.send(message("telemetry/pi-1/cmd/led", "on", 0, 0))
	hub.expectMessage("telemetry/pi-1/cmd/led", "on")
}

// The hub's client ids are apart from those of the network, so that nobody can keep it out.
func TestNobodyIsTakenForTheHub(t *testing.T) {
	r := start(t, false, broker.Options{})
	x := r.connected(t, 4, "bridge", tokenOp, kept)
	hub := r.local(t) // also "bridge"
	hub.ping()
	x.ping()
}
