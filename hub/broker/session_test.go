package broker_test

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/hub/access"
	"telemetryhub/hub/broker"
)

func TestClientIDBelongsToItsOwner(t *testing.T) {
	r := start(t, false, broker.Options{})
	first := r.connected(t, 5, "panel", tokenView, kept)
	for range 2 { // while it is connected, and while its session is kept
		x := r.raw(t)
		x.v = 5
		if ack := x.connect(login("panel", tokenView2)); ack.ReasonCode != 0x85 {
			t.Errorf("somebody else takes the client id: CONNACK %#x", ack.ReasonCode)
		}
		_ = first.c.Close()
		eventually(t, "the session is kept", func() bool { return r.metrics.Offline.Load() == 1 })
	}
	// A viewer cannot be a device, nor a device a viewer, if the ids are the same.
	r.connected(t, 5, "pi-1", tokenView)
	x := r.raw(t)
	x.v = 5
	if ack := x.connect(login("pi-1", tokenPi)); ack.ReasonCode != 0x85 {
		t.Errorf("CONNACK %#x", ack.ReasonCode)
	}
}

func TestSameOwnerTakesOver(t *testing.T) {
	r := start(t, false, broker.Options{})
	a := r.connected(t, 5, "pi-1", tokenPi)
	b := r.connected(t, 5, "pi-1", tokenPiToo) // another token of the same device
	a.expectEnd(0x8E)
	b.ping()
	// The first token does not matter to the second connection any more.
	r.auth.end("c1", access.Revoked)
	b.ping()
	r.auth.end("c1b", access.Revoked)
	b.expectEnd(0x87)
}

func TestManyTakeOversAtOnce(t *testing.T) {
	r := start(t, false, broker.Options{})
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 20 {
				c, err := r.dial()
				if err != nil {
					continue
				}
				p := packets.Packet{
					FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: 4,
					Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), Keepalive: 60},
				}
				login("pi-1", tokenPi)(&p)
				_, _ = c.Write(encode(t, &p))
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				_, _ = c.Read(make([]byte, 4))
				_ = c.Close()
			}
		}()
	}
	for range 8 {
		<-done
	}
	r.connected(t, 4, "pi-1", tokenPi).ping()
}

func TestRevokedTokenIsCutAtOnce(t *testing.T) {
	for _, why := range []access.Reason{access.Revoked, access.Expired, access.Changed} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, true, broker.Options{})
			v5 := r.connected(t, 5, "panel", tokenView, kept)
			v4 := r.connected(t, 4, "pi-1", tokenPi, kept, withWill("ingest/pi-1", false))
			gone := r.connected(t, 4, "gone", tokenView, kept)
			_ = gone.c.Close()
			synctest.Wait()
			began := time.Now()
			r.auth.end("c3", why)
			r.auth.end("c1", why)
			v5.expectEnd(0x87)
			v4.expectEnd(0)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
			time.Sleep(2 * time.Second)
			if n := r.metrics.Offline.Load(); n != 0 {
				t.Errorf("%d sessions are kept", n)
			}
			if got := r.stored.all(); len(got) != 0 {
				t.Errorf("the will of a revoked device is stored: %q", got)
			}
			_ = r.stop()
		})
	}
}

