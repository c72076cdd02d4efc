package broker_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/device"
	"telemetryhub/hub/broker"
)

// wellFormed are packets of every type that a client sends.
func wellFormed(t *testing.T, version byte) [][]byte {
	t.Helper()
	var list [][]byte
	add := func(p packets.Packet) {
		p.ProtocolVersion = version
		list = append(list, encode(t, &p))
	}
	hello := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}}
	hello.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), Keepalive: 60}
	login("op", tokenOp)(&hello)
	withWill("homeassistant/status", false)(&hello)
	hello.Properties.SessionExpiryInterval, hello.Properties.SessionExpiryIntervalFlag = 60, true
	hello.Properties.ReceiveMaximum, hello.Properties.MaximumPacketSize = 5, 100
	hello.Properties.User = []packets.UserProperty{{Key: "k", Val: "v"}}
	hello.Connect.WillProperties.WillDelayInterval = 5
	add(hello)
	for qos := range byte(3) {
		p := message("telemetry/pi-1/cmd/led", "on", qos, uint16(qos))
		p.Properties.ContentType, p.Properties.ResponseTopic, p.Properties.CorrelationData = "text", "x/y", []byte{1}
		p.Properties.PayloadFormat, p.Properties.PayloadFormatFlag, p.Properties.MessageExpiryInterval = 1, true, 60
		add(p)
	}
	for _, kind := range []byte{packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp} {
		p := packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, PacketID: 2, ReasonCode: 0x92}
		if kind == packets.Pubrel {
			p.FixedHeader.Qos = 1
		}
		p.Properties.ReasonString = "why"
		add(p)
	}
	sub := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 3}
	sub.Filters = packets.Subscriptions{
		{Filter: "telemetry/#", Qos: 2, RetainHandling: 1}, {Filter: "$share/g/telemetry/+/cmd/#", Qos: 1}, {Filter: "ingest/#"},
	}
	sub.Properties.SubscriptionIdentifier = []int{300}
	add(sub)
	sub.FixedHeader.Type = packets.Unsubscribe
	sub.Properties = packets.Properties{}
	add(sub)
	add(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	add(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: 4})
	return list
}

// FuzzConn sends bytes to a broker: as the first of a connection (how is 0), after a CONNECT of MQTT 3.1.1 or MQTT 5, or as
// a device. Nothing panics, also not where only the process could notice, and the connection ends with its peer.
func FuzzConn(f *testing.F) {
	for _, version := range []byte{4, 5} {
		var all []byte
		for _, p := range wellFormed(&testing.T{}, version) {
			f.Add(byte(0), p)
			f.Add(version-3, p)
			f.Add(byte(3), p)
			if p[0]>>4 != packets.Connect && p[0]>>4 != packets.Disconnect {
				all = append(all, p...)
			}
		}
		f.Add(version-3, all)
	}
	for _, c := range broken {
		f.Add(byte(1), []byte(c.packet))
		f.Add(byte(2), []byte(c.packet))
	}
	metrics := new(broker.Metrics)
	b, err := broker.New(broker.Options{
		Auth: newAuth(), Metrics: metrics,
		Ingest: func(context.Context, device.ID, []byte) error { return nil },
	})
	if err != nil {
		f.Fatal(err)
	}
	ln := newPipes()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, ln) }()
	f.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	f.Fuzz(func(t *testing.T, how byte, data []byte) {
		c, err := ln.dial()
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(io.Discard, c)
		}()
		send(t, c, how%4, data)
		_ = c.Close()
		<-read
		eventually(t, "the connection ends", func() bool {
			return metrics.Open.Load() == 0 && metrics.Strangers.Load() == 0
		})
		if n := metrics.Panics.Load(); n != 0 {
			t.Fatalf("%d panics", n)
		}
	})
}

func send(t *testing.T, c net.Conn, how byte, data []byte) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if how > 0 {
		hello := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: 4}
		hello.Connect = packets.ConnectParams{ProtocolName: []byte("MQTT"), Keepalive: 60}
		login("op", tokenOp)(&hello)
		if how > 1 {
			hello.ProtocolVersion = 5
		}
		if how == 3 {
			login("pi-1", tokenPi)(&hello)
		}
		if _, err := c.Write(encode(t, &hello)); err != nil {
			return
		}
	}
	_, _ = c.Write(data) // which the broker may not want to the end
}
