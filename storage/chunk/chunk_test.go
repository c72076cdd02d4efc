package chunk_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

func newCodec(t testing.TB) (*chunk.Encoder, *chunk.Decoder) {
	t.Helper()
	e, err := chunk.NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	d, err := chunk.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return e, d
}

const day = storage.Slice(20_000)

// setValue stores a value in a row of a column, as a writer of history would.
func setValue(c *chunk.Column, row int, v device.Value) {
	if v.Type != device.Number && c.Types == nil {
		c.Types = make([]device.Type, len(c.Bits))
		for i := range c.Types {
			c.Types[i] = device.Number
		}
	}
	if c.Types != nil {
		c.Types[row] = v.Type
	}
	c.Bits[row] = math.Float64bits(v.Float())
	if v.Type == device.String {
		c.Bits[row] = uint64(len(c.Texts))
		c.Texts = append(c.Texts, v.Text())
	}
}

// drawColumn draws values of one style, so that every form of a column occurs.
func drawColumn(t *rapid.T, n int) []device.Value {
	number := func() device.Value {
		f, _ := device.Unscale(rapid.Int64Range(-1e6, 1e6).Draw(t, "int"), -2)
		return device.NumberValue(f)
	}
	style := rapid.SampledFrom([]string{"int", "float", "float32", "bool", "text", "mixed", "same", "absent", "huge"}).Draw(t, "style")
	holes := rapid.Bool().Draw(t, "holes")
	first := device.NumberValue(rapid.Float64().Draw(t, "first"))
	values := make([]device.Value, n)
	for i := range values {
		if style == "absent" || holes && rapid.Bool().Draw(t, "hole") {
			continue
		}
		switch style {
		case "int":
			values[i] = number()
		case "float":
			values[i] = device.NumberValue(math.Float64frombits(rapid.Uint64().Draw(t, "bits")))
		case "float32":
			values[i] = device.NumberValue(float64(rapid.Float32().Draw(t, "float32")))
		case "bool":
			values[i] = device.BoolValue(rapid.Bool().Draw(t, "bool"))
		case "text":
			values[i] = device.TextValue(rapid.SampledFrom([]string{"", "open", "closed", "ä\x00"}).Draw(t, "text"))
		case "same":
			values[i] = first
		case "huge":
			f, _ := device.Unscale(rapid.SampledFrom([]int64{1<<53 - 1, -(1<<53 - 1), 0}).Draw(t, "huge"), 0)
			values[i] = device.NumberValue(f)
		default:
			values[i] = []device.Value{number(), device.BoolValue(true), device.TextValue(rapid.String().Draw(t, "any")), {}}[rapid.IntRange(0, 3).Draw(t, "type")]
		}
	}
	return values
}

func drawRows(t *rapid.T) (*chunk.Rows, [][]device.Value) {
	n := rapid.IntRange(1, 60).Draw(t, "rows")
	r := new(chunk.Rows)
	span := rapid.SampledFrom([]int64{0, 1000, chunk.SliceMS - 1}).Draw(t, "span")
	for range n {
		r.Times = append(r.Times, chunk.StartMS(day)+rapid.Int64Range(0, span).Draw(t, "time"))
	}
	slices.Sort(r.Times)
	if rapid.Bool().Draw(t, "with order") {
		r.Order = rapid.SliceOfN(rapid.Uint32(), n, n).Draw(t, "order")
	}
	if rapid.Bool().Draw(t, "with quality") {
		for range n {
			r.Quality = append(r.Quality, device.Quality(rapid.Byte().Draw(t, "quality")))
		}
	}
	if rapid.Bool().Draw(t, "with original") {
		for i := range n {
			r.Original = append(r.Original, rapid.SampledFrom([]int64{r.Times[i], 0, math.MaxInt64, math.MinInt64}).Draw(t, "original"))
		}
	}
	var values [][]device.Value
	for range rapid.IntRange(1, 4).Draw(t, "columns") {
		col := chunk.Column{Metric: rapid.Uint32().Draw(t, "metric"), Bits: make([]uint64, n)}
		vs := drawColumn(t, n)
		for i, v := range vs {
			setValue(&col, i, v)
		}
		r.Columns = append(r.Columns, col)
		values = append(values, vs)
	}
	return r, values
}

