package wire_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"

	"pgregory.net/rapid"
)

// reading is one value of a batch with all that belongs to it.
type reading struct {
	metric string
	ms     int64
	value  device.Value
	q      device.Quality
}

func flat(x *wire.Index, b *device.Batch) []reading {
	s := x.Schema()
	var out []reading
	for _, r := range b.Rows {
		for i, v := range r.Values {
			out = append(out, reading{s.Column(r.Ref, i).Name, r.TimeMS, v, r.Quality})
		}
	}
	return out
}

func sameReading(a, b reading) bool {
	return a.metric == b.metric && a.ms == b.ms && a.value.Equal(b.value) && a.q == b.q
}

func sameRow(a, b device.Row) bool {
	return a.Ref == b.Ref && a.TimeMS == b.TimeMS && a.Quality == b.Quality &&
		slices.EqualFunc(a.Values, b.Values, device.Value.Equal)
}

func drawValue(t *rapid.T, k device.Kind) device.Value {
	pick := rapid.IntRange(0, 9).Draw(t, "pick")
	switch {
	case pick == 0:
		return device.Value{}
	case k == device.Text || k == device.State && pick < 4:
		return device.TextValue(rapid.StringN(0, 20, 80).Draw(t, "text"))
	case k == device.State && pick < 6:
		return device.BoolValue(rapid.Bool().Draw(t, "bool"))
	case pick < 8: // as sensors give it
		return device.NumberValue(float64(rapid.IntRange(-1e7, 1e7).Draw(t, "n")) / 100)
	}
	f := rapid.Float64().Draw(t, "f")
	if f-f != 0 {
		f = 0
	}
	return device.NumberValue(f)
}

func drawSchema(t *rapid.T) *device.Schema {
	s := &device.Schema{ID: rapid.StringMatching(`[a-z0-9:]{1,20}`).Draw(t, "id")}
	aliases := rapid.SliceOfNDistinct(rapid.Uint16Min(1), 1, 12, rapid.ID).Draw(t, "aliases")
	for i, a := range aliases {
		m := device.NewMetric(fmt.Sprintf("m%d", i))
		m.Alias = a
		m.Kind = device.Kind(rapid.IntRange(1, 4).Draw(t, "kind"))
		m.Exp = int8(rapid.IntRange(-wire.MaxExp, wire.MaxExp).Draw(t, "exp"))
		s.Metrics = append(s.Metrics, m)
	}
	seen := map[string]bool{}
	for i := range rapid.IntRange(0, 4).Draw(t, "sets") {
		positions := rapid.SliceOfNDistinct(rapid.IntRange(0, len(aliases)-1), 1, len(aliases), rapid.ID).Draw(t, "set")
		if key := fmt.Sprint(positions); !seen[key] {
			seen[key] = true
			s.Sets = append(s.Sets, device.Set{Index: uint16(i*700 + 1), Metrics: positions})
		}
	}
	return s
}

func drawBatch(t *rapid.T, s *device.Schema) *device.Batch {
	b := &device.Batch{
		Seq:    rapid.Uint64Range(0, wire.MaxSeq).Draw(t, "seq"),
		BaseMS: rapid.Int64Range(-wire.MaxTimeMS, wire.MaxTimeMS).Draw(t, "base"),
	}
	for range rapid.IntRange(0, 12).Draw(t, "rows") {
		ref := device.SingleRef(rapid.IntRange(0, len(s.Metrics)-1).Draw(t, "metric"))
		if n := len(s.Sets); n > 0 && rapid.Bool().Draw(t, "of a set") {
			ref = device.SetRef(rapid.IntRange(0, n-1).Draw(t, "which"))
		}
		r := device.Row{
			Ref:     ref,
			TimeMS:  b.BaseMS + rapid.Int64Range(-device.MaxSpanMS/2, device.MaxSpanMS/2).Draw(t, "dt"),
			Quality: device.Quality(rapid.IntRange(0, 15).Draw(t, "q")),
		}
		if rapid.Bool().Draw(t, "now") {
			r.TimeMS = b.BaseMS
		}
		for i := range s.Width(ref) {
			r.Values = append(r.Values, drawValue(t, s.Column(ref, i).Kind))
		}
		b.Rows = append(b.Rows, r)
	}
	return b
}

