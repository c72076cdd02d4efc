package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"unicode/utf8"

	"telemetryhub/device"
	"telemetryhub/device/wire"

	"github.com/fxamacker/cbor/v2"
)

// A second, slow decoder of data messages, written from PROTOCOL.md on top of general decoders and exact arithmetic. The
// fuzz tests compare the two.

// refRow is a row before it is looked up: its items as a general decoder gives them, nil items for null.
type refRow struct {
	items []any
	array bool
}

type refMessage struct {
	seq     uint64
	base    int64
	sets    []refRow
	singles []refRow
}

var generalCBOR = decMode(cbor.DecOptions{
	UTF8: cbor.UTF8DecodeInvalid, MaxNestedLevels: 64, MaxArrayElements: 1 << 17, MaxMapPairs: 1 << 17,
})

// plainCBOR refuses what would come out as something else: tags, and undefined, which it cannot tell from null.
var plainCBOR = func() cbor.DecMode {
	simple, err := cbor.NewSimpleValueRegistryFromDefaults(cbor.WithRejectedSimpleValue(23))
	if err != nil {
		panic(err)
	}
	return decMode(cbor.DecOptions{
		UTF8: cbor.UTF8DecodeInvalid, MaxNestedLevels: 64, MaxArrayElements: 1 << 17, MaxMapPairs: 1 << 17,
		TagsMd: cbor.TagsForbidden, SimpleValues: simple,
	})
}()

func decMode(o cbor.DecOptions) cbor.DecMode {
	m, err := o.DecMode()
	if err != nil {
		panic(err)
	}
	return m
}

var errReference = errors.New("the general decoder refuses it")

func referenceCBOR(frame []byte) (*refMessage, error) {
	var v []any
	if err := plainCBOR.Unmarshal(frame, &v); err != nil {
		return nil, errReference
	}
	m := &refMessage{seq: v[1].(uint64), sets: refRows(v[3]), singles: refRows(v[4])}
	switch t := v[2].(type) {
	case uint64:
		m.base = int64(t)
	case int64:
		m.base = t
	}
	return m, nil
}

func referenceJSON(frame []byte) (*refMessage, error) {
	var v struct {
		S float64
		T float64
		R json.RawMessage
	}
	if err := json.Unmarshal(frame, &v); err != nil {
		return nil, errReference
	}
	dec := json.NewDecoder(bytes.NewReader(v.R))
	dec.UseNumber()
	var rows []any
	if err := dec.Decode(&rows); err != nil {
		return nil, errReference
	}
	return &refMessage{seq: uint64(v.S), base: int64(v.T), singles: refRows(rows)}, nil
}

func refRows(v any) []refRow {
	var rows []refRow
	for _, r := range v.([]any) {
		items, ok := r.([]any)
		rows = append(rows, refRow{items, ok})
	}
	return rows
}

// whole returns the value of a whole number.
func whole(v any) (n int64, ok bool) {
	switch v := v.(type) {
	case uint64:
		return int64(v), v < 1<<62
	case int64:
		return v, v > -1<<62
	case json.Number:
		f, err := v.Float64()
		return int64(f), err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<62
	}
	return 0, false
}

// number returns the value of a number of a metric with the given exponent.
func number(v any, exp int8) (f float64, code wire.BadCode) {
	var n *big.Int
	switch v := v.(type) {
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return 0, wire.BadNumber
		}
		return v, 0
	case json.Number:
		f, err := v.Float64()
		if err != nil {
			return 0, wire.BadNumber
		}
		return f, 0
	case uint64:
		n = new(big.Int).SetUint64(v)
	case int64:
		n = big.NewInt(v)
	case big.Int:
		n = &v
	default:
		return 0, wire.BadType
	}
	if _, accuracy := new(big.Float).SetInt(n).Float64(); accuracy != big.Exact {
		return 0, wire.BadExact
	}
	r := new(big.Rat).SetInt(n)
	ten := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exp, -exp))), nil))
	if exp < 0 {
		r.Quo(r, ten)
	} else {
		r.Mul(r, ten)
	}
	f, _ = r.Float64()
	return f, 0
}

