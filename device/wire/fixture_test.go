package wire_test

import (
	"fmt"
	"math"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// greenhouse is a schema with a set, a lone metric and every kind.
func greenhouse() *device.Schema {
	nan := math.NaN()
	return &device.Schema{
		ID: "b3:5d0c",
		Metrics: []device.Metric{
			{Alias: 1, Name: "temperature", Unit: "Cel", Kind: device.Gauge, Exp: -2, Lo: -40, Hi: 85, IntervalMS: 10000},
			{Alias: 2, Name: "pressure", Unit: "Pa", Kind: device.Gauge, Exp: -1, Lo: 30000, Hi: 110000},
			{Alias: 3, Name: "humidity", Unit: "%RH", Kind: device.Gauge, Exp: -2, Lo: 0, Hi: 100},
			{Alias: 4, Name: "door", Kind: device.State, Lo: nan, Hi: nan},
			{Alias: 5, Name: "rain/total", Unit: "mm", Kind: device.Counter, Exp: 3, Lo: nan, Hi: nan},
			{Alias: 6, Name: "note", Kind: device.Text, Lo: nan, Hi: nan},
			{Alias: 40000, Name: "raw", Kind: device.Gauge, Lo: nan, Hi: nan},
		},
		Sets:     []device.Set{{Index: 1, Metrics: []int{0, 1, 2}}, {Index: 5000, Metrics: []int{0, 3, 5}}},
		Commands: []string{"relay"},
	}
}

// station has one set of five metrics, as a small weather station.
func station() *device.Schema {
	s := &device.Schema{ID: "station"}
	set := device.Set{Index: 1}
	for i := range 5 {
		m := device.NewMetric(fmt.Sprintf("m%d", i))
		m.Alias, m.Exp, m.Lo, m.Hi = uint16(i+1), -2, -1000, 1000
		s.Metrics = append(s.Metrics, m)
		set.Metrics = append(set.Metrics, i)
	}
	s.Sets = []device.Set{set}
	return s
}

func index(t testing.TB, s *device.Schema) *wire.Index {
	t.Helper()
	x, err := wire.NewIndex(s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// stationBatch has ten readings, as single rows or as two rows of the set.
func stationBatch(sets bool) *device.Batch {
	b := &device.Batch{Seq: 4213, BaseMS: 1766000000123}
	for i := range 2 {
		at := b.BaseMS + int64(i)*10000
		values := make([]device.Value, 5)
		for j := range values {
			values[j] = device.NumberValue(float64(2137+i*17+j*911) / 100)
			if !sets {
				b.Rows = append(b.Rows, device.Row{Ref: device.SingleRef(j), TimeMS: at, Values: values[j : j+1]})
			}
		}
		if sets {
			b.Rows = append(b.Rows, device.Row{Ref: device.SetRef(0), TimeMS: at, Values: values})
		}
	}
	return b
}
