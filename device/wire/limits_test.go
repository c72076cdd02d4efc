package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

func decode(t *testing.T, x *wire.Index, frame string) (*device.Batch, []wire.Bad, error) {
	t.Helper()
	var d wire.Decoder
	var b device.Batch
	_, bad, err := d.Data(wire.JSON, []byte(frame), x, &b)
	return &b, bad, err
}

func TestAFrameOverTheLimitIsTooBig(t *testing.T) {
	x := index(t, greenhouse())
	big := []byte(`{"m":"data","r":[` + strings.Repeat(" ", wire.MaxFrame) + `]}`)
	var d wire.Decoder
	var b device.Batch
	_, peekErr := wire.Peek(wire.JSON, big)
	_, _, dataErr := d.Data(wire.JSON, big, x, &b)
	_, looseErr := d.Loose(wire.JSON, big, 0)
	_, helloErr := wire.DecodeHello(wire.JSON, big)
	_, ackErr := wire.DecodeAck(wire.CBOR, big)
	for _, err := range []error{peekErr, dataErr, looseErr, helloErr, ackErr} {
		if !errors.Is(err, wire.ErrTooBig) || wire.CloseFor(err) != wire.CloseTooBig {
			t.Errorf("got %v, want too big", err)
		}
	}
	fits := big[:wire.MaxFrame]
	copy(fits[wire.MaxFrame-2:], "]}")
	if _, _, err := d.Data(wire.JSON, fits, x, &b); err != nil {
		t.Errorf("a frame of exactly the limit: %v", err)
	}
}

func TestNestingIsLimitedInEveryDecoder(t *testing.T) {
	nested := func(depth int) string { return strings.Repeat("[", depth) + "1" + strings.Repeat("]", depth) }
	x := index(t, greenhouse())
	var d wire.Decoder
	for _, c := range []struct {
		depth int
		ok    bool
	}{{wire.MaxNesting - 1, true}, {wire.MaxNesting, false}, {20000, false}} {
		// The object is the first level.
		data := fmt.Sprintf(`{"m":"data","x":%s,"r":[]}`, nested(c.depth))
		if _, _, err := decode(t, x, data); (err == nil) != c.ok {
			t.Errorf("data, %d: %v", c.depth, err)
		}
		if _, err := wire.DecodeHello(wire.JSON, []byte(fmt.Sprintf(`{"m":"hello","x":%s}`, nested(c.depth)))); (err == nil) != c.ok {
			t.Errorf("hello, %d: %v", c.depth, err)
		}
		if _, err := d.Loose(wire.JSON, []byte(fmt.Sprintf(`{"t":1,"v":{},"x":%s}`, nested(c.depth))), 0); (err == nil) != c.ok {
			t.Errorf("envelope, %d: %v", c.depth, err)
		}
		hand := fmt.Sprintf(`{"a":1,"b":%s}`, nested(c.depth))
		if r, err := d.Loose(wire.JSON, []byte(hand), 0); (err == nil) != c.ok || c.ok && (r[0].Bad != 0 || r[1].Bad != wire.BadType) {
			t.Errorf("by hand, %d: %v, %v", c.depth, r, err)
		}
		if _, err := wire.Peek(wire.JSON, []byte(fmt.Sprintf(`{"x":%s}`, nested(c.depth)))); (err == nil) != c.ok {
			t.Errorf("peek, %d: %v", c.depth, err)
		}
		cbor := append([]byte{0x82, 0x01, 0xa1, 0x61, 'x'}, bytes.Repeat([]byte{0x81}, c.depth-1)...)
		if _, err := wire.DecodeHello(wire.CBOR, append(cbor, 0)); (err == nil) != c.ok {
			t.Errorf("hello in CBOR, %d: %v", c.depth, err)
		}
	}
}

