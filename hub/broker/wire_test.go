package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/hub/broker"
)

// Statements of MQTT 3.1.1 and 5 about what ends a connection, each with a packet that breaks it after CONNECT. The code is
// that of MQTT 5.
var broken = []struct {
	name   string
	packet string
	v4     bool // also for MQTT 3.1.1
	code   byte
}{
	{"MQTT-2.2.2-2 reserved flags of PUBACK", "\x41\x02\x00\x01", true, 0x81},
	{"MQTT-2.2.2-2 reserved flags of PINGREQ", "\xc1\x00", true, 0x81},
	{"MQTT-3.8.1-1 flags of SUBSCRIBE", "\x80\x08\x00\x01\x00\x03a/b\x00", true, 0x81},
	{"MQTT-3.10.1-1 flags of UNSUBSCRIBE", "\xa0\x07\x00\x01\x00\x03a/b", true, 0x81},
	{"MQTT-3.6.1-1 flags of PUBREL", "\x60\x02\x00\x01", true, 0x81},
	{"MQTT-3.3.1-4 QoS 3", "\x36\x07\x00\x03a/b\x00\x01", true, 0x81},
	{"MQTT-3.3.1-2 DUP with QoS 0", "\x38\x05\x00\x03a/b", true, 0x81},
	{"MQTT-3.1.0-2 second CONNECT", "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x", true, 0x82},
	{"packet type 0", "\x00\x00", true, 0x82},
	{"packet type 15", "\xf0\x00", true, 0x82},
	{"a server's CONNACK", "\x20\x02\x00\x00", true, 0x82},
	{"a server's SUBACK", "\x90\x03\x00\x01\x00", true, 0x82},
	{"a server's UNSUBACK", "\xb0\x02\x00\x01", true, 0x82},
	{"a server's PINGRESP", "\xd0\x00", true, 0x82},
	{"length of five bytes", "\x30\xff\xff\xff\xff\x01", true, 0x81},
	{"256 MiB announced", "\x30\xff\xff\xff\x7f", true, 0x95},
	{"PINGREQ with a body", "\xc0\x01\x00", true, 0x81},
	{"DISCONNECT with a body", "\xe0\x04\x00\x05\x00\x00", true, 0x81},
	{"PUBACK of one byte", "\x40\x01\x00", true, 0x81},
	{"PUBACK for 0", "\x40\x02\x00\x00", true, 0x81},
	{"PUBREL of nothing", "\x62\x00", true, 0x81},
	{"PUBLISH of nothing", "\x30\x00", true, 0x81},
	{"MQTT-4.7.3-1 empty topic", "\x30\x03\x00\x00\x00", true, 0x90},
	{"topic longer than the packet", "\x30\x05\x00\x09a/b", true, 0x81},
	{"MQTT-1.5.3-1 surrogate in a topic", "\x30\x06\x00\x03\xed\xa0\x80\x00", true, 0x81},
	{"MQTT-1.5.3-2 NUL in a topic", "\x30\x06\x00\x03a\x00b\x00", true, 0x81},
	{"U+FFFF in a topic", "\x30\x06\x00\x03\xef\xbf\xbf\x00", true, 0x90},
	{"MQTT-3.3.2-2 wildcard in a topic", "\x30\x06\x00\x03a/#\x00", true, 0x90},
	{"topic of the server", "\x30\x08\x00\x05$SYS/\x00", true, 0x90},
	{"MQTT-2.3.1-1 PUBLISH with id 0", "\x32\x08\x00\x03a/b\x00\x00\x00", true, 0x82},
	{"SUBSCRIBE of nothing", "\x82\x00", true, 0x81},
	{"MQTT-3.8.3-3 no filter", "\x82\x03\x00\x01\x00", true, 0x81},
	{"MQTT-3.10.3-2 no filter", "\xa2\x03\x00\x01\x00", true, 0x81},
	{"MQTT 5, filter without options: mochi panics", "\x82\x08\x00\x01\x00\x00\x03a/b", false, 0x81},
	{"MQTT 3.1.1, filter without options", "\x82\x07\x00\x01\x00\x03a/b", true, 0x81},
	{"SUBSCRIBE with id 0", "\x82\x09\x00\x00\x00\x00\x03a/b\x00", false, 0x81},
	{"MQTT-3.8.3-4 QoS 3 wanted", "\x82\x09\x00\x01\x00\x00\x03a/b\x03", false, 0x81},
	{"MQTT-3.8.3-4 reserved bits", "\x82\x09\x00\x01\x00\x00\x03a/b\xc0", false, 0x81},
	{"retain handling 3", "\x82\x09\x00\x01\x00\x00\x03a/b\x30", false, 0x81},
	{"subscription id 0", "\x82\x0b\x00\x01\x02\x0b\x00\x00\x03a/b\x00", false, 0x81},
	{"PUBLISH with a subscription id", "\x30\x08\x00\x03a/b\x02\x0b\x01", false, 0x82},
	{"topic alias", "\x30\x09\x00\x03a/b\x03\x23\x00\x01", false, 0x94},
	{"unknown property", "\x30\x08\x00\x03a/b\x02\x7f\x01", false, 0x82},
	{"property of another packet", "\x30\x0b\x00\x03a/b\x05\x11\x00\x00\x00\x01", false, 0x82},
	{"property given twice", "\x30\x0a\x00\x03a/b\x04\x01\x00\x01\x00", false, 0x82},
	{"payload format 2", "\x30\x08\x00\x03a/b\x02\x01\x02", false, 0x82},
	{"properties longer than the packet", "\x30\x07\x00\x03a/b\x7f\x01", false, 0x81},
	{"property longer than the properties", "\x30\x09\x00\x03a/b\x01\x02\x00\x00", false, 0x81},
	{"property length of five bytes", "\x30\x0b\x00\x03a/b\x80\x80\x80\x80\x01\x00", false, 0x81},
}

