package api

import (
	"io"
	"net/http"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/hub"
)

// sinkWriter is an answer that nobody reads.
type sinkWriter struct{ header http.Header }

func (w sinkWriter) Header() http.Header         { return w.header }
func (w sinkWriter) Write(p []byte) (int, error) { return io.Discard.Write(p) }
func (w sinkWriter) WriteHeader(int)             {}

// BenchmarkRows measures writing one reading of history, after it was read, in each form.
func BenchmarkRows(b *testing.B) {
	for _, c := range []struct {
		name string
		sink func(*stream, *query) sink
	}{
		{"json", func(s *stream, q *query) sink { return &pointsSink{s: s, q: q} }},
		{"csv", func(s *stream, q *query) sink { return &csvSink{s: s, q: q} }},
		{"ndjson", func(s *stream, q *query) sink { return &ndjsonSink{s: s, q: q} }},
		{"steps", func(s *stream, q *query) sink { q.step, q.agg = time.Minute, "avg"; return &pointsSink{s: s, q: q} }},
	} {
		b.Run(c.name, func(b *testing.B) {
			s := newStream(b.Context(), sinkWriter{http.Header{}}, time.Second)
			q := &query{zone: time.UTC, newest: map[uint32]bool{1: true}}
			m := device.NewMetric("temperature")
			m.Num = 1
			t := newTable(q, &hub.HistoryInfo{Versions: []device.Metric{m}}, c.sink(s, q))
			b.ReportAllocs()
			at := int64(1_766_000_000_000)
			for b.Loop() {
				at += 1000
				t.add(at, t.find(&m), device.NumberValue(21.37))
			}
		})
	}
}
