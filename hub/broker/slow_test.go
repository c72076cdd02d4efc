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

// A subscriber that does not read is cut, and nobody else notices.
func TestStalledSubscriberIsCut(t *testing.T) {
	for qos := range byte(3) {
		t.Run(fmt.Sprint("QoS ", qos), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, true, broker.Options{})
				hub, good := r.local(t), r.connected(t, 5, "good", tokenView)
				good.subscribe(0, "telemetry/#")
				stalled := r.connected(t, 5, "stalled", tokenView2)
				stalled.subscribe(qos, "telemetry/#")
				began := time.Now()
				for i := range 20 {
					sendAll(hub, message("telemetry/pi-1/t", fmt.Sprint(i), qos, uint16(i+1)))
					good.expectMessage("telemetry/pi-1/t", fmt.Sprint(i))
				}
				if took := time.Since(began); took != 0 {
					t.Errorf("others waited %v", took)
				}
				time.Sleep(10*time.Second + time.Millisecond)
				synctest.Wait()
				if n := r.metrics.Open.Load(); n != 2 {
					t.Errorf("%d connections are open", n)
				}
				cut := map[string]uint64{}
				for reason, n := range r.metrics.Closed {
					cut[reason] = n
				}
				if cut["slow"] != 1 {
					t.Errorf("ended: %v", cut)
				}
				_ = r.stop()
				_ = stalled.c.Close()
			})
		})
	}
}

func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{MaxPendingBytes: 100 << 10})
		hub := r.local(t)
		stalled := r.connected(t, 4, "stalled", tokenView)
		stalled.subscribe(0, "telemetry/#")
		for range 6 {
			hub.send(message("telemetry/pi-1/t", strings.Repeat("x", 20<<10), 0, 0))
			hub.ping()
			synctest.Wait()
		}
		if n := r.metrics.Open.Load(); n != 1 {
			t.Errorf("%d connections are open", n)
		}
		if n := r.metrics.Dropped.Load(); n != 1 {
			t.Errorf("%d messages were dropped", n)
		}
		_ = stalled.c.Close()
		_ = r.stop()
	})
}

func TestUnacknowledgedMessagesAreBounded(t *testing.T) {
	r := start(t, false, broker.Options{MaxInflight: 10})
	hub := r.local(t)
	x := r.connected(t, 4, "x", tokenView)
	x.subscribe(1, "telemetry/#")
	for i := range 11 {
		hub.send(message("telemetry/pi-1/t", fmt.Sprint(i), 1, uint16(i+1)))
		hub.expect(packets.Puback)
	}
	eventually(t, "it is cut", func() bool { return r.metrics.Open.Load() == 1 })
	if n := r.metrics.Dropped.Load(); n != 1 {
		t.Errorf("%d messages were dropped", n)
	}
}

// A client gets no more unacknowledged messages than it takes, and all of them, in order.
func TestReceiveMaximum(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub := r.local(t)
	for qos := byte(1); qos < 3; qos++ {
		x := r.connected(t, 5, "x", tokenView, func(p *packets.Packet) { p.Properties.ReceiveMaximum = 5 })
		if got := x.subscribe(qos, "telemetry/#"); got[0] != qos {
			t.Errorf("granted %d", got[0])
		}
		const n = 100
		for i := range n { // every tenth with QoS 0
			sendAll(hub, message("telemetry/pi-1/t", fmt.Sprint(i), qos*byte(min(1, (i+1)%10)), uint16(i+1)))
		}
		var open []uint16
		for i := range n {
			if len(open) == 5 && i%10 != 9 {
				x.ping() // nothing comes now
				p := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: open[0]}
				open = open[1:]
				if qos == 2 {
					p.FixedHeader.Type = packets.Pubrec
					x.send(p)
					x.expect(packets.Pubrel)
					p.FixedHeader.Type = packets.Pubcomp
				}
				x.send(p)
			}
			if p := x.expectMessage("telemetry/pi-1/t", fmt.Sprint(i)); p.FixedHeader.Qos > 0 {
				open = append(open, p.PacketID)
			}
		}
		_ = x.c.Close()
		eventually(t, "it is gone", func() bool { return r.metrics.Open.Load() == 1 })
	}
}

