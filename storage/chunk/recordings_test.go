package chunk_test

import (
	"bufio"
	"compress/gzip"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"telemetryhub/storage/chunk"
)

// recording returns the rows of each device of a recording of real sensors, by time. It skips the test if the data is
// not there.
func recording(t testing.TB, name string) []*chunk.Rows {
	t.Helper()
	dir := os.Getenv("TELEMETRYHUB_DATA")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "shared", "data")
	}
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		t.Skipf("the recordings are not there (set TELEMETRYHUB_DATA to their folder): %v", err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	lines.Scan()
	columns := len(strings.Split(lines.Text(), ",")) - 2
	type line struct {
		time   int64
		values []uint64
	}
	byDevice := map[string][]line{}
	for lines.Scan() {
		f := strings.Split(lines.Text(), ",")
		var l line
		if l.time, err = strconv.ParseInt(f[0], 10, 64); err != nil {
			t.Fatal(err)
		}
		for _, s := range f[2:] {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil {
				t.Fatal(err)
			}
			l.values = append(l.values, math.Float64bits(v))
		}
		byDevice[f[1]] = append(byDevice[f[1]], l)
	}
	var list []*chunk.Rows
	for _, ls := range byDevice {
		slices.SortStableFunc(ls, func(a, b line) int { return int(a.time - b.time) })
		r := &chunk.Rows{Columns: make([]chunk.Column, columns)}
		for _, l := range ls {
			r.Times = append(r.Times, l.time)
			for c, b := range l.values {
				r.Columns[c].Metric = uint32(c + 1)
				r.Columns[c].Bits = append(r.Columns[c].Bits, b)
			}
		}
		list = append(list, r)
	}
	return list
}

// cut divides rows into chunks of at most n rows of one slice.
func cut(list []*chunk.Rows, n int) []*chunk.Rows {
	var out []*chunk.Rows
	for _, r := range list {
		for from := 0; from < len(r.Times); {
			slice, _ := chunk.SliceOf(r.Times[from])
			to := from
			for to < min(from+n, len(r.Times)) && r.Times[to] < chunk.StartMS(slice+1) {
				to++
			}
			part := &chunk.Rows{Times: r.Times[from:to]}
			for _, c := range r.Columns {
				part.Columns = append(part.Columns, chunk.Column{Metric: c.Metric, Bits: c.Bits[from:to]})
			}
			out = append(out, part)
			from = to
		}
	}
	return out
}

func keyOf(r *chunk.Rows) chunk.Key {
	slice, _ := chunk.SliceOf(r.Times[0])
	return chunk.Key{Slice: slice, Device: 1, Series: chunk.SetSeries(1)}
}

func TestRecordingsComeBackExactlyInAboutHalfAByteAReading(t *testing.T) {
	enc, dec := newCodec(t)
	for name, limit := range map[string]float64{"room-climate-A.csv.gz": 0.5, "room-climate-B.csv.gz": 0.5} {
		bytes, readings := 0, 0
		for _, want := range cut(recording(t, name), chunk.MaxRows) {
			p, err := enc.Append(nil, keyOf(want), want, chunk.Origin{})
			if err != nil {
				t.Fatal(err)
			}
			bytes, readings = bytes+len(p), readings+len(want.Times)*len(want.Columns)
			c, err := chunk.Read(p, keyOf(want).Slice)
			if err != nil {
				t.Fatal(err)
			}
			got, err := dec.Rows(c, nil)
			if err != nil || !slices.Equal(got.Times, want.Times) {
				t.Fatalf("times differ (%v)", err)
			}
			for i := range want.Columns {
				if !slices.Equal(got.Columns[i].Bits, want.Columns[i].Bits) {
					t.Fatalf("column %d differs", i)
				}
			}
		}
		if perReading := float64(bytes) / float64(readings); perReading > limit {
			t.Errorf("%s takes %.3f bytes a reading, want at most %.2f", name, perReading, limit)
		}
	}
}

// BenchmarkRecording encodes and decodes a recording in chunks as large as they may be, as a flush every five minutes
// makes them of a reading a second, and as it makes them of one every ten seconds. Floor: 8 bytes a reading
// uncompressed, without times.
func BenchmarkRecording(b *testing.B) {
	enc, dec := newCodec(b)
	for _, c := range []struct {
		name string
		rows int
	}{{"large", chunk.MaxRows}, {"flush", 300}, {"small", 30}} {
		parts := cut(recording(b, "room-climate-A.csv.gz"), c.rows)
		readings, bytes := 0, 0
		var encoded [][]byte
		for _, r := range parts {
			p, err := enc.Append(nil, keyOf(r), r, chunk.Origin{})
			if err != nil {
				b.Fatal(err)
			}
			encoded = append(encoded, p)
			readings, bytes = readings+len(r.Times)*len(r.Columns), bytes+len(p)
		}
		report := func(b *testing.B) {
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(readings), "ns/reading")
			b.ReportMetric(float64(bytes)/float64(readings), "bytes/reading")
		}
		b.Run("encode/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			var p []byte
			for b.Loop() {
				for _, r := range parts {
					p, _ = enc.Append(p[:0], keyOf(r), r, chunk.Origin{})
				}
			}
			report(b)
		})
		b.Run("decode/"+c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for i, p := range encoded {
					c, err := chunk.Read(p, keyOf(parts[i]).Slice)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := dec.Rows(c, nil); err != nil {
						b.Fatal(err)
					}
				}
			}
			report(b)
		})
	}
}