func TestRowsLieWithin31Days(t *testing.T) {
	x := index(t, greenhouse())
	const span = device.MaxSpanMS
	for _, c := range []struct {
		dt   []int64
		want string // the rows that stand
	}{
		{[]int64{0, span}, "01"},
		{[]int64{0, span + 1}, "0"},
		{[]int64{0, -span}, "01"},
		{[]int64{0, -span - 1}, "0"},
		{[]int64{-span, span, 0}, "02"},
		{[]int64{1, -span, span}, "02"},
		{[]int64{math.MaxInt64 >> 10, 0}, "1"},
	} {
		var rows, got strings.Builder
		for i, dt := range c.dt {
			fmt.Fprintf(&rows, ",[1,%d,%d]", dt, i)
		}
		b, bad, err := decode(t, x, `{"m":"data","s":9,"t":1766000000123,"r":[`+rows.String()[1:]+`]}`)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Rows {
			got.WriteByte('0' + byte(r.Values[0].Float()))
		}
		if got.String() != c.want || len(bad) != len(c.dt)-len(c.want) {
			t.Errorf("%v: rows %s stand, want %s; bad %v", c.dt, &got, c.want, bad)
		}
		for _, e := range bad {
			if e.Code != wire.BadTime || e.Seq != 9 {
				t.Errorf("%v: %+v", c.dt, e)
			}
		}
	}
}

func TestRowsOfSetsLieWithin31DaysToo(t *testing.T) {
	x := index(t, greenhouse())
	var d wire.Decoder
	var b device.Batch
	// 1a 9f a5 24 00 is 31 days in ms, ...01 one more.
	frame := "\x85\x04\x01\x01\x82\x85\x01\x1a\x9f\xa5\x24\x01\x00\x00\x00\x85\x01\x1a\x9f\xa5\x24\x00\x00\x00\x00\x80"
	_, bad, err := d.Data(wire.CBOR, []byte(frame), x, &b)
	if err != nil || len(b.Rows) != 1 || len(bad) != 1 || bad[0] != (wire.Bad{Seq: 1, Count: 3, Code: wire.BadTime}) {
		t.Errorf("got %+v, %+v, %v", b.Rows, bad, err)
	}
}

func TestTheListOfBadRowsIsBoundedAndCountsAll(t *testing.T) {
	x := index(t, greenhouse())
	for _, n := range []int{1, wire.MaxBad - 1, wire.MaxBad, wire.MaxBad + 1, 5000} {
		_, bad, err := decode(t, x, `{"m":"data","r":[`+strings.Repeat("[9,0,1],", n)+`[1,0,1]]}`)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, e := range bad {
			sum += e.Count
		}
		if sum != n || len(bad) != min(n, wire.MaxBad) {
			t.Errorf("%d faults: %d entries that count %d", n, len(bad), sum)
		}
		if last := bad[len(bad)-1]; n > wire.MaxBad && last.Code != wire.BadMore {
			t.Errorf("%d faults: the last entry is %+v", n, last)
		}
	}
}

func TestAnAckWithTooManyBadRowsCountsTheRest(t *testing.T) {
	a := &wire.Ack{Seq: 7}
	for i := range 100 {
		a.Bad = append(a.Bad, wire.Bad{Seq: 7, Row: i, Count: 2, Code: wire.BadType})
	}
	for _, f := range []wire.Format{wire.JSON, wire.CBOR} {
		got, err := wire.DecodeAck(f, wire.AppendAck(nil, f, a))
		if err != nil || len(got.Bad) != wire.MaxBad {
			t.Fatalf("%s: %d entries, %v", f, len(got.Bad), err)
		}
		if last := got.Bad[wire.MaxBad-1]; last.Code != wire.BadMore || last.Count != 2*(100-wire.MaxBad+1) || last.Row != 31 {
			t.Errorf("%s: the last entry is %+v", f, last)
		}
	}
}