func sameSlice[T comparable](t *rapid.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func TestRowsComeBackExactly(t *testing.T) {
	enc, dec := newCodec(t)
	rapid.Check(t, func(t *rapid.T) {
		rows, values := drawRows(t)
		key := chunk.Key{Slice: day, Device: rapid.Uint32().Draw(t, "device"), Series: chunk.SetSeries(rapid.Uint32().Draw(t, "set"))}
		origin := chunk.Origin{
			First: storage.Position(rapid.Uint64Range(0, 1<<62).Draw(t, "first")), TimeQuality: device.ClockNTP,
			FirstArrivalMS: rapid.Int64Range(0, 1<<50).Draw(t, "arrival"),
		}
		origin.Last = origin.First + storage.Position(rapid.Uint32().Draw(t, "positions"))
		origin.LastArrivalMS = origin.FirstArrivalMS + rapid.Int64Range(0, 1e9).Draw(t, "arrivals")
		p, err := enc.Append([]byte("x"), key, rows, origin)
		if err != nil {
			t.Fatal(err)
		}
		c, err := chunk.Read(p[1:], day)
		if err != nil {
			t.Fatal(err)
		}
		n := len(rows.Times)
		if c.Key != key || c.Origin != origin || c.Rows != n || c.FirstMS != rows.Times[0] || c.LastMS != rows.Times[n-1] {
			t.Fatalf("header %+v, want %+v %+v of %d rows", c.Header, key, origin, n)
		}
		got, err := dec.Rows(c, nil)
		if err != nil {
			t.Fatal(err)
		}
		sameSlice(t, "times", got.Times, rows.Times)
		sameSlice(t, "order", got.Order, rows.Order)
		sameSlice(t, "quality", got.Quality, rows.Quality)
		sameSlice(t, "original", got.Original, rows.Original)
		for i := range rows.Columns {
			if got.Columns[i].Metric != rows.Columns[i].Metric || c.Metrics[i] != rows.Columns[i].Metric {
				t.Fatalf("column %d is of metric %d, want %d", i, got.Columns[i].Metric, rows.Columns[i].Metric)
			}
			for row, want := range values[i] {
				if v := got.Columns[i].Value(row); !v.Equal(want) {
					t.Fatalf("column %d row %d: got %v, want %v", i, row, v, want)
				}
			}
		}
	})
}

func TestOnlyTheWantedColumnsAreDecoded(t *testing.T) {
	enc, dec := newCodec(t)
	for _, n := range []int{10, 3000} { // compressed together, and each column by itself
		rows := plainRows(n, 4)
		p, err := enc.Append(nil, chunk.Key{Slice: day, Device: 1, Series: chunk.SetSeries(1)}, rows, chunk.Origin{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := chunk.Read(p, day)
		if err != nil {
			t.Fatal(err)
		}
		got, err := dec.Rows(c, func(m uint32) bool { return m == 2 })
		if err != nil || len(got.Columns) != 1 || got.Columns[0].Metric != 2 || !slices.Equal(got.Columns[0].Bits, rows.Columns[2].Bits) {
			t.Fatalf("%d rows: got %d columns, %v", n, len(got.Columns), err)
		}
	}
}

// plainRows returns rows with columns of decimals that move a little.
func plainRows(n, columns int) *chunk.Rows {
	r := &chunk.Rows{Times: make([]int64, n), Columns: make([]chunk.Column, columns)}
	for i := range r.Times {
		r.Times[i] = chunk.StartMS(day) + int64(i)*1000 + int64(i*7919%23)
	}
	for c := range r.Columns {
		r.Columns[c] = chunk.Column{Metric: uint32(c), Bits: make([]uint64, n)}
		for i := range n {
			f, _ := device.Unscale(2000+int64((i*(c+3))%17), -2)
			r.Columns[c].Bits[i] = math.Float64bits(f)
		}
	}
	return r
}

func TestWhatDoesNotFitIsRefused(t *testing.T) {
	enc, _ := newCodec(t)
	long := plainRows(chunk.MaxRows+1, 1)
	wide := plainRows(1, chunk.MaxColumns+1)
	heavy := plainRows(chunk.MaxRows, chunk.MaxColumns)
	for c := range heavy.Columns {
		for i := range heavy.Columns[c].Bits {
			heavy.Columns[c].Bits[i] = uint64(i)*0x9e3779b97f4a7c15 + uint64(c)
		}
	}
	for name, rows := range map[string]*chunk.Rows{"long": long, "wide": wide, "heavy": heavy} {
		if _, err := enc.Append(nil, chunk.Key{Slice: day}, rows, chunk.Origin{}); !errors.Is(err, storage.ErrTooLarge) {
			t.Errorf("%s: got %v, want ErrTooLarge", name, err)
		}
	}
	unsorted := plainRows(3, 1)
	slices.Reverse(unsorted.Times)
	short := plainRows(3, 1)
	short.Quality = make([]device.Quality, 2)
	early := plainRows(3, 1)
	early.Times[0] = chunk.StartMS(day) - 1
	for name, rows := range map[string]*chunk.Rows{"unsorted": unsorted, "short": short, "early": early, "empty": {}} {
		if _, err := enc.Append(nil, chunk.Key{Slice: day}, rows, chunk.Origin{}); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func TestAnyFlippedBitAndAnyWrongPlaceIsFound(t *testing.T) {
	enc, _ := newCodec(t)
	p, err := enc.Append(nil, chunk.Key{Slice: day, Device: 7, Series: chunk.SingleSeries(3)}, plainRows(40, 2), chunk.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(p) {
		bad := slices.Clone(p)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := chunk.Read(bad, day); !errors.Is(err, storage.ErrCorrupt) && !errors.Is(err, storage.ErrNewerFormat) {
			t.Fatalf("flipped bit %d: got %v, want ErrCorrupt", bit, err)
		}
	}
	for n := range p {
		if _, err := chunk.Read(p[:n], day); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for a chunk", n, len(p))
		}
	}
	if _, err := chunk.Read(p, day+1); !errors.Is(err, storage.ErrCorrupt) {
		t.Fatalf("in another slice: got %v, want ErrCorrupt", err)
	}
	p[0] = chunk.Version + 1
	if _, err := chunk.Read(p, day); !errors.Is(err, storage.ErrNewerFormat) {
		t.Fatalf("newer version: got %v, want ErrNewerFormat", err)
	}
}

func TestSliceOf(t *testing.T) {
	for _, c := range []struct {
		ms   int64
		want storage.Slice
		ok   bool
	}{
		{0, 0, true}, {chunk.SliceMS - 1, 0, true}, {chunk.SliceMS, 1, true}, {-1, -1, true}, {-chunk.SliceMS, -1, true},
		{-chunk.SliceMS - 1, -2, true}, {math.MaxInt64, 0, false}, {math.MinInt64, 0, false},
	} {
		if got, ok := chunk.SliceOf(c.ms); ok != c.ok || ok && got != c.want {
			t.Errorf("SliceOf(%d) = %d, %v, want %d, %v", c.ms, got, ok, c.want, c.ok)
		}
	}
}

func ExampleSeries() {
	fmt.Println(chunk.SetSeries(3), "and", chunk.SingleSeries(3))
	// Output: set 3 and metric 3
}

// TestACloseWaitsForWhatIsDecoded closes a decoder under those who use it.
func TestACloseWaitsForWhatIsDecoded(t *testing.T) {
	e, _ := newCodec(t)
	d, err := chunk.NewDecoder()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := e.Append(nil, chunk.Key{Slice: day, Device: 1, Series: chunk.SetSeries(1)}, plainRows(300, 2), chunk.Origin{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := chunk.Read(packed, day)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	begun := make(chan struct{}, 4)
	for range cap(begun) {
		wg.Go(func() {
			for n := 0; ; n++ {
				if _, err := d.Rows(c, nil); err != nil {
					if !errors.Is(err, storage.ErrClosed) {
						t.Errorf("closed while it works: %v", err)
					}
					return
				}
				if n == 10 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	d.Close()
	d.Close()
	wg.Wait()
}
