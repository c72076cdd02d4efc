package frames

import (
	"bytes"
	"compress/flate"
	"runtime"
	"strings"
	"testing"

	"telemetryhub/hub/deflate"
)

// compressed is what the standard library makes of a text, without the tail.
func compressed(text []byte) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression) // the level is valid
	_, _ = w.Write(text)                               // to memory
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte(deflate.Tail))
}

func TestWhatIsOverTheLimitIsNotKept(t *testing.T) {
	const limit = 64 << 10
	bomb := compressed(make([]byte, 8<<20))
	for name, c := range map[string]struct {
		data []byte
		code uint16
		most uint64
	}{
		"at the limit":   {compressed(make([]byte, limit)), 0, limit + 16<<10},
		"over the limit": {compressed(make([]byte, limit+1)), CloseTooBig, 16 << 10},
		"a bomb":         {bomb, CloseTooBig, 16 << 10},
		"broken":         {append(bytes.Clone(bomb[:1000]), 0xff, 0xff, 0xff), CloseTooBig, 16 << 10},
	} {
		f := inflaters.New().(*inflater)
		for range 3 { // after any failure it is as good as before
			data := bytes.NewBuffer(append(make([]byte, 0, len(c.data)+100), c.data...))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, v := f.inflate(data, limit)
			runtime.ReadMemStats(&after)
			if v.code != c.code || v.code == 0 && len(got) != limit {
				t.Errorf("%s: %d bytes, %d %s, want %d", name, len(got), v.code, v.reason, c.code)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > c.most {
				t.Errorf("%s: took %d bytes, want at most %d", name, n, c.most)
			}
			if got, v := f.inflate(bytes.NewBuffer(compressed([]byte("good"))), limit); v.code != 0 || string(got) != "good" {
				t.Errorf("%s: after it comes %q, %d", name, got, v.code)
			}
		}
	}
}

func FuzzInflate(f *testing.F) {
	f.Add(compressed([]byte(strings.Repeat("a text ", 20))))
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00\x00"))
	f.Add([]byte("\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		one := inflaters.Get().(*inflater)
		defer inflaters.Put(one)
		got, v := one.inflate(bytes.NewBuffer(bytes.Clone(data)), 1000)
		if len(got) > 1000 || v.code != 0 && got != nil {
			t.Fatalf("%d bytes, %d %s", len(got), v.code, v.reason)
		}
	})
}