func TestBrokenPacketsEndTheConnection(t *testing.T) {
	r := start(t, false, broker.Options{})
	for _, c := range broken {
		for _, version := range []byte{4, 5} {
			if version == 4 && !c.v4 {
				continue
			}
			x := r.connected(t, version, "op", tokenOp)
			x.write([]byte(c.packet))
			p, err := x.next()
			switch {
			case version == 4 && err == nil:
				t.Errorf("%s, MQTT 3.1.1: got %s", c.name, packets.PacketNames[p.FixedHeader.Type])
			case version == 5 && err != nil:
				t.Errorf("%s, MQTT 5: %v", c.name, err)
			case version == 5 && (p.FixedHeader.Type != packets.Disconnect || p.ReasonCode != c.code):
				t.Errorf("%s, MQTT 5: got %s %#x, want %#x", c.name, packets.PacketNames[p.FixedHeader.Type], p.ReasonCode, c.code)
			}
			_ = x.c.Close()
		}
	}
}

// What a CONNECT must not be.
func TestBrokenConnects(t *testing.T) {
	r := start(t, false, broker.Options{})
	for name, hello := range map[string]string{
		"MQTT-3.1.0-1 something else first":       "\xc0\x00",
		"MQTT-3.1.2-3 reserved flag":              "\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01x",
		"MQTT-3.1.2-14 will with QoS 3":           "\x10\x13\x00\x04MQTT\x04\x1e\x00\x3c\x00\x01x\x00\x01a\x00\x01b",
		"MQTT-3.1.2-13 will QoS without a will":   "\x10\x0d\x00\x04MQTT\x04\x0a\x00\x3c\x00\x01x",
		"MQTT-3.1.2-15 retain without a will":     "\x10\x0d\x00\x04MQTT\x04\x22\x00\x3c\x00\x01x",
		"MQTT-3.1.2-22 password without a name":   "\x10\x11\x00\x04MQTT\x04\x42\x00\x3c\x00\x01x\x00\x02pw",
		"no client id":                            "\x10\x0a\x00\x04MQTT\x04\x02\x00\x3c",
		"client id that is not UTF-8":             "\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01\xff",
		"user name longer than the packet":        "\x10\x0f\x00\x04MQTT\x04\x82\x00\x3c\x00\x01x\x00\x09",
		"more than is in it":                      "\x10\x0f\x00\x04MQTT\x04\x02\x00\x3c\x00\x01xyz",
		"MQTT 5: authentication method":           "\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x04\x15\x00\x01m\x00\x01x",
		"MQTT 5: receive maximum 0":               "\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x00\x00\x01x",
		"MQTT 5: properties longer than the rest": "\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x7f\x00\x01x",
		"9 KiB": "\x10\x80\x48\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x",
	} {
		x := r.raw(t)
		x.write([]byte(hello))
		for {
			p, err := x.next()
			if err != nil {
				break
			}
			if p.FixedHeader.Type == packets.Connack && p.ReasonCode == 0 {
				t.Errorf("%s: accepted", name)
			}
		}
	}
	if n := r.metrics.Accepted.Load(); n != 0 {
		t.Errorf("%d were accepted", n)
	}
}

