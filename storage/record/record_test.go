package record_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

func schema() *device.Schema {
	s := &device.Schema{Num: 7}
	for i, exp := range []int8{-2, -1, 0, 3, -15} {
		m := device.NewMetric(fmt.Sprintf("m%d", i))
		m.Exp = exp
		s.Metrics = append(s.Metrics, m)
	}
	s.Sets = []device.Set{{Metrics: []int{0, 1, 2}}, {Metrics: []int{3, 4}}}
	return s
}

func drawValue(t *rapid.T) device.Value {
	switch rapid.IntRange(0, 5).Draw(t, "type") {
	case 0:
		return device.Value{}
	case 1:
		return device.BoolValue(rapid.Bool().Draw(t, "bool"))
	case 2:
		return device.TextValue(rapid.String().Draw(t, "text"))
	case 3:
		return device.NumberValue(rapid.Float64().Draw(t, "float"))
	default:
		f, _ := device.Unscale(rapid.Int64Range(-1e9, 1e9).Draw(t, "int"), -2)
		return device.NumberValue(f)
	}
}

func drawRows(t *rapid.T, s *device.Schema, base int64) []device.Row {
	refs := []device.Ref{device.SetRef(0), device.SetRef(1), device.SingleRef(0), device.SingleRef(4)}
	rows := make([]device.Row, rapid.IntRange(0, 20).Draw(t, "rows"))
	for i := range rows {
		ref := rapid.SampledFrom(refs).Draw(t, "ref")
		rows[i] = device.Row{
			Ref:     ref,
			TimeMS:  base + rapid.Int64Range(-1e6, 1e6).Draw(t, "dt"),
			Quality: device.Quality(rapid.Byte().Draw(t, "quality")),
		}
		for range s.Width(ref) {
			rows[i].Values = append(rows[i].Values, drawValue(t))
		}
	}
	return rows
}

func sameRow(a, b *device.Row) bool {
	return a.Ref == b.Ref && a.TimeMS == b.TimeMS && a.Quality == b.Quality && slices.EqualFunc(a.Values, b.Values, device.Value.Equal)
}

func TestRecordsComeBackExactly(t *testing.T) {
	s := schema()
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.Int64Range(0, 1<<45).Draw(t, "group base")
		var g record.Group
		g.Reset(base)
		var heads []record.Header
		var rows [][]device.Row
		for range rapid.IntRange(0, 5).Draw(t, "records") {
			h := record.Header{
				Kind:         record.Data,
				TimeQuality:  device.TimeQuality(rapid.IntRange(0, 2).Draw(t, "tq")),
				TimeReplaced: rapid.Bool().Draw(t, "replaced"),
				Device:       rapid.Uint32().Draw(t, "device"),
				Stream:       rapid.Uint32().Draw(t, "stream"),
				Seq:          rapid.Uint64().Draw(t, "seq"),
				ArrivalMS:    base + rapid.Int64Range(-1000, 1000).Draw(t, "arrival"),
			}
			batch := h.ArrivalMS + rapid.Int64Range(-1e9, 1e9).Draw(t, "base")
			rr := drawRows(t, s, batch)
			g.Append(&h, record.AppendRows(nil, s, h.ArrivalMS, batch, rr))
			heads, rows = append(heads, h), append(rows, rr)
		}
		r, err := record.Read(g.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		var it record.Rows
		for i := range heads {
			if !r.Next() {
				t.Fatalf("record %d is missing: %v", i, r.Err())
			}
			if r.Record().Header != heads[i] {
				t.Fatalf("header %+v, want %+v", r.Record().Header, heads[i])
			}
			it.Reset(r.Record(), s)
			for j := range rows[i] {
				if !it.Next() || !sameRow(it.Row(), &rows[i][j]) {
					t.Fatalf("row %+v, want %+v (%v)", it.Row(), rows[i][j], it.Err())
				}
			}
			if it.Next() || it.Err() != nil {
				t.Fatalf("after the last row: %v", it.Err())
			}
		}
		if r.Next() || r.Err() != nil {
			t.Fatalf("after the last record: %v", r.Err())
		}
	})
}