// sendAll publishes a message and waits until it has been distributed.
func sendAll(x *client, p packets.Packet) {
	x.t.Helper()
	qos, id := p.FixedHeader.Qos, p.PacketID
	if qos == 0 {
		p.PacketID = 0
	}
	x.send(p)
	switch qos {
	case 1:
		x.expect(packets.Puback)
	case 2:
		x.expect(packets.Pubrec)
		x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: id})
		x.expect(packets.Pubcomp)
	}
	x.ping()
}

// The hub may publish as fast as it can to somebody who reads.
func TestBurstReachesAReader(t *testing.T) {
	r := start(t, false, broker.Options{})
	for qos := range byte(2) {
		hub, x := r.local(t), r.connected(t, 4, "x", tokenView)
		x.subscribe(qos, "telemetry/#")
		const n = 20_000
		go func() {
			var buf []byte
			for i := range n {
				p := message("telemetry/pi-1/t", fmt.Sprint(i), 0, 0)
				p.ProtocolVersion = 4
				buf = append(buf, encode(t, &p)...)
			}
			_, _ = hub.c.Write(buf)
		}()
		for i := range n {
			x.expectMessage("telemetry/pi-1/t", fmt.Sprint(i))
		}
		_, _ = x.c.Close(), hub.c.Close()
	}
}

func TestKeepAlive(t *testing.T) {
	for _, c := range []struct {
		asked uint16
		cut   time.Duration // of silence
	}{
		{0, 450 * time.Second}, {1, 1500 * time.Millisecond}, {60, 90 * time.Second}, {300, 450 * time.Second},
		{301, 450 * time.Second}, {43_691, 450 * time.Second}, {65_535, 450 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, true, broker.Options{})
			for _, version := range []byte{4, 5} {
				x := r.raw(t)
				x.v = version
				ack := x.connect(login("x", tokenView), func(p *packets.Packet) { p.Connect.Keepalive = c.asked })
				if forced := c.asked == 0 || c.asked > 300; version == 5 && (ack.Properties.ServerKeepAlive == 300) != forced {
					t.Errorf("keep-alive %d: the server's is %d", c.asked, ack.Properties.ServerKeepAlive)
				}
				time.Sleep(c.cut - time.Millisecond)
				x.ping()
				began := time.Now()
				x.wait = time.Hour
				x.expectEnd(0)
				if took := time.Since(began); took != c.cut {
					t.Errorf("keep-alive %d: cut after %v", c.asked, took)
				}
			}
			_ = r.stop()
		})
	}
}

func TestSubscriptionsAreBounded(t *testing.T) {
	r := start(t, false, broker.Options{})
	for _, version := range []byte{4, 5} {
		x := r.connected(t, version, "x", tokenView)
		var filters []string
		for i := range 66 {
			filters = append(filters, fmt.Sprint("telemetry/", i))
		}
		codes := x.subscribe(0, filters...)
		want := byte(0x97)
		if version == 4 {
			want = 0x80
		}
		if codes[63] != 0 || codes[64] != want || codes[65] != want {
			t.Errorf("version %d: SUBACK %x", version, codes)
		}
		if codes := x.subscribe(0, filters[0], "telemetry/new"); codes[0] != 0 || codes[1] != want {
			t.Errorf("version %d: SUBACK %x", version, codes)
		}
		x.send(packets.Packet{
			FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, PacketID: 1,
			Filters: packets.Subscriptions{{Filter: filters[5]}},
		})
		x.expect(packets.Unsuback)
		if codes := x.subscribe(0, "telemetry/new"); codes[0] != 0 {
			t.Errorf("version %d: SUBACK %x", version, codes)
		}
		_ = x.c.Close()
	}
}

// A client on a slow line reads all the time, if little.
func TestSlowLineIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{})
		hub := r.local(t)
		x := r.connected(t, 4, "x", tokenView)
		x.subscribe(0, "telemetry/#")
		for range 10 {
			hub.send(message("telemetry/pi-1/t", strings.Repeat("x", 60_000), 0, 0))
		}
		hub.ping()
		total := 0
		p := make([]byte, 4096)
		for total < 600_000 {
			time.Sleep(time.Second) // 32 KiB take 8 s
			_ = x.c.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := x.c.Read(p)
			if err != nil {
				t.Fatalf("after %d bytes: %v", total, err)
			}
			total += n
			if total%20_000 < n {
				x.write([]byte{0xc0, 0})
			}
		}
		_ = r.stop()
	})
}
