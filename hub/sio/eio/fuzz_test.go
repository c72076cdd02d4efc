package eio

import (
	"bytes"
	"encoding/base64"
	"testing"
	"time"
	"unicode/utf8"
)

func FuzzPayload(f *testing.F) {
	for _, seed := range []string{"4hello", "4test1\x1e4test2", "4hello\x1ebAQIDBA==", "abc", "", "\x1e", "b", "bAQI", "2probe", "4\xff"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		var again []byte
		rest := bytes.Clone(payload)
		for n := 0; ; n++ {
			p, more, err := nextPacket(rest)
			if err != nil {
				return
			}
			if n > 0 {
				again = append(again, separator)
			}
			if p.binary {
				again = base64.StdEncoding.AppendEncode(append(again, binaryMark), p.data)
			} else if again = append(append(again, p.kind), p.data...); !utf8.Valid(p.data) {
				t.Fatalf("%q is no text", p.data)
			}
			if more == nil {
				break
			}
			rest = more
		}
		if bytes.IndexByte(payload, binaryMark) < 0 && !bytes.Equal(again, payload) {
			t.Fatalf("%q was read as %q", payload, again)
		}
	})
}

// The guard must say of any bytes the same however they are cut.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{0x81, 0x82, 1, 2, 3, 4, 'a', 'b', 0x89, 0x80, 0, 0, 0, 0}, uint8(3))
	f.Add([]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1}, uint8(1))
	f.Add(bytes.Repeat([]byte{0x01, 0x80, 0, 0, 0, 0}, 50), uint8(7))
	f.Fuzz(func(t *testing.T, data []byte, cut uint8) {
		const limit = 1000
		now := func() time.Duration { return time.Second }
		var whole, parts guard
		passed, v := whole.check(data, limit, now)
		got := 0
		for got < len(data) {
			n := min(int(cut)+1, len(data)-got)
			ok, w := parts.check(data[got:got+n], limit, now)
			got += ok
			if w.code != 0 {
				if w != v || got != passed {
					t.Fatalf("in parts %d %v, at once %d %v", got, w, passed, v)
				}
				return
			}
		}
		if v.code != 0 {
			t.Fatalf("only at once: %v", v)
		}
	})
}
