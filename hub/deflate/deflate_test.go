package deflate_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"telemetryhub/hub/deflate"
)

// readings returns a frame with so many readings.
func readings(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	text := []byte(`{"type":"readings","readings":[`)
	for i := range n {
		text = fmt.Appendf(text, `["room-%d","temperature",%d,%.2f],`, i%500, 1766000000123+r.Int64N(1000), 20+r.Float64()*10)
	}
	return append(text[:len(text)-1], `],"token":"k3jd9a0x-1x2y"}`...)
}

// noise returns bytes that do not get smaller.
func noise(n int) []byte {
	text := make([]byte, n)
	for i := range text {
		text[i] = byte(rand.Uint32())
	}
	return text
}

// inflated reads what the standard library makes of blocks that lack their Tail.
func inflated(t testing.TB, blocks []byte) string {
	t.Helper()
	text, err := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(blocks), strings.NewReader(deflate.Tail+"\x01\x00\x00\xff\xff"))))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestOthersInflateWhatIsDeflated(t *testing.T) {
	for _, n := range []int{1, 2, 4, 20, 1000, 5000} {
		text := readings(n)
		blocks, ok := deflate.Append([]byte("before"), text)
		blocks, ends := bytes.CutSuffix(blocks, []byte(deflate.Tail))
		if got := inflated(t, blocks[len("before"):]); !ok || !ends || got != string(text) || string(blocks[:6]) != "before" {
			t.Errorf("%d readings, %d bytes in %d (%t, %t), became %.100q", n, len(text), len(blocks), ok, ends, got)
		}
		t.Logf("%d readings: %d bytes became %d", n, len(text), len(blocks)-len("before"))
		if n >= 4 && len(blocks) > len(text)*2/3 || n >= 1000 && len(blocks) > len(text)/4 {
			t.Errorf("%d readings: %d bytes became %d", n, len(text), len(blocks))
		}
	}
}

func TestWhatDoesNotGetSmallerIsLeft(t *testing.T) {
	for name, text := range map[string][]byte{
		"a short text": []byte(strings.Repeat("x", 63)), "noise": noise(10_000), "a little noise": noise(100),
		"a text of more than 1 MiB": bytes.Repeat([]byte("x"), 1<<20+1),
	} {
		if got, ok := deflate.Append([]byte("before"), text); ok || string(got) != "before" {
			t.Errorf("%s: %.20q, %t", name, got, ok)
		}
		for _, c := range []deflate.Coding{deflate.Identity, deflate.Zlib, deflate.Gzip} {
			if got, ok := c.AppendWhole([]byte("before"), text, 0); ok || string(got) != "before" {
				t.Errorf("%s, %s: %.20q, %t", name, c, got, ok)
			}
		}
	}
}

func TestEndsFitBehindWhatIsDeflated(t *testing.T) {
	for _, n := range []int{1, 20, 1000} {
		for _, end := range []string{"", "]", `0"]`, `kx3~","z"]`} {
			text := readings(n)
			begin, ok := deflate.Append(nil, text)
			got := inflated(t, deflate.AppendEnd(begin, []byte(end)))
			if want := string(text) + end; !ok || got != want {
				t.Errorf("%d readings and %q end in %q", n, end, got[max(0, len(got)-40):])
			}
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 4, 20, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			text, dst := readings(n), []byte(nil)
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				dst, _ = deflate.Append(dst[:0], text)
			}
			b.ReportMetric(float64(len(dst))/float64(len(text)), "ratio")
		})
	}
}
