package mqtt

import (
	"bufio"
	"bytes"
	"errors"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// FuzzCheckedPacketsAreHarmless feeds bytes to the checker and what it lets through to paho, and looks for what paho's
// goroutines would not survive.
func FuzzCheckedPacketsAreHarmless(f *testing.F) {
	for _, seed := range [][]byte{
		{0x20, 2, 0, 0}, {0x20, 2, 1, 0, 0x40, 2, 0, 1, 0xd0, 0}, {0x20, 2, 0, 0, 0x90, 3, 0, 1, 1}, {0x20, 2, 0, 0, 0x90, 6, 0, 1, 1, 1, 1, 1},
		append([]byte{0x20, 2, 0, 0, 0x32, 14}, "\x00\x08ingest/a\x00\x07{}"...), append([]byte{0x20, 2, 0, 0, 0x30, 0x8c, 0}, "\x00\x08ingest/a{}"...),
		{0x20, 2, 0, 0, 0x30, 0xff, 0xff, 0xff, 0x7f}, {0x20, 2, 0, 0, 0x32, 0xff, 0xff, 0x3f, 0, 1}, []byte("HTTP/1.1 400 Bad Request"),
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, data []byte, publishes bool) {
		c := checker{r: bufio.NewReader(bytes.NewReader(data)), publishes: publishes, tooLarge: func(uint16) {}}
		for n := 0; ; n++ {
			raw, err := c.next()
			if err != nil {
				return
			}
			if len(raw) > maxPacket+5 {
				t.Fatalf("a packet of %d bytes", len(raw))
			}
			rest := bytes.NewReader(raw)
			p, err := packets.ReadPacket(rest)
			if err != nil || rest.Len() != 0 {
				t.Fatalf("%x: paho says %v and leaves %d bytes", raw, err, rest.Len())
			}
			switch p := p.(type) {
			case *packets.ConnackPacket:
				if n != 0 || packets.ConnackReturnCodes[p.ReturnCode] == "" {
					t.Fatalf("packet %d is %v", n, p)
				}
			case *packets.SubackPacket:
				if len(p.ReturnCodes) != 1 {
					t.Fatalf("%d codes for one topic", len(p.ReturnCodes))
				}
			case *packets.PublishPacket:
				if !publishes || p.Qos > 1 || p.TopicName == "" || p.Qos == 1 && p.MessageID == 0 {
					t.Fatalf("got %v", p)
				}
			case *packets.PubackPacket, *packets.PingrespPacket:
			default:
				t.Fatalf("got %v", p)
			}
		}
	})
}

func TestMessageThatIsTooLargeIsPassedOver(t *testing.T) {
	size := maxPacket + 1
	head := []byte{0x32, byte(size)&127 | 128, byte(size>>7)&127 | 128, byte(size >> 14)}
	data := append([]byte{0x20, 2, 0, 0}, head...)
	data = append(data, "\x00\x08ingest/a\x00\x07"...)
	data = append(data, make([]byte, size-12)...)
	data = append(data, 0xd0, 0)
	var passed []uint16
	c := checker{r: bufio.NewReader(bytes.NewReader(data)), publishes: true, tooLarge: func(id uint16) { passed = append(passed, id) }}
	for _, want := range []byte{0x20, 0xd0} {
		p, err := c.next()
		if err != nil || p[0] != want {
			t.Fatalf("got %x, %v, want a packet that begins with %x", p, err, want)
		}
	}
	if len(passed) != 1 || passed[0] != 7 {
		t.Errorf("passed over %v, want message 7", passed)
	}
	c.r.Reset(bytes.NewReader([]byte{0x62, 2, 0, 1}))
	if _, err := c.next(); !errors.Is(err, errBroker) {
		t.Errorf("got %v, want errBroker", err)
	}
}