func refValue(v any, m *device.Metric) (device.Value, wire.BadCode) {
	switch v := v.(type) {
	case nil:
		return device.Value{}, 0
	case bool:
		if m.Kind != device.State {
			return device.Value{}, wire.BadType
		}
		return device.BoolValue(v), 0
	case string:
		if m.Kind != device.State && m.Kind != device.Text {
			return device.Value{}, wire.BadType
		}
		if len(v) > device.MaxTextLen || !utf8.ValidString(v) {
			return device.Value{}, wire.BadText
		}
		return device.TextValue(v), 0
	}
	f, code := number(v, m.Exp)
	if code == 0 && m.Kind == device.Text {
		code = wire.BadType
	}
	if code != 0 {
		return device.Value{}, code
	}
	return device.NumberValue(f), 0
}

// refReading is what a message says, value by value.
type refReading struct {
	reading
	bad wire.BadCode // if not zero, the reading is refused
}

// readings interprets the message. A refused row gives one refused reading.
func (m *refMessage) readings(s *device.Schema) []refReading {
	var out []refReading
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	row := func(r refRow, metrics []int, known bool) {
		width := len(metrics)
		var dt, q int64
		var ok bool
		refuse := func(code wire.BadCode) { out = append(out, refReading{bad: code}) }
		switch {
		case !known:
			refuse(wire.BadAlias)
			return
		case len(r.items) != width+2 && len(r.items) != width+3:
			refuse(wire.BadShape)
			return
		}
		if dt, ok = whole(r.items[1]); !ok || max(dt, -dt) > 2*device.MaxSpanMS {
			refuse(wire.BadTime)
			return
		}
		var row []refReading
		var faulty wire.BadCode
		quality := device.Quality(0)
		for i, p := range metrics {
			metric := &s.Metrics[p]
			v, code := refValue(r.items[2+i], metric)
			if code != 0 && faulty == 0 {
				faulty = code
			}
			if v.Type == device.Number && !metric.Plausible(v.Float()) {
				quality = device.OutOfRange
			}
			row = append(row, refReading{reading{metric.Name, m.base + dt, v, 0}, code})
		}
		if width == 1 && faulty != 0 && m.isSingle(r) {
			refuse(faulty)
			return
		}
		if len(r.items) == width+3 {
			if q, ok = whole(r.items[width+2]); !ok || q < 0 || q > 255 {
				refuse(wire.BadShape)
				return
			}
			quality |= device.Quality(q) & device.FromDevice
		}
		lo, hi := min(first, dt), max(last, dt)
		if dt < -device.MaxSpanMS || dt > device.MaxSpanMS || hi-lo > device.MaxSpanMS {
			refuse(wire.BadTime)
			return
		}
		first, last = lo, hi
		for i := range row {
			row[i].q = quality
		}
		out = append(out, row...)
	}
	for _, r := range m.sets {
		if n, ok := index0(r, 2); !ok {
			out = append(out, refReading{bad: wire.BadShape})
		} else {
			metrics, known := setMetrics(s, n)
			row(r, metrics, known)
		}
	}
	for _, r := range m.singles {
		n, ok := index0(r, 3)
		switch p := aliasOf(s, n); {
		case !ok || len(r.items) > 4:
			out = append(out, refReading{bad: wire.BadShape})
		case p < 0:
			out = append(out, refReading{bad: wire.BadAlias})
		default:
			row(r, []int{p}, true)
		}
	}
	return out
}

// isSingle reports whether r is one of the rows of single metrics.
func (m *refMessage) isSingle(r refRow) bool {
	for i := range m.singles {
		if len(m.singles[i].items) > 0 && len(r.items) > 0 && &m.singles[i].items[0] == &r.items[0] {
			return true
		}
	}
	return false
}

func index0(r refRow, least int) (n uint64, ok bool) {
	if !r.array || len(r.items) < least {
		return 0, false
	}
	i, ok := whole(r.items[0])
	return uint64(i), ok && i >= 0 && i <= math.MaxUint16
}

func setMetrics(s *device.Schema, n uint64) ([]int, bool) {
	for i := range s.Sets {
		if uint64(s.Sets[i].Index) == n {
			return s.Sets[i].Metrics, true
		}
	}
	return nil, false
}

func aliasOf(s *device.Schema, n uint64) int {
	for i := range s.Metrics {
		if uint64(s.Metrics[i].Alias) == n {
			return i
		}
	}
	return -1
}