func TestGapComesBack(t *testing.T) {
	want := device.Gap{Seq: 9, FromSeq: 3, ToSeq: 8, Count: 80000, FromMS: 1, ToMS: math.MaxInt64, Cause: device.CauseSpoolFull}
	var g record.Group
	g.Reset(1000)
	g.Append(&record.Header{Kind: record.Gap, Device: 1, Stream: 2, Seq: 9, ArrivalMS: 1001}, record.AppendGap(nil, &want))
	r, err := record.Read(g.Bytes())
	if err != nil || !r.Next() {
		t.Fatal(err, r.Err())
	}
	if got, err := r.Record().Gap(); err != nil || got != want {
		t.Fatalf("got %+v, %v, want %+v", got, err, want)
	}
}

func threeRecords() []byte {
	s := schema()
	var g record.Group
	g.Reset(1_766_000_000_000)
	for i := range 3 {
		h := record.Header{Kind: record.Data, Device: uint32(i), Stream: 1, Seq: 5, ArrivalMS: 1_766_000_000_000 + int64(i)}
		row := device.Row{Ref: device.SingleRef(0), TimeMS: h.ArrivalMS, Values: []device.Value{device.NumberValue(21.37)}}
		g.Append(&h, record.AppendRows(nil, s, h.ArrivalMS, h.ArrivalMS, []device.Row{row}))
	}
	return g.Bytes()
}

func TestAnyFlippedBitIsFoundAndTheOtherRecordsStayReadable(t *testing.T) {
	good := threeRecords()
	for bit := range 8 * len(good) {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		r, err := record.Read(bad)
		for err == nil && r.Next() {
		}
		if err == nil && r.Err() == nil {
			t.Fatalf("flipped bit %d was not found", bit)
		}
		if bit/8 < 9 {
			continue // the header of the group covers every record
		}
		n := 0
		for r := record.Salvage(bad); r.Next(); n++ {
		}
		if n != 2 {
			t.Fatalf("flipped bit %d: %d records salvaged, want 2", bit, n)
		}
	}
}

func TestNewerGroupIsRefused(t *testing.T) {
	g := threeRecords()
	g[0] = record.Version + 1
	if _, err := record.Read(g); !errors.Is(err, storage.ErrNewerFormat) {
		t.Fatalf("got %v, want ErrNewerFormat", err)
	}
}

func FuzzReaderNeverPanics(f *testing.F) {
	f.Add(threeRecords())
	f.Add([]byte{record.Version})
	s := schema()
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := record.Read(p)
		if err != nil {
			return
		}
		var rows record.Rows
		for r.Next() {
			_, _ = r.Record().Gap()
			for rows.Reset(r.Record(), s); rows.Next(); {
			}
		}
		for r := record.Salvage(p); r.Next(); {
		}
	})
}

// FuzzRowsNeverPanic hands the body to the decoder behind a valid checksum, which a fuzzer would not guess.
func FuzzRowsNeverPanic(f *testing.F) {
	s := schema()
	f.Add(record.AppendRows(nil, s, 0, 0, []device.Row{{Ref: device.SetRef(1), Values: []device.Value{device.TextValue("a"), {}}}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		var g record.Group
		g.Reset(0)
		g.Append(&record.Header{Kind: record.Data}, body)
		r, err := record.Read(g.Bytes())
		if err != nil || !r.Next() {
			t.Fatal(err, r.Err())
		}
		var rows record.Rows
		for rows.Reset(r.Record(), s); rows.Next(); {
		}
		_, _ = r.Record().Gap()
	})
}

func BenchmarkAppend10Readings(b *testing.B) {
	s := schema()
	rows := make([]device.Row, 10)
	for i := range rows {
		rows[i] = device.Row{Ref: device.SingleRef(0), TimeMS: int64(i), Values: []device.Value{device.NumberValue(21.37)}}
	}
	var g record.Group
	var body []byte
	h := record.Header{Kind: record.Data, Device: 1, Stream: 1, Seq: 1}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%1000 == 0 {
			g.Reset(0)
		}
		body = record.AppendRows(body[:0], s, 0, 0, rows)
		g.Append(&h, body)
	}
}

func BenchmarkRead10Readings(b *testing.B) {
	s := schema()
	rows := make([]device.Row, 10)
	for i := range rows {
		rows[i] = device.Row{Ref: device.SingleRef(0), TimeMS: int64(i), Values: []device.Value{device.NumberValue(21.37)}}
	}
	var g record.Group
	g.Reset(0)
	g.Append(&record.Header{Kind: record.Data}, record.AppendRows(nil, s, 0, 0, rows))
	var it record.Rows
	b.ReportAllocs()
	for b.Loop() {
		r, _ := record.Read(g.Bytes())
		r.Next()
		for it.Reset(r.Record(), s); it.Next(); {
		}
	}
}
