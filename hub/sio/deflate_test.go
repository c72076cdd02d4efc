package sio_test

import (
	"compress/flate"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/siotest"
)

const (
	rsv1      = 0x40
	extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits" // as clients offer it
)

// packet reads the next text that is no ping, and reports whether it was compressed.
func packet(t *testing.T, c *siotest.Socket) (text string, packed bool) {
	t.Helper()
	for {
		b0, got, err := c.Read()
		if err != nil {
			t.Fatal(err)
		}
		if b0 == siotest.Fin|siotest.OpText|rsv1 {
			whole, err := io.ReadAll(flate.NewReader(strings.NewReader(got + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
			if err != nil {
				t.Fatalf("%v after %.100q", err, whole)
			}
			return string(whole), true
		}
		if b0 != siotest.Fin|siotest.OpText {
			t.Fatalf("got frame %#x %.80q, want a text", b0, got)
		}
		if got != "2" {
			return got, false
		}
	}
}

// event reads until an event of that name comes.
func event(t *testing.T, c *siotest.Socket, name string) (text string, packed bool) {
	t.Helper()
	for !strings.HasPrefix(text, `42["`+name+`"`) {
		text, packed = packet(t, c)
	}
	return text, packed
}

var nowMS = regexp.MustCompile(`"now":\d+`)

// TestCompressedPacketsAreThoseOfOthers has clients with and without compression, from the start and after an upgrade, follow the
// same devices.
func TestCompressedPacketsAreThoseOfOthers(t *testing.T) {
	core := realHub(t)
	const devices = 200
	for i := range devices {
		id := device.ID(fmt.Sprint("room-", i))
		if _, err := core.AddDevice(t.Context(), id, hub.DeviceAttrs{}); err != nil {
			t.Fatal(err)
		}
		if _, err := core.Ingest(t.Context(), id, wire.JSON, []byte(`{"n":-1,"temperature":21.37,"humidity":40}`)); err != nil {
			t.Fatal(err)
		}
	}
	m := new(sio.Metrics)
	s, err := sio.New(core.Subscribe, newFakeAuth(), sio.Options{Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	site := siotest.Serve(t, s)
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	for _, mode := range []string{"all", "latest"} {
		hello := `40{"token":"viewer","subscribe":{"mode":"` + mode + `","tick":-1}}`
		plain, _ := site.Open()
		packs, _ := site.Open(extension)
		for _, c := range []*siotest.Socket{plain, packs} {
			c.Say(hello)
		}
		p := site.Poll()
		p.Send(hello)
		siotest.Until(t, "a snapshot over polling", func() bool { _, got := p.Get(); return strings.Contains(got, `42["snapshot"`) })
		upgraded := site.Dial("&sid="+p.SID, extension)
		upgraded.Say("2probe")
		upgraded.Want("3probe")
		upgraded.Say("5")

		whole, packed := event(t, plain, "snapshot")
		if got, squeezed := event(t, packs, "snapshot"); packed || !squeezed || nowMS.ReplaceAllString(got, "") != nowMS.ReplaceAllString(whole, "") || strings.Count(got, `"id":`) != devices {
			t.Errorf("mode %s: compressed %t, a snapshot of %.200q, want %.200q", mode, squeezed, got, whole)
		}
		for n := range 5 {
			if _, err := core.Ingest(t.Context(), "room-7", wire.JSON, fmt.Appendf(nil, `{"n":%d,"temperature":2%d.5,"humidity":4%d}`, n, n, n)); err != nil {
				t.Fatal(err)
			}
			want, packed := event(t, plain, "reading")
			if packed {
				t.Errorf("mode %s: %q came compressed to who has not agreed", mode, want)
			}
			for name, c := range map[string]*siotest.Socket{"agreed": packs, "upgraded": upgraded} {
				if got, packed := event(t, c, "reading"); got != want || !packed {
					t.Errorf("mode %s, %s: compressed %t, got %q, want %q", mode, name, packed, got, want)
				}
			}
		}
		// What others emit counts in the offset.
		for _, c := range []*siotest.Socket{plain, packs} {
			c.Say(`42["join","lobby"]`)
			event(t, c, "people")
		}
		packs.Say(`42["message","hi"]`)
		event(t, plain, "message")
		if _, err := core.Ingest(t.Context(), "room-7", wire.JSON, []byte(`{"n":77,"temperature":20,"humidity":50}`)); err != nil {
			t.Fatal(err)
		}
		if got, packed := event(t, plain, "reading"); packed || !strings.Contains(got, `~1"]`) {
			t.Errorf("mode %s: after an emit: %q", mode, got)
		}
		packs.Say(`42["subscribe",{"mode":"` + mode + `","devices":["room-7"],"tick":-1}]`)
		if got, packed := event(t, packs, "snapshot"); !packed || strings.Count(got, `"id":`) != 1 {
			t.Errorf("mode %s: after a change, compressed %t: %q", mode, packed, got)
		}
	}
	if m.Engine.MessagesDeflated.Load() < 20 {
		t.Errorf("%d messages were compressed", m.Engine.MessagesDeflated.Load())
	}
}

func TestOtherClientsReadOnInSpiteOfHostileCompression(t *testing.T) {
	s, err := sio.New(newFakeFeed().Subscribe, newFakeAuth(), sio.Options{})
	if err != nil {
		t.Fatal(err)
	}
	site := siotest.Serve(t, s)
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	var b strings.Builder
	w, _ := flate.NewWriter(&b, flate.BestCompression) // the level is valid
	_, _ = w.Write(make([]byte, 64<<10))               // to memory
	_ = w.Flush()
	for sent, code := range map[string]uint16{b.String(): 1009, "\x07\xff\xff": 1007} {
		c, _ := site.Open(extension)
		c.Put(siotest.Frame(siotest.Fin|siotest.OpText|rsv1, sent)) // of a stranger, who may send 16 KiB
		c.WantClose(code)
	}
	c, _ := site.Open(extension)
	c.Say(`40{"token":"viewer"}`)
	if text, _ := packet(t, c); !strings.HasPrefix(text, `40{"sid"`) {
		t.Errorf("another client gets %q", text)
	}
}