// TestCBORGivesBackTheBatch: any batch of any schema comes back bit by bit, rows of sets first.
func TestCBORGivesBackTheBatch(t *testing.T) {
	var d wire.Decoder
	var got device.Batch
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchema(t)
		x, err := wire.NewIndex(s)
		if err != nil {
			t.Fatal(err)
		}
		want := drawBatch(t, s)
		clock := device.TimeQuality(rapid.IntRange(0, 2).Draw(t, "clock"))
		frame, err := wire.AppendData(nil, wire.CBOR, x, want, wire.ClockFlag(clock))
		if err != nil {
			t.Fatal(err)
		}
		flags, bad, err := d.Data(wire.CBOR, frame, x, &got)
		if err != nil || len(bad) > 0 {
			t.Fatalf("decode %x: %v %v", frame, err, bad)
		}
		if flags.Clock(9) != clock {
			t.Fatalf("clock %d, want %d", flags.Clock(9), clock)
		}
		slices.SortStableFunc(want.Rows, func(a, b device.Row) int { return int(a.Ref&1) - int(b.Ref&1) })
		if got.Seq != want.Seq || got.BaseMS != want.BaseMS || !slices.EqualFunc(got.Rows, want.Rows, sameRow) {
			t.Fatalf("got  %+v\nwant %+v\nframe %x", got, *want, frame)
		}
	})
}

// TestJSONGivesBackTheReadings: any batch comes back reading by reading, each with its time and quality. Which rows
// they stand in may differ; within a row that was joined the order of different metrics may too.
func TestJSONGivesBackTheReadings(t *testing.T) {
	var d wire.Decoder
	var got device.Batch
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchema(t)
		x, err := wire.NewIndex(s)
		if err != nil {
			t.Fatal(err)
		}
		want := drawBatch(t, s)
		frame, err := wire.AppendData(nil, wire.JSON, x, want, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, bad, err := d.Data(wire.JSON, frame, x, &got)
		if err != nil || len(bad) > 0 {
			t.Fatalf("decode %s: %v %v", frame, err, bad)
		}
		byMetric := func(a, b reading) int { return strings.Compare(a.metric, b.metric) }
		g, w := flat(x, &got), flat(x, want)
		slices.SortStableFunc(g, byMetric)
		slices.SortStableFunc(w, byMetric)
		if got.Seq != want.Seq || got.BaseMS != want.BaseMS || !slices.EqualFunc(g, w, sameReading) {
			t.Fatalf("got  %+v\nwant %+v\nframe %s", g, w, frame)
		}
	})
}

