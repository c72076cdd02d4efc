package wire_test

import (
	"encoding/json"
	"math"
	"math/big"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

// drawItem gives anything that may stand in a row, mostly what should.
func drawItem(t *rapid.T, binary bool) any {
	items := []func() any{
		func() any { return rapid.Int64Range(-1e7, 1e7).Draw(t, "integer") },
		func() any { return rapid.Int64Range(-1e7, 1e7).Draw(t, "integer") },
		func() any { return float64(rapid.IntRange(-1e6, 1e6).Draw(t, "decimal")) / 1000 },
		func() any { return rapid.Float64().Draw(t, "float") },
		func() any { return nil },
		func() any { return rapid.Bool().Draw(t, "bool") },
		func() any { return rapid.StringN(0, 5, 9).Draw(t, "text") },
		func() any { return []any{1, nil} },
		func() any { return map[string]any{"a": 1} },
	}
	if binary {
		items = append(items,
			func() any { return rapid.Uint64().Draw(t, "unsigned") },
			func() any { return rapid.Int64().Draw(t, "signed") },
			func() any { return float32(rapid.Float32().Draw(t, "float32")) },
			func() any { return math.Inf(-1) },
			func() any {
				return new(big.Int).Sub(big.NewInt(math.MinInt64), big.NewInt(rapid.Int64Min(0).Draw(t, "more")))
			},
			func() any { return []byte{1} },
			func() any { return string(make([]byte, device.MaxTextLen+rapid.IntRange(0, 1).Draw(t, "long"))) },
		)
	}
	return items[rapid.IntRange(0, len(items)-1).Draw(t, "item")]()
}

// drawRow gives a row with the given number of values, or something like it.
func drawRow(t *rapid.T, binary bool, number uint16, width int) any {
	dt := any(rapid.Int64Range(-5000, 5000).Draw(t, "dt"))
	switch rapid.IntRange(0, 9).Draw(t, "odd time") {
	case 0:
		dt = rapid.Int64Range(-3*device.MaxSpanMS, 3*device.MaxSpanMS).Draw(t, "far")
	case 1:
		dt = drawItem(t, binary)
	}
	row := []any{number, dt}
	for range width {
		row = append(row, drawItem(t, binary))
	}
	switch rapid.IntRange(0, 15).Draw(t, "odd row") {
	case 0:
		return drawItem(t, binary)
	case 1:
		row = row[:rapid.IntRange(0, len(row)).Draw(t, "short")]
	case 2:
		row[0] = drawItem(t, binary)
	case 3, 4, 5:
		row = append(row, rapid.IntRange(-1, 300).Draw(t, "q"))
	case 6:
		row = append(row, drawItem(t, binary))
	}
	return row
}

// shortest writes floats in as few bytes as possible, so that all lengths occur.
var shortest = func() cbor.EncMode {
	m, err := cbor.EncOptions{ShortestFloat: cbor.ShortestFloat16}.EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

// TestCBORRowsAsTheReferenceSays: rows with every kind of fault give the readings and the faults that the slow decoder
// finds with exact arithmetic.
func TestCBORRowsAsTheReferenceSays(t *testing.T) {
	x := index(t, greenhouse())
	s := x.Schema()
	var d wire.Decoder
	rapid.Check(t, func(t *rapid.T) {
		sets, singles := []any{}, []any{}
		for range rapid.IntRange(0, 3).Draw(t, "sets") {
			i := rapid.IntRange(0, len(s.Sets)-1).Draw(t, "set")
			sets = append(sets, drawRow(t, true, s.Sets[i].Index, len(s.Sets[i].Metrics)))
		}
		for range rapid.IntRange(0, 8).Draw(t, "singles") {
			i := rapid.IntRange(0, len(s.Metrics)-1).Draw(t, "metric")
			singles = append(singles, drawRow(t, true, s.Metrics[i].Alias, 1))
		}
		seq := rapid.Uint64Range(0, wire.MaxSeq).Draw(t, "seq")
		frame, err := shortest.Marshal([]any{4, seq, rapid.Int64Range(-wire.MaxTimeMS, wire.MaxTimeMS).Draw(t, "t"), sets, singles})
		if err != nil {
			t.Fatal(err)
		}
		check(t, &d, true, frame, x)
	})
}

// TestJSONRowsAsTheReferenceSays is the same for JSON.
func TestJSONRowsAsTheReferenceSays(t *testing.T) {
	x := index(t, greenhouse())
	s := x.Schema()
	var d wire.Decoder
	rapid.Check(t, func(t *rapid.T) {
		rows := []any{}
		for range rapid.IntRange(0, 8).Draw(t, "rows") {
			i := rapid.IntRange(0, len(s.Metrics)-1).Draw(t, "metric")
			rows = append(rows, drawRow(t, false, s.Metrics[i].Alias, 1))
		}
		m := map[string]any{"m": "data", "r": rows, "t": rapid.Int64Range(-1e15, 1e15).Draw(t, "t")}
		if rapid.Bool().Draw(t, "numbered") {
			m["s"] = rapid.Uint64Range(0, wire.MaxSeq).Draw(t, "seq")
		}
		frame, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		check(t, &d, false, frame, x)
	})
}

func check(t *rapid.T, d *wire.Decoder, binary bool, frame []byte, x *wire.Index) {
	t.Helper()
	var b device.Batch
	_, bad, err := d.Data(formatOf(binary), frame, x, &b)
	if err != nil {
		t.Fatalf("%x: %v", frame, err)
	}
	compareReference(t, binary, frame, x, &b, bad)
}