func TestSessionIsKeptWithItsMessagesInOrder(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub := r.local(t)
	for _, version := range []byte{4, 5} {
		x := r.connected(t, version, "pi-1", tokenPi, kept)
		x.subscribe(1, "telemetry/pi-1/cmd/#")
		hub.send(message("telemetry/pi-1/cmd/x", "0", 1, 1))
		hub.expect(packets.Puback)
		first := x.expectMessage("telemetry/pi-1/cmd/x", "0") // not acknowledged
		_ = x.c.Close()
		eventually(t, "the session is kept", func() bool { return r.metrics.Offline.Load() == 1 })
		for i := 1; i < 50; i++ {
			hub.send(message("telemetry/pi-1/cmd/x", fmt.Sprint(i), 1, uint16(i)))
			hub.expect(packets.Puback)
		}
		x = r.raw(t)
		x.v = version
		if ack := x.connect(login("pi-1", tokenPi), kept); !ack.SessionPresent {
			t.Error("no session")
		}
		for i := range 50 {
			p := x.expectMessage("telemetry/pi-1/cmd/x", fmt.Sprint(i))
			if i == 0 && (p.PacketID != first.PacketID || !p.FixedHeader.Dup) {
				t.Errorf("the first message comes again as %d, dup %v", p.PacketID, p.FixedHeader.Dup)
			}
			x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: p.PacketID})
		}
		hub.send(message("telemetry/pi-1/cmd/x", "live", 0, 0)) // its subscription goes on
		x.expectMessage("telemetry/pi-1/cmd/x", "live")
		x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
		x.expectEnd(0)
		x = r.raw(t)
		x.v = version
		if ack := x.connect(login("pi-1", tokenPi)); ack.SessionPresent {
			t.Error("a clean start finds a session")
		}
		hub.send(message("telemetry/pi-1/cmd/x", "no", 0, 0))
		hub.ping()
		x.ping()
		_ = x.c.Close()
		eventually(t, "nothing is kept", func() bool { return r.metrics.Open.Load() == 1 && r.metrics.Offline.Load() == 0 })
	}
}

// A message that is published while a client comes back belongs to its session as well.
func TestNoMessageIsLostBetweenConnections(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub := r.local(t)
	x := r.connected(t, 4, "pi-1", tokenPi, kept)
	x.subscribe(1, "telemetry/pi-1/cmd/#")
	_ = x.c.Close()
	const n = 2000
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for i := range n {
			p := message("telemetry/pi-1/cmd/x", fmt.Sprint(i), 1, uint16(i%1000+1))
			p.ProtocolVersion = 4
			if _, err := hub.c.Write(encode(t, &p)); err != nil {
				return
			}
			if _, err := hub.next(); err != nil {
				return
			}
		}
	}()
	last := -1 // of those that came in order
	for last < n-1 {
		x := r.connected(t, 4, "pi-1", tokenPi, kept)
		for pings := range 2 { // the second answer says that what was acknowledged before the first is known to be
			x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
			for {
				p, err := x.next()
				if err != nil {
					t.Fatal(err)
				}
				if p.FixedHeader.Type == packets.Pingresp {
					break
				}
				i, err := strconv.Atoi(string(p.Payload))
				if err != nil || i > last+1 {
					t.Fatalf("after %d comes %q", last, p.Payload)
				}
				if last = max(last, i); pings == 0 {
					x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: p.PacketID})
				}
			}
		}
		_ = x.c.Close()
	}
	<-sent
}

func TestSessionEndsAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{})
		forever := func(p *packets.Packet) {
			kept(p)
			if p.ProtocolVersion == 5 {
				p.Properties.SessionExpiryInterval = 1<<32 - 1
			}
		}
		x := r.raw(t)
		x.v = 5
		if ack := x.connect(login("panel", tokenView), forever); ack.Properties.SessionExpiryInterval != 3600 {
			t.Errorf("CONNACK says %d s", ack.Properties.SessionExpiryInterval)
		}
		old := r.connected(t, 4, "old", tokenView, forever)
		_, _ = x.c.Close(), old.c.Close()
		time.Sleep(time.Hour - 2*time.Second)
		if n := r.metrics.Offline.Load(); n != 2 {
			t.Errorf("%d sessions are kept", n)
		}
		time.Sleep(4 * time.Second)
		if n := r.metrics.Offline.Load(); n != 0 {
			t.Errorf("%d sessions are kept after an hour", n)
		}
		_ = r.stop()
	})
}

func TestOfflineSessionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{MaxOffline: 3, MaxInflight: 20, MaxOfflineBytes: 1000})
		for i := range 6 {
			x := r.connected(t, 4, fmt.Sprint("panel-", i), tokenView, kept)
			x.subscribe(1, "telemetry/#")
			_ = x.c.Close()
			synctest.Wait()
		}
		if n := r.metrics.Offline.Load(); n != 3 {
			t.Errorf("%d sessions are kept", n)
		}
		// Too much of one size or the other ends a session, as it would lack a message.
		hub := r.local(t)
		for i := range 21 {
			hub.send(message("telemetry/pi-1/t", "1", 1, uint16(i+1)))
			hub.expect(packets.Puback)
		}
		time.Sleep(2 * time.Second)
		if n := r.metrics.Offline.Load(); n != 0 {
			t.Errorf("%d sessions are kept with more than 20 messages", n)
		}
		x := r.connected(t, 4, "panel-1", tokenView, kept)
		x.subscribe(1, "telemetry/#")
		_ = x.c.Close()
		synctest.Wait()
		for i := range 2 {
			hub.send(message("telemetry/pi-1/t", strings.Repeat("x", 600), 1, uint16(i+1)))
			hub.expect(packets.Puback)
		}
		time.Sleep(2 * time.Second)
		if n := r.metrics.Offline.Load(); n != 0 {
			t.Errorf("%d sessions are kept with more than 1,000 bytes", n)
		}
		x = r.raw(t)
		if ack := x.connect(login("panel-1", tokenView), kept); ack.SessionPresent {
			t.Error("the session that lacks a message goes on")
		}
		_ = r.stop()
	})
}

// Client and broker number their packets each for itself.
func TestPacketIDsOfBothSidesDoNotMeet(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub := r.local(t)
	for _, version := range []byte{4, 5} {
		x := r.connected(t, version, "op", tokenOp)
		x.subscribe(1, "telemetry/pi-1/t")
		for i := range 10 {
			hub.send(message("telemetry/pi-1/t", fmt.Sprint(i), 1, uint16(i+1)))
			hub.expect(packets.Puback)
		}
		var ids []uint16
		for i := range 10 {
			ids = append(ids, x.expectMessage("telemetry/pi-1/t", fmt.Sprint(i)).PacketID)
		}
		for _, id := range ids { // none of them acknowledged
			x.send(message("telemetry/pi-1/cmd/led", "on", 1, id))
			if ack := x.expect(packets.Puback); ack.PacketID != id || ack.ReasonCode != 0 {
				t.Errorf("PUBACK for %d with %#x, want %d", ack.PacketID, ack.ReasonCode, id)
			}
			x.send(packets.Packet{
				FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: id,
				Filters: packets.Subscriptions{{Filter: fmt.Sprint("homeassistant/", id)}},
			})
			if ack := x.expect(packets.Suback); ack.PacketID != id || ack.ReasonCodes[0] != 0 {
				t.Errorf("SUBACK for %d with %x, want %d", ack.PacketID, ack.ReasonCodes, id)
			}
			x.send(packets.Packet{
				FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: id,
				Filters: packets.Subscriptions{{Filter: fmt.Sprint("homeassistant/", id)}},
			})
			if ack := x.expect(packets.Unsuback); ack.PacketID != id {
				t.Errorf("UNSUBACK for %d, want %d", ack.PacketID, id)
			}
		}
		_ = x.c.Close()
		eventually(t, "the client is gone", func() bool { return r.metrics.Open.Load() == 1 })
	}
}

func TestWill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{})
		viewer := r.connected(t, 4, "viewer", tokenView)
		viewer.subscribe(1, "homeassistant/status", "telemetry/+/cmd/#")

		lost := func(x *client) { _ = x.c.Close() }
		left := func(x *client) {
			x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}})
			x.expectEnd(0)
		}
		for _, version := range []byte{4, 5} {
			x := r.connected(t, version, "op", tokenOp, withWill("homeassistant/status", false))
			left(x)
			x = r.connected(t, version, "op", tokenOp, withWill("homeassistant/status", false))
			lost(x)
			p := viewer.expectMessage("homeassistant/status", "gone")
			viewer.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: p.PacketID})
			viewer.ping() // and only once

			// A connection that breaks the rules, one that is silent, one that is taken over.
			x = r.connected(t, version, "op", tokenOp, withWill("homeassistant/status", false))
			x.write([]byte{0xf0, 0})
			x.expectEnd(0x82)
			viewer.expectMessage("homeassistant/status", "gone")
			x = r.connected(t, version, "op", tokenOp, withWill("homeassistant/status", false))
			y := r.connected(t, version, "op", tokenOp)
			x.expectEnd(0) // the DISCONNECT was not read in time
			left(y)
			viewer.expectMessage("homeassistant/status", "gone")

			// The will of a device is a reading.
			x = r.connected(t, version, "pi-1", tokenPi, withWill("ingest/pi-1", false))
			lost(x)
			synctest.Wait()
		}
		if got := r.stored.all(); len(got) != 2 || got[0] != "pi-1 gone" {
			t.Errorf("stored %q", got)
		}
		// MQTT 5: a DISCONNECT that wants the will, with and without properties behind the code.
		for _, bye := range [][]byte{{0xe0, 1, 4}, {0xe0, 2, 4, 0}} {
			x := r.connected(t, 5, "op", tokenOp, withWill("homeassistant/status", false))
			x.write(bye)
			viewer.expectMessage("homeassistant/status", "gone")
		}
		viewer.ping()
		_ = r.stop()
	})
}

func TestWillWaitsForItsDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{})
		viewer := r.connected(t, 4, "viewer", tokenView)
		viewer.subscribe(0, "homeassistant/status")
		late := func(p *packets.Packet) {
			withWill("homeassistant/status", false)(p)
			p.Connect.WillProperties.WillDelayInterval = 10
		}
		x := r.connected(t, 5, "op", tokenOp, kept, late)
		_ = x.c.Close()
		time.Sleep(5 * time.Second)
		x = r.connected(t, 5, "op", tokenOp, kept, late) // it is back in time
		time.Sleep(20 * time.Second)
		viewer.ping()
		_ = x.c.Close()
		synctest.Wait()
		began := time.Now()
		viewer.wait = time.Minute
		viewer.expectMessage("homeassistant/status", "gone")
		if took := time.Since(began); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("it took %v", took)
		}
		x = r.connected(t, 5, "short", tokenOp, late) // its session ends with its connection
		_ = x.c.Close()
		began = time.Now()
		viewer.expectMessage("homeassistant/status", "gone")
		if took := time.Since(began); took != 0 {
			t.Errorf("it took %v", took)
		}
		_ = r.stop()
	})
}

func TestStop(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub := r.local(t)
	hub.subscribe(0, "telemetry/#", "homeassistant/#")
	old := r.connected(t, 4, "old", tokenOp, withWill("homeassistant/status", false))
	v5 := r.connected(t, 5, "v5", tokenOp, kept, withWill("homeassistant/status", false))
	idle := r.raw(t)
	deaf := r.connected(t, 4, "deaf", tokenView)
	if tcp, ok := deaf.c.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(1024)
	}
	began := time.Now()
	if err := r.stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	old.expectEnd(0)
	v5.expectEnd(0x8B)
	idle.expectEnd(0)
	hub.expectEnd(0) // and no will
	if n := r.metrics.Wills.Load(); n != 0 {
		t.Errorf("%d wills were published", n)
	}
	if _, err := r.Dial(context.Background()); err == nil {
		t.Error("Dial after the end")
	}
}

func TestTheBrokerKnowsWhetherAnybodyReads(t *testing.T) {
	r := start(t, false, broker.Options{})
	wanted, changed := r.Wanted()
	if wanted {
		t.Error("nobody is there")
	}
	r.local(t).subscribe(1, "telemetry/#")
	device := r.connected(t, 4, "pi-1", tokenPi)
	device.subscribe(1, "telemetry/pi-1/cmd/#")
	viewer := r.connected(t, 5, "viewer", tokenView)
	viewer.subscribe(0, "ingest/#") // is refused
	if wanted, _ = r.Wanted(); wanted {
		t.Error("the hub itself and devices do not count, nor who is refused")
	}
	viewer.subscribe(0, "telemetry/#")
	select {
	case <-changed:
	default:
		t.Error("nobody was told before the subscriber was")
	}
	if wanted, _ = r.Wanted(); !wanted {
		t.Error("somebody reads")
	}
	_ = viewer.c.Close()
	eventually(t, "nobody is left", func() bool { wanted, _ := r.Wanted(); return !wanted })
}
