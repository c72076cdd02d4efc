package broker_test

import (
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/hub/access"
	"telemetryhub/hub/broker"
)

func TestWhoMay(t *testing.T) {
	ids := newAuth().ids
	admin := access.Identity{Kind: access.KindAPI, Role: access.Admin, Credential: "c9"}
	who := []struct {
		name  string
		id    access.Identity
		local bool
	}{
		{"device", ids[tokenPi], false},
		{"viewer", ids[tokenView], false},
		{"operator", ids[tokenOp], false},
		{"admin", admin, false},
		{"scoped", ids[tokenScoped], false},
		{"enrolment", ids[tokenEnrol], false},
		{"nobody", access.Identity{}, false},
		{"hub", access.Identity{}, true},
	}
	// Who may, by the letters of: d device pi-1, v viewer, o operator, a admin, s operator for pi-1 and room-*, h hub.
	letters := "dvoasxnh"
	for _, c := range []struct{ topic, publish, subscribe string }{
		{"ingest/pi-1", "d", ""},
		{"ingest/pi-1/x/y", "d", ""},
		{"ingest/pi-2", "", ""},
		{"ingest/pi-2/pi-1", "", ""},
		{"ingest", "", ""},
		{"ingest/", "", ""},
		{"ingest/#", "", ""},
		{"ingest/+", "", ""},
		{"ingest/pi-1/#", "", ""},
		{"telemetry/pi-1/temperature", "h", "voash"},
		{"telemetry/pi-1/status", "h", "voash"},
		{"telemetry/pi-2/temperature", "h", "voah"},
		{"telemetry/room-7/temperature", "h", "voash"},
		{"telemetry/pi-1/cmd", "oash", "dvoash"},
		{"telemetry/pi-1/cmd/led", "oash", "dvoash"},
		{"telemetry/pi-2/cmd/led", "oah", "voah"},
		{"telemetry/pi-1/cmdx/led", "h", "voash"},
		{"telemetry/PI 1/cmd/led", "h", "voah"},
		{"telemetry//cmd/led", "h", "voah"},
		{"telemetry", "h", "voah"},
		{"telemetry/#", "", "voah"},
		{"telemetry/+/cmd/#", "", "voah"},
		{"telemetry/pi-1/#", "", "voash"},
		{"telemetry/pi-1/cmd/#", "", "dvoash"},
		{"telemetry/pi-1/+/led", "", "voash"},
		{"telemetry/pi-1", "h", "voash"},
		{"telemetry/room-+/x", "", ""},
		{"homeassistant/status", "oah", "voah"},
		{"homeassistant/status/x", "h", "voah"},
		{"homeassistant/#", "", "voah"},
		{"homeassistant/sensor/pi-1/t/config", "h", "voah"},
		{"#", "", ""},
		{"+", "", ""},
		{"+/#", "", ""},
		{"+/pi-1", "", ""},
		{"+/pi-1/cmd/#", "", ""},
		{"/telemetry/#", "", ""},
		{"Telemetry/#", "", ""},
		{"telemetry#", "", ""},
		{"$SYS/#", "", ""},
		{"$SYS/broker/version", "", ""},
		{"$share/g/telemetry/#", "", "voah"},
		{"$share/g/telemetry/pi-1/cmd/#", "", "dvoash"},
		{"$share/g/ingest/#", "", ""},
		{"$share/g/#", "", ""},
		{"$share/g/$share/g/telemetry/#", "", ""},
		{"$SHARE/g/ingest/#", "", ""},
		{"$SHARE/g/telemetry/#", "", ""},
		{"$share/+/telemetry/#", "", ""},
		{"$share//telemetry/#", "", ""},
		{"$share/telemetry", "", ""},
		{"", "", ""},
	} {
		for i, w := range who {
			want := func(s string) bool { return len(s) > 0 && containsByte(s, letters[i]) }
			if got := broker.MayPublish(w.id, w.local, c.topic); got != want(c.publish) {
				t.Errorf("%s may publish %q: %v", w.name, c.topic, got)
			}
			if got := broker.MaySubscribe(w.id, w.local, c.topic); got != want(c.subscribe) {
				t.Errorf("%s may subscribe %q: %v", w.name, c.topic, got)
			}
		}
	}
}

func containsByte(s string, b byte) bool {
	for i := range len(s) {
		if s[i] == b {
			return true
		}
	}
	return false
}

