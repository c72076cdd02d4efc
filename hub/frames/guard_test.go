package frames

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const (
	opText   = 0x1
	opBinary = 0x2
)

// masked returns a frame as a client sends it.
func masked(b0 byte, payload string) []byte { return maskedHeader(b0, uint64(len(payload)), payload) }

// maskedHeader returns a frame whose header claims n bytes. The masking key is zero.
func maskedHeader(b0 byte, n uint64, payload string) []byte {
	f := []byte{b0, fin | byte(min(n, 126))}
	switch {
	case n > 0xffff:
		f[1]++
		f = binary.BigEndian.AppendUint64(f, n)
	case n > 125:
		f = binary.BigEndian.AppendUint16(f, uint16(n))
	}
	return append(append(f, 0, 0, 0, 0), payload...)
}

func second() time.Duration { return time.Second }

func TestGuardFindsWhatGWSCannotBear(t *testing.T) {
	const frame, message = 1000, 1500
	half := masked(opText, strings.Repeat("x", 700))
	for name, c := range map[string]struct {
		sent [][]byte
		code uint16
	}{
		"the largest frame":          {[][]byte{masked(fin|opText, strings.Repeat("x", frame))}, 0},
		"a larger frame":             {[][]byte{maskedHeader(fin|opText, frame+1, "")}, CloseTooBig},
		"the largest length":         {[][]byte{maskedHeader(fin|opText, 1<<63-1, "")}, CloseTooBig},
		"a negative length":          {[][]byte{maskedHeader(fin|opText, 1<<63, "")}, CloseProtocol},
		"the largest message":        {[][]byte{half, half, masked(fin, strings.Repeat("x", message-1400)), half}, 0},
		"a larger message":           {[][]byte{half, half, maskedHeader(fin, message-1399, "")}, CloseTooBig},
		"a large message, continued": {[][]byte{half, half, maskedHeader(0, message-1399, "")}, CloseTooBig},
		"pings within a message":     {[][]byte{half, masked(fin|opPing, strings.Repeat("x", 125)), half}, 0},
		"a long ping":                {[][]byte{maskedHeader(fin|opPing, 126, "")}, CloseProtocol},
		"many fragments":             {[][]byte{bytes.Repeat(masked(0, ""), maxFragments-1), masked(fin, "x"), half}, 0},
		"too many fragments":         {[][]byte{bytes.Repeat(masked(0, ""), maxFragments)}, ClosePolicy},
		"many control frames":        {[][]byte{bytes.Repeat(masked(fin|opPong, "x"), controlBurst)}, 0},
		"too many control frames":    {[][]byte{bytes.Repeat(masked(fin|opPong, "x"), controlBurst+1)}, CloseTooFast},
	} {
		var g guard
		sent := bytes.Join(c.sent, nil)
		passed, v := g.check(sent, frame, message, second)
		if v.code != c.code || (v.code == 0) != (passed == len(sent)) || (v.code == 0) != (v.reason == "") {
			t.Errorf("%s: passed %d of %d bytes, then %d %q; want %d", name, passed, len(sent), v.code, v.reason, c.code)
		}
	}
}

func TestControlFramesMayComeAgainLater(t *testing.T) {
	var g guard
	now := time.Second
	count := func(want int) {
		t.Helper()
		for n := 0; ; n++ {
			if _, v := g.check(masked(fin|opPing, ""), 1, 1, func() time.Duration { return now }); v.code != 0 {
				if n != want {
					t.Errorf("%d control frames were let pass at %s, want %d", n, now, want)
				}
				g = guard{control: g.control, since: g.since}
				return
			}
		}
	}
	count(controlBurst)
	now += time.Second
	count(controlRate)
	now += time.Hour
	count(controlBurst)
}

func FuzzGuardDoesNotDependOnHowBytesArrive(f *testing.F) {
	for _, frames := range [][][]byte{
		{masked(fin|opText, `{"m":"hello"}`)},
		{masked(opText, "a"), masked(fin|opPing, "p"), masked(fin, "b"), masked(fin|opClose, "\x03\xe8bye")},
		{masked(fin|opBinary, strings.Repeat("x", 200))},
		{maskedHeader(fin|opBinary, 1<<63, "")}, {maskedHeader(opText, 1<<64-1, "xyz")}, {maskedHeader(fin|opText, 1<<20, "")},
		{{0x81, 0x02, 'h', 'i'}}, {{0x89, 0xfe, 0, 200}}, {{0xff, 0xff}}, {masked(fin|opText, "\xff")},
		{bytes.Repeat(masked(0, ""), 20)}, {bytes.Repeat(masked(opText, "many"), 50)}, {masked(fin|opClose, "\x03")},
	} {
		f.Add(bytes.Join(frames, nil), uint16(3))
	}
	f.Fuzz(func(t *testing.T, stream []byte, step uint16) {
		const frame, message = 150, 190
		var whole, parts guard
		passed, v := whole.check(stream, frame, message, second)
		if v.code == 0 && passed != len(stream) {
			t.Fatalf("passed %d of %d bytes and found nothing wrong", passed, len(stream))
		}
		size, got := int(step%50)+1, 0
		for rest := stream; len(rest) > 0; {
			n := min(size, len(rest))
			ok, w := parts.check(rest[:n], frame, message, second)
			got += ok
			if rest = rest[n:]; w.code == 0 {
				continue
			}
			if w != v || got != passed {
				t.Fatalf("in steps of %d: %v after %d bytes; at once: %v after %d bytes", size, w, got, v, passed)
			}
			return
		}
		if v.code != 0 {
			t.Fatalf("at once: %v; in steps of %d: nothing", v, size)
		}
	})
}

func FuzzClip(f *testing.F) {
	f.Add(strings.Repeat("ä", 100))
	f.Add("short")
	f.Add(strings.Repeat("\xff", 200))
	f.Fuzz(func(t *testing.T, s string) {
		got := clip(s)
		if len(got) > 123 || !strings.HasPrefix(s, got) || utf8.ValidString(s) && !utf8.ValidString(got) || len(s) <= 123 && got != s {
			t.Fatalf("%q was cut to %q", s, got)
		}
	})
}