func TestTopicsAreBounded(t *testing.T) {
	r := start(t, false, broker.Options{})
	for name, topic := range map[string]string{
		"256 bytes":   "telemetry/pi-1/cmd/" + strings.Repeat("x", 237),
		"16 levels":   "telemetry/pi-1/cmd" + strings.Repeat("/x", 13),
		"257 bytes":   "telemetry/pi-1/cmd/" + strings.Repeat("x", 238),
		"17 levels":   "telemetry/pi-1/cmd" + strings.Repeat("/x", 14),
		"many levels": "telemetry/pi-1/cmd" + strings.Repeat("/", 20_000),
	} {
		good := strings.HasPrefix(name, "256") || strings.HasPrefix(name, "16")
		for _, version := range []byte{4, 5} {
			x := r.connected(t, version, "op", tokenOp)
			want := byte(0x8F)
			if version == 4 {
				want = 0x80
			}
			if good {
				want = 0
			}
			if codes := x.subscribe(0, topic); codes[0] != want {
				t.Errorf("%s, version %d: SUBACK %#x", name, version, codes[0])
			}
			x.send(message(topic, "", 1, 1))
			if good {
				x.expect(packets.Puback)
			} else {
				x.expectEnd(0x90)
			}
			_ = x.c.Close()
		}
	}
	x := r.connected(t, 5, "op", tokenOp)
	for _, filter := range []string{"telemetry/a#", "telemetry/#/a", "telemetry/+a", "telemetry/\uffff", "", "$share", "$share/g", "$share/g/"} {
		if codes := x.subscribe(0, filter); codes[0] != 0x8F {
			t.Errorf("%q: SUBACK %#x", filter, codes[0])
		}
	}
}

// log is written by several goroutines.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestNothingOfWhatClientsSendIsLogged(t *testing.T) {
	const canary = "canary4711"
	var out syncBuffer
	auth := newAuth()
	auth.ids[canary+"-token"] = auth.ids[tokenOp]
	r := start(t, false, broker.Options{
		Auth: auth, Logger: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug - 4})), MaxPendingBytes: 5000,
	})
	hub := r.local(t)
	hub.send(retainedMessage("telemetry/pi-1/"+canary, canary))
	hub.ping()
	for _, version := range []byte{4, 5} {
		secret := func(p *packets.Packet) {
			p.Connect.Username = []byte(canary + "-user")
			withWill("telemetry/pi-1/cmd/"+canary, false)(p)
			p.Connect.WillPayload = []byte(canary)
		}
		x := r.raw(t)
		x.v = version
		x.connect(login("x", canary+"-wrong"), secret)
		x.expectEnd(0)
		x = r.connected(t, version, "op", canary+"-token", secret)
		x.subscribe(1, "telemetry/#", canary+"/#")
		x.expectMessage("telemetry/pi-1/"+canary, canary)
		x.send(message(canary+"/x", canary, 0, 0))
		x.ping()
		second := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: version}
		second.Connect.ProtocolName = []byte("MQTT")
		login("op", canary+"-token")(&second)
		x.write(encode(t, &second))
		x.expectEnd(0x82)
		x = r.connected(t, version, "op", canary+"-token", secret)
		x.send(message(canary+"/x", canary, 1, 5))
		if version == 5 {
			x.expect(packets.Puback)
			x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel, Qos: 1}, PacketID: 9})
			x.expect(packets.Pubcomp)
		} else {
			x.expectEnd(0)
		}
		x = r.connected(t, version, "op", canary+"-token", secret)
		x.subscribe(1, "telemetry/#")
		x.expectMessage("telemetry/pi-1/"+canary, canary)
		for range 50 { // too fast for it
			hub.send(message("telemetry/pi-1/"+canary, strings.Repeat(canary, 400), 0, 0))
		}
		hub.ping()
		_ = x.c.Close()
		eventually(t, "it is gone", func() bool { return r.metrics.Open.Load() == 1 })
	}
	r.stored.failWith(func(context.Context, string) error { return fmt.Errorf("boom") })
	pi := r.connected(t, 4, "pi-1", tokenPi)
	pi.send(message("ingest/pi-1", canary, 1, 1))
	pi.expectEnd(0)
	_ = r.stop()
	log := out.String()
	if !strings.Contains(log, "connection refused") || !strings.Contains(log, "mochi: ") {
		t.Errorf("the log is not what was meant:\n%s", log)
	}
	for _, line := range strings.Split(log, "\n") {
		if strings.Contains(line, canary) || strings.Contains(line, "Y2FuYXJ5NDcxM") { // also in base64
			t.Errorf("logged: %s", line)
		}
		if strings.Contains(line, tokenPi) {
			t.Errorf("logged: %s", line)
		}
	}
}
