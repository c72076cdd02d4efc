package ws_test

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"telemetryhub/hub/ws"
)

// seeds are frames of all kinds, and parts of them.
func seeds(f *testing.F) {
	for _, frames := range [][][]byte{
		{masked(fin|opText, `{"m":"hello"}`)},
		{masked(opText, "a"), masked(fin|opPing, "p"), masked(fin|opContinuation, "b"), closeFrame(1000, "bye")},
		{masked(fin|opBinary, strings.Repeat("x", 200))},
		{maskedHeader(fin|opBinary, 1<<63, "")}, {maskedHeader(opText, 1<<64-1, "xyz")}, {maskedHeader(fin|opText, 1<<20, "")},
		{{0x81, 0x02, 'h', 'i'}}, {{0x89, 0xfe, 0, 200}}, {{0xff, 0xff}}, {masked(fin|opText, "\xff")},
		{bytes.Repeat(masked(opContinuation, ""), 20)}, {masked(fin|opClose, "\x03")},
	} {
		f.Add(bytes.Join(frames, nil), uint16(3))
	}
}

func FuzzNoStreamOfBytesPanics(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, stream []byte, _ uint16) {
		h := newFakeHub()
		p := plugDevice(t, h, ws.Options{})
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(io.Discard, p.r) }() // until either side hangs up
		p.put(stream)
		p.unplug()
		<-done
		if n := p.metrics.Panics.Load(); n != 0 {
			t.Fatalf("%d panics", n)
		}
		for _, got := range (<-h.connected).got() {
			if got.format == 1 && !utf8.ValidString(got.body) {
				t.Fatalf("the hub got text that is not UTF-8: %q", got.body)
			}
		}
	})
}

func FuzzReadSubscription(f *testing.F) {
	for _, s := range []string{
		`{"subscribe":{}}`, `{"subscribe":{"devices":["a","b*"],"metrics":["*"],"mode":"all","after":"x","tick":250}}`,
		`{"subscribe":{"tick":1e999}}`, `{"subscribe":{"tick":-1e308}}`, `{"subscribe":null}`, `[]`, `{"subscribe":{"mode":7}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		s, err := ws.ReadSubscription(message)
		if err != nil {
			return
		}
		if s.Tick > 1<<50 || s.Mode > 1 {
			t.Fatalf("%s became %+v", message, s)
		}
	})
}
