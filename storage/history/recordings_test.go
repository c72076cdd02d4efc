package history_test

import (
	"bufio"
	"compress/gzip"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/history"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/record"
)

type recorded struct {
	time   int64
	device uint32
	values []float64
}

// recording returns the rows of a recording of real sensors in the order in which they were logged. It skips the test if
// the data is not there.
func recording(t *testing.T, name string) []recorded {
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
	devices := map[string]uint32{}
	var rows []recorded
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		f := strings.Split(lines.Text(), ",")
		if f[0] == "time_ms" {
			continue
		}
		if devices[f[1]] == 0 {
			devices[f[1]] = uint32(len(devices) + 1)
		}
		r := recorded{device: devices[f[1]]}
		if r.time, err = strconv.ParseInt(f[0], 10, 64); err != nil {
			t.Fatal(err)
		}
		for _, s := range f[2:] {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil {
				t.Fatal(err)
			}
			r.values = append(r.values, v)
		}
		rows = append(rows, r)
	}
	return rows
}

// TestRecordingComesBackExactly sends a recording whose 11 repeated times must give the later row through heads and
// chunks, with restarts without a flush in between.
func TestRecordingComesBackExactly(t *testing.T) {
	rows := recording(t, "room-climate-B.csv.gz")
	schema := &device.Schema{Num: 1, Sets: []device.Set{{Num: 1}}}
	for i := range rows[0].values {
		m := device.NewMetric("m" + strconv.Itoa(i))
		m.Num, m.Exp = uint32(i+1), -2
		schema.Metrics = append(schema.Metrics, m)
		schema.Sets[0].Metrics = append(schema.Sets[0].Metrics, i)
	}
	log, chunks, catalog := mem.NewLog(), mem.NewChunks(), mem.NewCatalog()
	open := func() *history.Store {
		s, err := history.Open(t.Context(), chunks, catalog, schemas{1: schema}, history.Options{})
		if err != nil {
			t.Fatal(err)
		}
		err = log.Read(t.Context(), s.Checkpoint(), func(e storage.Entry) bool {
			if err := s.ApplyEntry(t.Context(), e); err != nil {
				t.Fatal(err)
			}
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	type key struct {
		device, metric uint32
		time           int64
	}
	want, ties := map[key]float64{}, 0
	s := open()
	var g record.Group
	for i := 0; i < len(rows); i += 10 {
		g.Reset(rows[i].time)
		for _, r := range rows[i:min(i+10, len(rows))] {
			row := device.Row{Ref: device.SetRef(0), TimeMS: r.time}
			for m, v := range r.values {
				row.Values = append(row.Values, device.NumberValue(v))
				k := key{r.device, uint32(m + 1), r.time}
				if _, ok := want[k]; ok && m == 0 {
					ties++
				}
				want[k] = v
			}
			h := record.Header{Kind: record.Data, Device: r.device, ArrivalMS: r.time + 5}
			g.Append(&h, record.AppendRows(nil, schema, h.ArrivalMS, r.time, []device.Row{row}))
		}
		pos, err := log.Append(t.Context(), g.Bytes(), log.Last())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(t.Context(), pos, g.Bytes()); err != nil {
			t.Fatal(err)
		}
		switch {
		case i%40_000 == 39_990:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open()
		case i%7_000 == 6_990:
			if err := s.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if ties != 11 {
		t.Errorf("the recording has %d repeated times, want 11", ties)
	}
	got := 0
	for dev := uint32(1); dev <= 3; dev++ {
		last := int64(math.MinInt64)
		err := s.Points(t.Context(), history.Query{Device: dev, FromMS: 0, ToMS: math.MaxInt64}, func(p history.Point) bool {
			v, ok := want[key{dev, p.Metric, p.TimeMS}]
			if !ok || math.Float64bits(v) != math.Float64bits(p.Value.Float()) || p.TimeMS < last || p.Quality != 0 || p.Replaced {
				t.Fatalf("device %d: got %+v after %d, want %v (%v)", dev, p, last, v, ok)
			}
			last = p.TimeMS
			got++
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got != len(want) || got != (len(rows)-11)*8 {
		t.Errorf("got %d readings back, want %d", got, len(want))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