func TestCodesOfANewerVersionAreKeptAsOther(t *testing.T) {
	got, err := wire.DecodeAck(wire.JSON, []byte(`{"m":"ack","s":5,"bad":[{"s":5,"i":1,"code":"weather"}]}`))
	if err != nil || got.Bad[0].Code != wire.BadOther || got.Bad[0].Count != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	got, err = wire.DecodeAck(wire.CBOR, []byte{0x85, 7, 5, 0, 0, 0x81, 0x86, 5, 1, 0, 1, 0x18, 200, 0xf6})
	if err != nil || got.Bad[0].Code != wire.BadOther {
		t.Errorf("got %+v, %v", got, err)
	}
}

// TestLongIntegersAreExactOrRefused: CBOR integers around 2^53 and at both ends.
func TestLongIntegersAreExactOrRefused(t *testing.T) {
	x := index(t, greenhouse())
	for _, c := range []struct {
		item  string
		want  float64
		exact bool
	}{
		{"\x1b\x00\x20\x00\x00\x00\x00\x00\x00", 1 << 53, true},
		{"\x1b\x00\x20\x00\x00\x00\x00\x00\x01", 0, false},
		{"\x1b\x00\x20\x00\x00\x00\x00\x00\x02", 1<<53 + 2, true},
		{"\x1b\xff\xff\xff\xff\xff\xff\xff\xff", 0, false},
		{"\x1b\xff\xff\xff\xff\xff\xff\xf8\x00", 1<<64 - 1<<11, true},
		{"\x3b\x00\x1f\xff\xff\xff\xff\xff\xff", -(1 << 53), true},
		{"\x3b\x00\x20\x00\x00\x00\x00\x00\x00", 0, false},
		{"\x3b\x00\x20\x00\x00\x00\x00\x00\x01", -(1<<53 + 2), true},
		{"\x3b\xff\xff\xff\xff\xff\xff\xff\xff", -(1 << 64), true},
		{"\x3b\xff\xff\xff\xff\xff\xff\xff\xfe", 0, false},
	} {
		var d wire.Decoder
		var b device.Batch
		frame := "\x85\x04\x01\x01\x80\x81\x83\x19\x9c\x40\x00" + c.item
		_, bad, err := d.Data(wire.CBOR, []byte(frame), x, &b)
		switch {
		case err != nil:
			t.Errorf("%x: %v", c.item, err)
		case c.exact && (len(bad) > 0 || b.Rows[0].Values[0].Float() != c.want):
			t.Errorf("%x: got %+v %v, want %v", c.item, b.Rows, bad, c.want)
		case !c.exact && (len(bad) != 1 || bad[0].Code != wire.BadExact):
			t.Errorf("%x: got %+v %v, want a refusal", c.item, b.Rows, bad)
		}
	}
}

// TestTextsStayValidAfterTheNextFrame: values are reused, texts are not.
func TestTextsStayValidAfterTheNextFrame(t *testing.T) {
	x := index(t, greenhouse())
	var d wire.Decoder
	var b device.Batch
	frame := []byte(`{"m":"data","r":[[4,0,"open"],[6,0,"a\nb"],[6,1,"` + strings.Repeat("x", 100) + `"]]}`)
	if _, _, err := d.Data(wire.JSON, frame, x, &b); err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, r := range b.Rows {
		kept = append(kept, r.Values[0].Text())
	}
	for i := range frame {
		frame[i] = '#'
	}
	next := []byte(`{"m":"data","r":[[4,0,"shut"],[6,0,"c\nd"],[6,1,"` + strings.Repeat("y", 100) + `"]]}`)
	if _, _, err := d.Data(wire.JSON, next, x, &b); err != nil {
		t.Fatal(err)
	}
	if kept[0] != "open" || kept[1] != "a\nb" || kept[2] != strings.Repeat("x", 100) {
		t.Errorf("kept texts changed: %q", kept)
	}
}