// TestJSONRowsFillSets: what is joined to rows of a set, by the rule of PROTOCOL.md. A set is written as s1{…}.
func TestJSONRowsFillSets(t *testing.T) {
	nan := math.NaN()
	metric := func(alias uint16) device.Metric {
		return device.Metric{Alias: alias, Name: fmt.Sprint(alias), Kind: device.Gauge, Lo: nan, Hi: nan}
	}
	s := &device.Schema{ID: "x"}
	for a := range uint16(5) {
		s.Metrics = append(s.Metrics, metric(a+1))
	}
	s.Sets = []device.Set{{Index: 1, Metrics: []int{0, 1}}, {Index: 2, Metrics: []int{0, 1, 2}}, {Index: 3, Metrics: []int{3}},
		{Index: 4, Metrics: []int{4, 2, 3}}}
	x := index(t, s)
	for _, c := range []struct{ name, rows, want string }{
		{"in order", `[1,0,1],[2,0,2]`, "s1{1 2}@0"},
		{"any order", `[2,0,2],[1,0,1]`, "s1{1 2}@0"},
		{"the largest set first", `[1,0,1],[2,0,2],[3,0,3]`, "s2{1 2 3}@0"},
		{"twice", `[1,0,1],[2,0,2],[1,0,5],[2,0,6]`, "s1{1 2}@0 s1{5 6}@0"},
		{"another time", `[1,0,1],[2,1,2]`, "1=1@0 2=2@1"},
		{"another quality", `[1,0,1],[2,0,2,1]`, "1=1@0 2=2@0?1"},
		{"quality of all", `[1,0,1,8],[2,0,2,8]`, "s1{1 2}@0?8"},
		{"not adjacent", `[1,0,1],[5,0,5],[2,0,2]`, "1=1@0 5=5@0 2=2@0"},
		{"one metric twice", `[1,0,1],[1,0,2],[2,0,3]`, "1=1@0 s1{2 3}@0"},
		{"null is a value", `[1,0,null],[2,0,2]`, "s1{- 2}@0"},
		{"a set of one", `[4,0,1]`, "s3{1}@0"},
		{"a refused row between", `[1,0,1],[99,0,1],[2,0,2]`, "s1{1 2}@0"},
		{"almost", `[3,0,3],[5,0,5],[4,1,4]`, "3=3@0 5=5@0 s3{4}@1"},
		{"incomplete", `[1,0,1],[3,0,3]`, "1=1@0 3=3@0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d wire.Decoder
			var b device.Batch
			if _, _, err := d.Data(wire.JSON, []byte(`{"m":"data","t":1,"r":[`+c.rows+`]}`), x, &b); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range b.Rows {
				got = append(got, rowText(s, r, b.BaseMS))
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("got %s, want %s", text, c.want)
			}
		})
	}
}

func rowText(s *device.Schema, r device.Row, base int64) string {
	text := func(v device.Value) string {
		if v.Type == device.Absent {
			return "-"
		}
		return fmt.Sprint(v.Float())
	}
	var out string
	if m, ok := r.Ref.Single(); ok {
		out = fmt.Sprintf("%d=%s", s.Metrics[m].Alias, text(r.Values[0]))
	} else {
		var values []string
		for _, v := range r.Values {
			values = append(values, text(v))
		}
		out = fmt.Sprintf("s%d{%s}", s.Sets[r.Ref.Set()].Index, strings.Join(values, " "))
	}
	out += fmt.Sprintf("@%d", r.TimeMS-base)
	if r.Quality != 0 {
		out += fmt.Sprintf("?%d", r.Quality)
	}
	return out
}

// TestDecodingAllocatesNothing once the decoder has seen a frame of the kind.
func TestDecodingAllocatesNothing(t *testing.T) {
	x := index(t, greenhouse())
	b := &device.Batch{Seq: 1, BaseMS: 1766000000123, Rows: []device.Row{
		{Ref: device.SetRef(1), TimeMS: 1766000000123, Values: []device.Value{
			device.NumberValue(21.37), device.TextValue("open"), device.TextValue("line\nbreak")}},
		{Ref: device.SingleRef(6), TimeMS: 1766000000124, Values: []device.Value{device.NumberValue(1e300)}},
	}}
	for _, f := range []wire.Format{wire.CBOR, wire.JSON} {
		frame, err := wire.AppendData(nil, f, x, b, 0)
		if err != nil {
			t.Fatal(err)
		}
		var d wire.Decoder
		var got device.Batch
		n := testing.AllocsPerRun(100, func() {
			if _, bad, err := d.Data(f, frame, x, &got); err != nil || len(bad) > 0 {
				t.Fatal(err, bad)
			}
		})
		if n != 0 {
			t.Errorf("%s: %v allocations a frame", f, n)
		}
	}
}

// sortKey orders the readings of one metric.
func sortKey(r reading) string {
	return fmt.Sprintf("%020d %d %016x %s %d", r.ms+1<<60, r.value.Type, math.Float64bits(r.value.Float()), r.value.Text(), r.q)
}