func TestFiltersMatchAsTheStandardSays(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/b", "a", false}, {"a", "a/b", false},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/#", "b", false}, {"#", "a/b", true}, {"a/b/#", "a", false},
		{"a/+", "a/b", true}, {"a/+", "a", false}, {"a/+", "a/", true}, {"a/+", "a/b/c", false}, {"+/b", "a/b", true},
		{"+/+", "/b", true}, {"+", "/b", false}, {"/+", "/b", true}, {"a/+/#", "a/b", true},
		{"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true},
	} {
		if got := broker.Matches(c.filter, c.topic); got != c.want {
			t.Errorf("%q matches %q: %v", c.filter, c.topic, got)
		}
	}
}

// The same over the wire, where mochi has its say too.
func TestWhoMayOverTheWire(t *testing.T) {
	r := start(t, false, broker.Options{})
	for _, version := range []byte{4, 5} {
		refused := byte(0x87)
		if version == 4 {
			refused = 0x80
		}
		viewer := r.connected(t, version, "viewer", tokenView)
		got := viewer.subscribe(1, "telemetry/#", "#", "$SYS/#", "ingest/#", "$share/g/ingest/#", "homeassistant/+/x", "$share/g/telemetry/#")
		want := []byte{1, refused, refused, refused, refused, 1, 1}
		if string(got) != string(want) {
			t.Errorf("version %d: SUBACK %x, want %x", version, got, want)
		}
		pi := r.connected(t, version, "pi-1", tokenPi)
		if got := pi.subscribe(1, "telemetry/pi-1/cmd/#", "telemetry/pi-2/cmd/#", "telemetry/#"); string(got) != string([]byte{1, refused, refused}) {
			t.Errorf("version %d: SUBACK %x", version, got)
		}
		scoped := r.connected(t, version, "scoped", tokenScoped)
		if got := scoped.subscribe(0, "telemetry/pi-1/#", "telemetry/pi-2/#", "homeassistant/#"); string(got) != string([]byte{0, refused, refused}) {
			t.Errorf("version %d: SUBACK %x", version, got)
		}

		// A message with QoS 0 that is not allowed is dropped, one with QoS 1 is refused as far as the version can.
		viewer.send(message("telemetry/pi-1/cmd/led", "off", 0, 0))
		viewer.ping()
		viewer.send(message("telemetry/pi-1/cmd/led", "off", 1, 7))
		if version == 5 {
			if ack := viewer.expect(packets.Puback); ack.ReasonCode != 0x87 || ack.PacketID != 7 {
				t.Errorf("PUBACK %#x for %d", ack.ReasonCode, ack.PacketID)
			}
		} else {
			viewer.expectEnd(0)
		}
		op := r.connected(t, version, "op", tokenOp)
		op.send(message("telemetry/pi-1/cmd/led", "on", 1, 9))
		op.expect(packets.Puback)
		pi.expectMessage("telemetry/pi-1/cmd/led", "on")
		scoped.expectMessage("telemetry/pi-1/cmd/led", "on")
	}
	if n := r.metrics.Denied.Load(); n == 0 {
		t.Error("nothing was counted as denied")
	}
}

func TestOnlyTheHubRetains(t *testing.T) {
	r := start(t, false, broker.Options{})
	for _, version := range []byte{4, 5} {
		for _, payload := range []string{"on", ""} {
			op := r.connected(t, version, "op", tokenOp)
			op.send(retainedMessage("telemetry/pi-1/cmd/led", payload))
			op.expectEnd(0x9A)
			pi := r.connected(t, version, "pi-1", tokenPi)
			pi.send(retainedMessage("ingest/pi-1", `{"t":1}`))
			pi.expectEnd(0x9A)
		}
	}
	if got := r.stored.all(); len(got) != 0 {
		t.Errorf("stored %q", got)
	}
	if n := r.metrics.Retained.Load(); n != 0 {
		t.Errorf("%d messages are retained", n)
	}
}

func TestTopicAliasIsRefused(t *testing.T) {
	r := start(t, false, broker.Options{})
	op := r.connected(t, 5, "op", tokenOp)
	p := message("telemetry/pi-1/cmd/led", "on", 0, 0)
	p.Properties.TopicAlias, p.Properties.TopicAliasFlag = 1, true
	op.send(p)
	op.expectEnd(0x94)
	op = r.connected(t, 5, "op", tokenOp)
	p.TopicName = ""
	op.send(p)
	op.expectEnd(0x94)
}
