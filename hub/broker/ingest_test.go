package broker_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/hub"
	"telemetryhub/hub/broker"
	"telemetryhub/storage"
)

func TestReadingsAreStoredBeforeTheAck(t *testing.T) {
	release := make(chan struct{})
	r := start(t, false, broker.Options{})
	r.stored.failWith(func(ctx context.Context, _ string) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	for _, version := range []byte{4, 5} {
		x := r.connected(t, version, "pi-1", tokenPi)
		x.send(message("ingest/pi-1", `{"a":1}`, 1, 5))
		x.wait = 100 * time.Millisecond
		if p, err := x.next(); err == nil {
			t.Fatalf("%s before the readings are stored", packets.PacketNames[p.FixedHeader.Type])
		}
		x.wait = 5 * time.Second
		release <- struct{}{}
		if ack := x.expect(packets.Puback); ack.PacketID != 5 || ack.ReasonCode != 0 {
			t.Errorf("PUBACK for %d with %#x", ack.PacketID, ack.ReasonCode)
		}
	}
	if got := r.stored.all(); !slices.Equal(got, []string{`pi-1 {"a":1}`, `pi-1 {"a":1}`}) {
		t.Errorf("stored %q", got)
	}
}

func TestReadingsGoToNobodyElse(t *testing.T) {
	r := start(t, false, broker.Options{})
	hub, viewer := r.local(t), r.connected(t, 5, "viewer", tokenView)
	hub.subscribe(2, "telemetry/#", "homeassistant/#")
	viewer.subscribe(2, "telemetry/#", "homeassistant/#")
	if got := hub.subscribe(0, "ingest/#"); got[0] != 0x80 {
		t.Errorf("SUBACK %x", got)
	}
	x := r.connected(t, 5, "pi-1", tokenPi)
	for qos := range byte(3) {
		x.send(message("ingest/pi-1", `{"a":1}`, qos, uint16(qos)))
	}
	x.expect(packets.Puback)
	x.expect(packets.Pubrec)
	hub.ping()
	viewer.ping()
	if n := len(r.stored.all()); n != 3 {
		t.Errorf("%d stored", n)
	}
}

func TestQoS2IsStoredOnce(t *testing.T) {
	r := start(t, false, broker.Options{})
	for _, version := range []byte{4, 5} {
		x := r.connected(t, version, "pi-1", tokenPi, kept)
		p := message("ingest/pi-1", `{"a":1}`, 2, 77)
		x.send(p)
		x.expect(packets.Pubrec)
		p.FixedHeader.Dup = true
		x.send(p)
		if rec := x.expect(packets.Pubrec); rec.PacketID != 77 || rec.ReasonCode != 0 {
			t.Errorf("PUBREC for %d with %#x", rec.PacketID, rec.ReasonCode)
		}
		_ = x.c.Close()

		x = r.connected(t, version, "pi-1", tokenPi, kept)
		if rec := x.expect(packets.Pubrec); rec.PacketID != 77 { // which mochi sends again by itself
			t.Errorf("PUBREC for %d", rec.PacketID)
		}
		x.send(p)
		x.expect(packets.Pubrec)
		x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 77})
		if comp := x.expect(packets.Pubcomp); comp.PacketID != 77 || comp.ReasonCode != 0 {
			t.Errorf("PUBCOMP for %d with %#x", comp.PacketID, comp.ReasonCode)
		}
		p.FixedHeader.Dup = false
		x.send(p) // the id is free again
		x.expect(packets.Pubrec)
		x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 77})
		x.expect(packets.Pubcomp)
	}
	if n := len(r.stored.all()); n != 4 {
		t.Errorf("%d stored, want 4", n)
	}
}

func TestWhatCannotBeStoredNowIsNotAcked(t *testing.T) {
	for name, failure := range map[string]error{
		"disk full": storage.ErrFull, "draining": hub.ErrDraining, "busy": hub.ErrBusy, "read-only": storage.ErrReadOnly,
		"unknown device": hub.ErrUnknownDevice, "anything": errors.New("boom"),
	} {
		r := start(t, false, broker.Options{})
		for _, version := range []byte{4, 5} {
			for _, qos := range []byte{1, 2} {
				r.stored.failWith(func(context.Context, string) error { return failure })
				x := r.connected(t, version, "pi-1", tokenPi, kept)
				x.send(message("ingest/pi-1", `{"a":1}`, qos, 5))
				x.expectEnd(0x89)
				r.stored.failWith(nil)
				x = r.connected(t, version, "pi-1", tokenPi, kept)
				p := message("ingest/pi-1", `{"a":1}`, qos, 5)
				p.FixedHeader.Dup = true
				x.send(p)
				if p, err := x.next(); err != nil || p.FixedHeader.Type != packets.Puback && p.FixedHeader.Type != packets.Pubrec {
					t.Errorf("%s: %v, %v", name, p.FixedHeader.Type, err)
				}
				if qos == 2 {
					x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 5})
					x.expect(packets.Pubcomp)
				}
			}
		}
		if n := len(r.stored.all()); n != 4 {
			t.Errorf("%s: %d stored, want 4", name, n)
		}
		if n := r.metrics.IngestFailed.Load(); n != 4 {
			t.Errorf("%s: %d failures counted", name, n)
		}
	}
}

func TestIngestHasATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, true, broker.Options{})
		r.stored.failWith(func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		})
		x := r.connected(t, 5, "pi-1", tokenPi)
		began := time.Now()
		x.send(message("ingest/pi-1", `{"a":1}`, 1, 5))
		x.wait = time.Minute
		x.expectEnd(0x89)
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		_ = r.stop()
	})
}

func TestBadReadingsAreAcked(t *testing.T) {
	r := start(t, false, broker.Options{})
	r.stored.failWith(func(context.Context, string) error { return &hub.BadInput{Text: "not JSON"} })
	x := r.connected(t, 4, "pi-1", tokenPi)
	x.send(message("ingest/pi-1", "{", 1, 5))
	x.expect(packets.Puback)
	x.send(message("ingest/pi-1", "{", 0, 0))
	x.ping()
	r.stored.failWith(nil)
	x.send(message("ingest/pi-1/temperature", "21", 1, 6)) // nothing is defined there
	x.expect(packets.Puback)
	x.send(message("ingest/pi-1", `{"a":1}`, 1, 7))
	x.expect(packets.Puback)
	if got := r.stored.all(); !slices.Equal(got, []string{`pi-1 {"a":1}`}) {
		t.Errorf("stored %q", got)
	}
	if bad, good := r.metrics.IngestBad.Load(), r.metrics.Ingested.Load(); bad != 3 || good != 1 {
		t.Errorf("%d bad and %d good", bad, good)
	}
}

func TestSlowStoreHoldsUpOneDeviceOnly(t *testing.T) {
	r := start(t, false, broker.Options{})
	r.stored.failWith(func(ctx context.Context, payload string) error {
		if payload == "slow" {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	slow, other := r.connected(t, 4, "pi-1", tokenPi), r.connected(t, 4, "pi-2", tokenPi2)
	slow.send(message("ingest/pi-1", "slow", 1, 1))
	for id := range uint16(100) {
		other.send(message("ingest/pi-2", `{"a":1}`, 1, id+1))
		other.expect(packets.Puback)
	}
	if n := len(r.stored.all()); n != 100 {
		t.Errorf("%d stored", n)
	}
	_ = r.stop() // does not wait for the slow one
}