func TestEncodingRefusesWhatTheOtherSideWould(t *testing.T) {
	x := index(t, greenhouse())
	num := device.NumberValue
	row := func(ref device.Ref, dt int64, v ...device.Value) device.Row {
		return device.Row{Ref: ref, TimeMS: 1766000000123 + dt, Values: v}
	}
	many := make([]device.Row, 4000)
	for i := range many {
		many[i] = row(device.SingleRef(5), 0, device.TextValue("0123456789abcdef"))
	}
	for name, rows := range map[string][]device.Row{
		"no such metric":    {row(device.SingleRef(7), 0, num(1))},
		"no such set":       {row(device.SetRef(2), 0, num(1))},
		"too few values":    {row(device.SetRef(0), 0, num(1))},
		"text for a gauge":  {row(device.SingleRef(0), 0, device.TextValue("x"))},
		"bool for a gauge":  {row(device.SingleRef(0), 0, device.BoolValue(true))},
		"number for a text": {row(device.SingleRef(5), 0, num(1))},
		"NaN":               {row(device.SingleRef(0), 0, num(math.NaN()))},
		"infinite":          {row(device.SingleRef(0), 0, num(math.Inf(1)))},
		"not UTF-8":         {row(device.SingleRef(5), 0, device.TextValue("\xff"))},
		"long text":         {row(device.SingleRef(5), 0, device.TextValue(strings.Repeat("x", device.MaxTextLen+1)))},
		"far":               {row(device.SingleRef(0), device.MaxSpanMS+1, num(1))},
		"far apart":         {row(device.SingleRef(0), -device.MaxSpanMS, num(1)), row(device.SingleRef(0), 1, num(1))},
		"overflow":          {{Ref: device.SingleRef(0), TimeMS: math.MinInt64, Values: []device.Value{num(1)}}},
		"too big":           many,
	} {
		for _, f := range []wire.Format{wire.JSON, wire.CBOR} {
			out, err := wire.AppendData([]byte("before"), f, x, &device.Batch{Seq: 1, BaseMS: 1766000000123, Rows: rows}, 0)
			want := wire.ErrProtocol
			if name == "too big" {
				want = wire.ErrTooBig
			}
			if !errors.Is(err, want) || string(out) != "before" {
				t.Errorf("%s, %s: got %q, %v", name, f, out, err)
			}
		}
	}
	if _, err := wire.AppendState(nil, wire.JSON, x, &device.Batch{Seq: 1}, 0); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("a state with a number: %v", err)
	}
}

func TestResolveMovesRelativeBatchesOnly(t *testing.T) {
	const arrival = 1766000000123
	b := &device.Batch{BaseMS: -5000, Rows: []device.Row{{TimeMS: -5000}, {TimeMS: 0}}}
	if !wire.Resolve(b, arrival) || b.BaseMS != arrival-5000 || b.Rows[0].TimeMS != arrival-5000 || b.Rows[1].TimeMS != arrival {
		t.Errorf("got %+v", b)
	}
	if wire.Resolve(b, arrival) || b.Rows[1].TimeMS != arrival {
		t.Errorf("moved twice: %+v", b)
	}
}

func TestABatchHasAtMostMaxRows(t *testing.T) {
	x := index(t, greenhouse())
	var d wire.Decoder
	var b device.Batch
	for _, n := range []uint16{device.MaxRows, device.MaxRows + 1} {
		frame := append([]byte{0x85, 4, 1, 1, 0x80, 0x99, byte(n >> 8), byte(n)}, make([]byte, n)...)
		if _, _, err := d.Data(wire.CBOR, frame, x, &b); (err == nil) != (n == device.MaxRows) {
			t.Errorf("%d rows: %v", n, err)
		}
		text := `{"m":"data","r":[` + strings.Repeat("7,", int(n)-1) + `7]}` // bad ones are short enough to fit a frame
		if _, _, err := decode(t, x, text); (err == nil) != (n == device.MaxRows) {
			t.Errorf("%d rows in JSON: %v", n, err)
		}
	}
}

