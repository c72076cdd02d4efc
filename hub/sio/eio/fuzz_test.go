package eio

import (
	"bytes"
	"encoding/base64"
	"testing"
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
