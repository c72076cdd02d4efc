package ws_test

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/ws"
	"telemetryhub/storage/mem"
)

const (
	rsv1      = 0x40
	extension = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits" // as browsers offer it
)

// compressed is what the standard library makes of a text.
func compressed(text string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression) // the level is valid
	_, _ = w.Write([]byte(text))                       // to memory
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

func inflated(t testing.TB, payload string) string {
	t.Helper()
	text, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// message reads the next frame that is no ping, and reports whether it was compressed.
func (c *client) message() (text string, packed bool) {
	c.t.Helper()
	for {
		b0, payload, err := c.read()
		switch {
		case err != nil:
			c.t.Fatal(err)
		case b0&0x0f == opClose:
			c.t.Fatalf("closed: %q", payload)
		case b0&0x0f == opPing:
		case b0&rsv1 != 0:
			return inflated(c.t, payload), true
		default:
			return payload, false
		}
	}
}

func TestViewersMayHaveFramesCompressed(t *testing.T) {
	s, _ := viewers(t, newFakeFeed(), ws.Options{})
	long := strings.Repeat("greenhouse-", 5)
	want := `[` + long + ` ` + long + `2] [] 0 "" 0s`
	sub := `{"subscribe":{"devices":["` + long + `","` + long + `2"]}}`
	for _, c := range []struct {
		offer, answer string
		sent          []byte
		packed        bool
	}{
		{"", "", masked(fin|opText, sub), false},
		{"permessage-deflate; server_max_window_bits=9", "", masked(fin|opText, sub), false},
		{"permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover", masked(fin|opText, sub), true},
		{"permessage-deflate", "permessage-deflate; server_no_context_takeover; client_no_context_takeover", masked(fin|opText|rsv1, compressed(sub)), true},
	} {
		for _, protocol := range []string{"", wire.SubprotocolJSON, wire.SubprotocolCBOR} {
			v, resp := open(t, s.addr, request("viewer", "Sec-WebSocket-Extensions: "+c.offer, "Sec-WebSocket-Protocol: "+protocol))
			if protocol == "" {
				v, resp = open(t, s.addr, request("viewer", "Sec-WebSocket-Extensions: "+c.offer))
			}
			if got := resp.Header.Get("Sec-WebSocket-Extensions"); resp.StatusCode != 101 || got != c.answer || resp.Header.Get("Sec-WebSocket-Protocol") != protocol {
				t.Errorf("%q with %q is answered %v", c.offer, protocol, resp.Header)
				continue
			}
			before := s.metrics.FramesDeflated.Load()
			v.put(c.sent)
			got, packed := v.message()
			if got != want || packed != c.packed || s.metrics.FramesDeflated.Load()-before != map[bool]uint64{true: 1}[c.packed] {
				t.Errorf("%q with %q: got %q, compressed %t, want %q, %t", c.offer, protocol, got, packed, want, c.packed)
			}
			v.put(masked(fin|opText, `{"subscribe":{}}`))
			if got, packed := v.message(); got != `[] [] 0 "" 0s` || packed {
				t.Errorf("%q: a short frame is %q, compressed %t", c.offer, got, packed)
			}
		}
	}
}

func TestHostileCompressionClosesOnlyItself(t *testing.T) {
	s, _ := viewers(t, newFakeFeed(), ws.Options{})
	good := dial(t, s.addr, "viewer", extension)
	bomb := compressed(strings.Repeat("\x00", 4_000_000))
	for name, c := range map[string]struct {
		sent []byte
		code uint16
	}{
		"a bomb":          {masked(fin|opText|rsv1, bomb), 4513},
		"a bomb in parts": {append(masked(opBinary|rsv1, bomb[:100]), masked(fin|opContinuation, bomb[100:])...), 4513},
		"one byte more":   {masked(fin|opText|rsv1, compressed(strings.Repeat("x", 4097))), 4513},
		"broken":          {masked(fin|opText|rsv1, "\x07\xff\xff"), 1007},
		"a mark too many": {masked(fin|opPing|rsv1, "x"), 1002},
	} {
		for range 10 {
			v := dial(t, s.addr, "viewer", extension)
			v.put(c.sent)
			if reason := v.wantClose(c.code); reason == "" {
				t.Errorf("%s: closed without a reason", name)
			}
		}
		good.put(masked(fin|opText|rsv1, compressed(`{"subscribe":{"after":"`+name+`"}}`)))
		if got, _ := good.message(); got != fmt.Sprintf("[] [] 0 %q 0s", name) {
			t.Fatalf("after %s another viewer gets %q", name, got)
		}
	}
	if n := s.metrics.Panics.Load(); n != 0 {
		t.Errorf("%d panics", n)
	}
}

// TestIdleViewerWithCompressionCostsNoMore compares what viewers take that have sent one message and got one.
func TestIdleViewerWithCompressionCostsNoMore(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const conns = 1000
	cost := func(b0 byte, message string, headers ...string) int64 {
		s, _ := viewers(t, newFakeFeed(), ws.Options{Connects: ws.Rate{PerSecond: -1}})
		var list []*client
		before := memory()
		for range conns {
			c := dial(t, s.addr, "viewer", headers...)
			c.put(masked(b0, message))
			if got, _ := c.message(); got != `[] [] 0 "" 0s` {
				t.Fatal(got)
			}
			list = append(list, c)
		}
		after := memory()
		for _, c := range list {
			_ = c.Close() // it has what it wanted
		}
		return (after - before) / conns
	}
	cost(fin|opText, `{"subscribe":{}}`) // what stays in pools
	plain, packed := cost(fin|opText, `{"subscribe":{}}`), cost(fin|opText|rsv1, compressed(`{"subscribe":{}}`), extension)
	t.Logf("%d bytes without, %d with", plain, packed)
	if packed > plain+300 {
		t.Errorf("an idle viewer takes %d bytes with compression, %d without", packed, plain)
	}
}

// memory returns the bytes of the heap and of stacks.
func memory() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what was in pools
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// realHub is a hub over stores in memory.
func realHub(t *testing.T) *hub.Hub {
	t.Helper()
	core, err := hub.Open(context.Background(), hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}, hub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- core.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return core
}

// TestViewersWithAndWithoutCompressionSeeTheSame has them follow the same devices, with a snapshot of many.
func TestViewersWithAndWithoutCompressionSeeTheSame(t *testing.T) {
	core := realHub(t)
	const devices, rounds = 300, 40
	for i := range devices {
		id := device.ID(fmt.Sprint("room-", i))
		if _, err := core.AddDevice(t.Context(), id, hub.DeviceAttrs{}); err != nil {
			t.Fatal(err)
		}
		if _, err := core.Ingest(t.Context(), id, wire.JSON, []byte(`{"n":-1,"temperature":21.37,"humidity":40}`)); err != nil {
			t.Fatal(err)
		}
	}
	m := new(ws.Metrics)
	handler, err := ws.NewViewers(core.Subscribe, newFakeAuth(), ws.Options{Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, handler, m)
	type follower struct {
		*client
		cbor bool
		seen map[string]float64
		list []float64 // mode all
	}
	var all []*follower
	for _, mode := range []string{"all", "latest"} {
		for _, protocol := range []string{wire.SubprotocolJSON, wire.SubprotocolCBOR} {
			for _, offer := range []string{"Sec-WebSocket-Extensions: x", extension} {
				f := &follower{dial(t, s.addr, "viewer", "Sec-WebSocket-Protocol: "+protocol, offer), protocol == wire.SubprotocolCBOR, map[string]float64{}, nil}
				f.put(masked(fin|opText, `{"subscribe":{"mode":"`+mode+`","tick":-1}}`))
				all = append(all, f)
			}
		}
	}
	read := func(f *follower) (more bool) {
		t.Helper()
		text, _ := f.message()
		var frame struct {
			Type     string
			More     bool
			Readings [][]any
			Devices  []struct {
				ID      string
				Metrics map[string]struct{ V float64 }
			}
		}
		decode := json.Unmarshal
		if f.cbor {
			decode = cbor.Unmarshal
		}
		if err := decode([]byte(text), &frame); err != nil {
			t.Fatalf("%v: %q", err, text)
		}
		for _, d := range frame.Devices {
			f.seen[d.ID] = d.Metrics["n"].V
		}
		for _, r := range frame.Readings {
			var n float64
			switch v := r[3].(type) {
			case float64:
				n = v
			case uint64:
				n = float64(v)
			}
			f.seen[r[0].(string)] = n
			f.list = append(f.list, n)
		}
		return frame.Type == "welcome" || frame.More
	}
	for _, f := range all {
		for read(f) {
		}
		if len(f.seen) != devices {
			t.Fatalf("a snapshot of %d devices, want %d", len(f.seen), devices)
		}
	}
	want := map[string]float64{}
	for i := range devices {
		want[fmt.Sprint("room-", i)] = -1
	}
	for n := range rounds {
		id := fmt.Sprint("room-", n%7)
		want[id] = float64(n)
		if _, err := core.Ingest(t.Context(), device.ID(id), wire.JSON, fmt.Appendf(nil, `{"n":%d}`, n)); err != nil {
			t.Fatal(err)
		}
	}
	for i, f := range all {
		for f.seen[fmt.Sprint("room-", (rounds-1)%7)] != rounds-1 {
			read(f)
		}
		if !maps.Equal(f.seen, want) {
			t.Errorf("viewer %d sees %v", i, f.seen)
		}
		if all := f.list; all != nil && (len(all) != rounds || !slices.IsSorted(all)) {
			t.Errorf("viewer %d was told %v", i, all)
		}
	}
	if m.FramesDeflated.Load() < 4 {
		t.Errorf("%d frames were compressed", m.FramesDeflated.Load())
	}
}