// TestHalfFloatsAreWidened: the values of RFC 8949 appendix A and the limits of the format.
func TestHalfFloatsAreWidened(t *testing.T) {
	x := index(t, greenhouse())
	for bits, want := range map[uint16]float64{
		0x0000: 0, 0x3c00: 1, 0x3e00: 1.5, 0x7bff: 65504, 0x0001: 5.960464477539063e-8, 0x0400: 0.00006103515625,
		0xc400: -4, 0x8000: math.Copysign(0, -1), 0x83ff: -0.00006097555160522461,
	} {
		var d wire.Decoder
		var b device.Batch
		frame := []byte{0x85, 4, 1, 1, 0x80, 0x81, 0x83, 0x19, 0x9c, 0x40, 0, 0xf9, byte(bits >> 8), byte(bits)}
		if _, bad, err := d.Data(wire.CBOR, frame, x, &b); err != nil || len(bad) > 0 {
			t.Fatalf("%04x: %v %v", bits, err, bad)
		}
		if got := b.Rows[0].Values[0]; !got.Equal(device.NumberValue(want)) {
			t.Errorf("%04x: got %v, want %v", bits, got.Float(), want)
		}
	}
}

// TestJSONNumbersMeanTheNearestFloat: the short way and the long way of reading give what strconv gives.
func TestJSONNumbersMeanTheNearestFloat(t *testing.T) {
	x := index(t, greenhouse())
	for _, text := range []string{
		"0", "-0", "0.0", "1", "21.37", "-1e-3", "1E+2", "9007199254740993", "18446744073709551617", "184467440737095516170",
		"0.1", "123456789012345678901234567890", "1e22", "1e23", "-1.7976931348623157e308", "5e-324", "1e-400",
		"0.00000000000000000000000000000001", "8.41e21", "9.5367431640625e-7", "2.2250738585072011e-308",
		"10000000000000000000000e-22", "1e-22", "1e-23", "7.0000000000000001", "1e00000000000000000001",
	} {
		want, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		b, bad, err := decode(t, x, `{"m":"data","r":[[40000,0,`+text+`]]}`)
		if err != nil || len(bad) > 0 || !b.Rows[0].Values[0].Equal(device.NumberValue(want)) {
			t.Errorf("%s: got %+v %v %v, want %v", text, b.Rows, bad, err, want)
		}
	}
	for _, text := range []string{"01", "-", "1.", ".5", "+1", "1e", "1e+", "0x1", "NaN", "Infinity", "1_000", "--1", "1.e1", "-01"} {
		if _, _, err := decode(t, x, `{"m":"data","r":[[40000,0,`+text+`]]}`); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: got %v, want a protocol error", text, err)
		}
	}
}

func TestWholeNumbersInJSON(t *testing.T) {
	x := index(t, greenhouse())
	for text, want := range map[string]int64{
		"5": 5, "0": 0, "-0": 0, "5.0": 5, "5e0": 5, "0.5e1": 5, "50e-1": 5, "-5": -5, "999999999999999": 999999999999999,
		"1766000000123": 1766000000123, "9007199254740991": 9007199254740991, "-9007199254740991": -9007199254740991,
	} {
		if b, _, err := decode(t, x, `{"m":"data","t":`+text+`,"r":[]}`); err != nil || b.BaseMS != want {
			t.Errorf("%s: got %d, %v", text, b.BaseMS, err)
		}
	}
	for _, text := range []string{"05", "5.5", "1e-1", "9007199254740992", "1e300", "1e999", "5x", "00", "", `"5"`, "[5]"} {
		if b, _, err := decode(t, x, `{"m":"data","t":`+text+`,"r":[]}`); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: got %d, %v", text, b.BaseMS, err)
		}
	}
}

