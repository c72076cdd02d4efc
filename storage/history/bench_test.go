package history_test

import (
	"math"
	"testing"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
	"telemetryhub/storage/history"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/record"
)

// tenMetrics is the schema of a device with ten metrics in one set.
func tenMetrics() schemas {
	s := &device.Schema{Num: 1, Sets: []device.Set{{Num: 1}}}
	for i := range 10 {
		m := device.NewMetric("m")
		m.Num, m.Exp = uint32(i+1), -2
		s.Metrics = append(s.Metrics, m)
		s.Sets[0].Metrics = append(s.Sets[0].Metrics, i)
	}
	return schemas{1: s}
}

const (
	benchDevices = 100
	benchGroup   = 200 // records
)

// benchGroups returns groups of batches of ten readings from many devices.
func benchGroups(s *device.Schema, single bool, count int) [][]byte {
	var groups [][]byte
	var g record.Group
	n := 0
	for range count {
		g.Reset(baseMS)
		for range benchGroup {
			dev, t := uint32(n%benchDevices+1), baseMS+int64(n/benchDevices)*1000
			h := record.Header{Kind: record.Data, Device: dev, Stream: 1, Seq: uint64(n/benchDevices + 1), ArrivalMS: t + 20}
			var rows []device.Row
			values := make([]device.Value, 10)
			for i := range values {
				values[i] = device.NumberValue(math.Round(2000+100*math.Sin(float64(n*(i+1))/1e4)+float64(n*7919%13)) / 100)
			}
			if single {
				for i := range values {
					rows = append(rows, device.Row{Ref: device.SingleRef(i), TimeMS: t, Values: values[i : i+1]})
				}
			} else {
				rows = append(rows, device.Row{Ref: device.SetRef(0), TimeMS: t, Values: values})
			}
			g.Append(&h, record.AppendRows(nil, s, h.ArrivalMS, t, rows))
			n++
		}
		groups = append(groups, append([]byte(nil), g.Bytes()...))
	}
	return groups
}

// BenchmarkApply applies batches of ten readings. Floor: reading the records and their rows and doing nothing with them.
func BenchmarkApply(b *testing.B) {
	sch := tenMetrics()
	const readings = benchGroup * 10
	for _, c := range []struct {
		name   string
		single bool
	}{{"set", false}, {"single", true}} {
		groups := benchGroups(sch[1], c.single, 1000)
		report := func(b *testing.B) {
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/readings, "ns/reading")
		}
		b.Run(c.name, func(b *testing.B) {
			s, err := history.Open(b.Context(), mem.NewChunks(), mem.NewCatalog(), sch, history.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if s.Due() {
					b.StopTimer()
					if err := s.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				if err := s.Apply(b.Context(), storage.Position(n+1), groups[n%len(groups)]); err != nil {
					b.Fatal(err)
				}
			}
			report(b)
		})
		b.Run(c.name+"/floor", func(b *testing.B) {
			var rows record.Rows
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				r, err := record.Read(groups[n%len(groups)])
				if err != nil {
					b.Fatal(err)
				}
				for r.Next() {
					for rows.Reset(r.Record(), sch[1]); rows.Next(); {
					}
				}
			}
			report(b)
		})
	}
}

// BenchmarkFlush makes chunks of heads. Floor: BenchmarkRecording/encode in package chunk.
func BenchmarkFlush(b *testing.B) {
	sch := tenMetrics()
	groups := benchGroups(sch[1], false, 300)
	chunks := mem.NewChunks()
	s, err := history.Open(b.Context(), chunks, mem.NewCatalog(), sch, history.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	n := 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for range groups {
			n++
			if err := s.Apply(b.Context(), storage.Position(n), groups[n%len(groups)]); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if err := s.Flush(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	readings := float64(len(groups) * benchGroup * 10)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/readings, "ns/reading")
	b.ReportMetric(float64(chunks.Size())/float64(b.N)/readings, "bytes/reading")
}

// BenchmarkPoints reads a day of one metric, a reading a second in flushes of five minutes, out of chunks. Floor:
// BenchmarkRecording/decode in package chunk.
func BenchmarkPoints(b *testing.B) {
	sch := tenMetrics()
	s, err := history.Open(b.Context(), mem.NewChunks(), mem.NewCatalog(), sch, history.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var g record.Group
	values := make([]device.Value, 10)
	for sec := range 86400 {
		g.Reset(baseMS)
		t := baseMS + int64(sec)*1000
		for i := range values {
			values[i] = device.NumberValue(float64(2000+sec*7919%13) / 100)
		}
		rows := []device.Row{{Ref: device.SetRef(0), TimeMS: t, Values: values}}
		g.Append(&record.Header{Kind: record.Data, Device: 1, ArrivalMS: t}, record.AppendRows(nil, sch[1], t, t, rows))
		if err := s.Apply(b.Context(), storage.Position(sec+1), g.Bytes()); err != nil {
			b.Fatal(err)
		}
		if sec%300 == 299 {
			if err := s.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n = 0
		q := history.Query{Device: 1, Metrics: []uint32{3}, FromMS: baseMS, ToMS: baseMS + chunk.SliceMS}
		if err := s.Points(b.Context(), q, func(history.Point) bool { n++; return true }); err != nil {
			b.Fatal(err)
		}
	}
	if n != 86400 {
		b.Fatalf("got %d readings", n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/reading")
}