func TestMalformedJSONIsRefused(t *testing.T) {
	x := index(t, greenhouse())
	for _, text := range []string{
		"", " ", "{", "}", `{"m"}`, `{"m":"data"`, `{"m":"data","r":[]`, `{"m":"data","r":[]}}`, `{"m":"data","r":[]} x`,
		`{"m":"data","r":[],}`, `{,"m":"data","r":[]}`, `{"m":"data","r":[,]}`, `{"m":"data","r":[[1,0,1],]}`,
		`{"m":"data","r":[[1,0,1]`, `{"m":"data","r":[[1 0 1]]}`, `{'m':"data","r":[]}`, `{"m":"data","r":[] "t":1}`,
		"{\"m\":\"data\",\"r\":[[6,0,\"a\nb\"]]}", "{\"m\":\"data\",\"x\":\"\x00\",\"r\":[]}", `{"m":"data","x":"\x","r":[]}`,
		`{"m":"data","x":"\u12g4","r":[]}`, `{"m":"data","x":"\u12`, `{"m":"data","x":tru,"r":[]}`, `{"m":"data","x":nul}`,
		"{\"m\":\"data\",\"x\":\"\xff\",\"r\":[]}", `{"m":"data","t":1,"t":1,"r":[]}`, `{"m":"data","r":[],"r":[]}`, `[]`,
		`{"m":"data","tq":3,"r":[]}`, `{"m":"data","tq":-1,"r":[]}`, `{"m":"data","s":-1,"r":[]}`, `{"m":"data","r":{}}`,
		`{"m":"data","r":null}`, `{"m":"data","t":"1","r":[]}`, `{"m":"state","r":[]}`, `{"r":[]}`, `{"m":5,"r":[]}`,
	} {
		if _, _, err := decode(t, x, text); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: got %v, want a protocol error", text, err)
		}
	}
}

func TestQualityIsMaskedAndOutOfRangeIsSet(t *testing.T) {
	x := index(t, greenhouse())
	var d wire.Decoder
	var b device.Batch
	// Sets: within range, one value below; single: above, with all bits sent.
	frame := "\x85\x04\x01\x01\x82\x86\x01\x00\x00\x1a\x00\x0f\x76\x06\x00\x18\xff" +
		"\x85\x01\x00\x00\x00\x00\x81\x84\x01\x00\x19\x4e\x20\x18\xff"
	if _, bad, err := d.Data(wire.CBOR, []byte(frame), x, &b); err != nil || len(bad) > 0 {
		t.Fatal(bad, err)
	}
	var got []device.Quality
	for _, r := range b.Rows {
		got = append(got, r.Quality)
	}
	want := []device.Quality{device.FromDevice, device.OutOfRange, device.FromDevice | device.OutOfRange}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	j, _, err := decode(t, x, `{"m":"data","r":[[1,0,-41,255],[1,1,20],[1,2,85.01],[1,3,0,255]]}`)
	if err != nil {
		t.Fatal(err)
	}
	got = got[:0]
	for _, r := range j.Rows {
		got = append(got, r.Quality)
	}
	if want := []device.Quality{31, 0, 16, 15}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAnAckIsOnlyAnAck(t *testing.T) {
	good := wire.AppendAck(nil, wire.CBOR, &wire.Ack{Seq: 5, Bad: []wire.Bad{{Seq: 5, Count: 1, Code: wire.BadType}}})
	if _, err := wire.DecodeAck(wire.CBOR, good); err != nil {
		t.Fatal(err)
	}
	for name, frame := range map[string]string{
		"another number":     "\x85\x19\x01\x07\x05\x00\x00\x80",
		"a wide window":      "\x85\x07\x05\x1b\x00\x00\x00\x01\x00\x00\x00\x00\x00\x80",
		"a negative number":  "\x85\x07\x20\x00\x00\x80",
		"too short":          "\x84\x07\x05\x00\x00",
		"a short entry":      "\x85\x07\x05\x00\x00\x81\x84\x05\x00\x00\x01",
		"a wide row":         "\x85\x07\x05\x00\x00\x81\x85\x05\x1a\x00\x01\x00\x00\x00\x01\x04",
		"something after it": string(good) + "\x00",
		"cut":                string(good[:len(good)-1]),
	} {
		if a, err := wire.DecodeAck(wire.CBOR, []byte(frame)); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
}
