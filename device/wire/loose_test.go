package wire_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

const now = 1766000000123

func loose(t *testing.T, frame string) ([]wire.Reading, error) {
	t.Helper()
	var d wire.Decoder
	return d.Loose(wire.JSON, []byte(frame), now)
}

// TestSenMLTimes: base time and time are added; below 2^28 s the sum is relative to now (RFC 8428 section 4.5.3).
func TestSenMLTimes(t *testing.T) {
	for _, c := range []struct {
		record string
		want   int64
		ok     bool
	}{
		{`"n":"a","v":1`, 0, true},
		{`"bt":0,"t":0,"n":"a","v":1`, 0, true},
		{`"t":-1,"n":"a","v":1`, now - 1000, true},
		{`"t":-0.0015,"n":"a","v":1`, now - 2, true},
		{`"t":5,"n":"a","v":1`, now + 5000, true},
		{`"bt":1.276020076e9,"t":-5,"n":"a","v":1`, 1276020071000, true},
		{`"bt":1766000000.123,"n":"a","v":1`, 1766000000123, true},
		{`"t":268435455,"n":"a","v":1`, now + 268435455000, true},
		{`"t":268435456,"n":"a","v":1`, 268435456000, true},
		{`"t":1e300,"n":"a","v":1`, 0, false},
		{`"t":-1e16,"n":"a","v":1`, 0, false},
		{`"t":"now","n":"a","v":1`, 0, false},
		{`"t":1e999,"n":"a","v":1`, 0, false},
	} {
		r, err := loose(t, `[{`+c.record+`}]`)
		if err != nil || len(r) != 1 {
			t.Errorf("%s: %v, %v", c.record, r, err)
			continue
		}
		if c.ok && (r[0].Bad != 0 || r[0].TimeMS != c.want) || !c.ok && r[0].Bad != wire.BadTime {
			t.Errorf("%s: got %d, %s, want %d", c.record, r[0].TimeMS, r[0].Bad, c.want)
		}
	}
}

func TestSenMLBaseValueAndUnit(t *testing.T) {
	r, err := loose(t, `[{"bn":"s/","bu":"V","bv":20,"n":"a","v":1.5},{"n":"b","u":"A","v":-20},{"n":"c","vs":"x"},
		{"bn":"z/","bv":1e308,"n":"d","v":1e308},{"bu":"%","bv":0.25,"n":"e","v":0.5},{"n":"f","u":"x\u0007","v":1}]`)
	if err != nil || len(r) != 6 {
		t.Fatal(r, err)
	}
	want := []string{"s/a V 21.5", "s/b A 0", "s/c V x", "z/d V number", "z/e /100 75", "z/f  unit"}
	for i := range r {
		got := fmt.Sprintf("%s %s %v", r[i].Name, r[i].Unit, neutralValue(r[i].Value))
		if r[i].Bad != 0 {
			got = fmt.Sprintf("%s %s %s", r[i].Name, r[i].Unit, r[i].Bad)
		}
		if got != want[i] {
			t.Errorf("record %d: got %q, want %q", i, got, want[i])
		}
	}
}

// TestSenMLRatiosBecomePercentExactly: the decimal point moves, nothing is rounded twice.
func TestSenMLRatiosBecomePercentExactly(t *testing.T) {
	for _, c := range []struct {
		ratio string
		want  float64
	}{{"0.57", 57}, {"0.58", 58}, {"0.29", 29}, {"1", 100}, {"0", 0}, {"-0.07", -7}, {"1e-7", 1e-5}, {"1.7e307", math.NaN()}} {
		r, err := loose(t, `[{"n":"a","u":"%","v":`+c.ratio+`}]`)
		if err != nil || len(r) != 1 {
			t.Fatal(r, err)
		}
		if math.IsNaN(c.want) {
			if r[0].Bad != wire.BadNumber {
				t.Errorf("%s: got %+v, want a refusal", c.ratio, r[0])
			}
			continue
		}
		if r[0].Value.Float() != c.want || r[0].Unit != "/100" {
			t.Errorf("%s: got %v %s, want %v", c.ratio, r[0].Value.Float(), r[0].Unit, c.want)
		}
	}
}

func TestPacksAndPlainObjectsThatAreRefused(t *testing.T) {
	var keys []string
	for i := range device.MaxMetrics + 1 {
		keys = append(keys, fmt.Sprintf(`"m%d":1`, i))
	}
	if r, err := loose(t, `{`+strings.Join(keys[1:], ",")+`}`); err != nil || len(r) != device.MaxMetrics {
		t.Errorf("as many metrics as are allowed: %d, %v", len(r), err)
	}
	for _, frame := range []string{
		`{` + strings.Join(keys, ",") + `}`,
		`[{"n":"a","n":"b","v":1}]`,
		`[{"n":"a","v":1,"x_":1}]`,
		`[{"bver":11,"n":"a","v":1}]`,
		`[{"bver":"10","n":"a","v":1}]`,
		`[{"bt":"1","n":"a","v":1}]`,
		`[{"bn":5,"n":"a","v":1}]`,
		`[{"bn":"` + strings.Repeat("x", 129) + `","n":"a","v":1}]`,
		`[{"bu":"` + strings.Repeat("x", 33) + `","n":"a","v":1}]`,
		`[{"bv":1e999,"n":"a","v":1}]`,
		`[{"n":"a","v":1},5]`,
		`[{"n":"a","v":1}`,
		`{"t":1.5,"v":{"a":1}}`,
		`{"t":1,"t":1,"v":{"a":1}}`,
		`{"v":{"a":1},"v":{"a":1}}`,
		`{"v":{"a":1,"a":1}}`,
		`{"a":1}{"a":1}`,
		`{"m":"data","s":1,"r":[]}`,
		`{"a":"\ud800"}`,
	} {
		if r, err := loose(t, frame); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%.80s: got %v, %v", frame, r, err)
		}
	}
}

func TestAFaultByHandCostsOneReading(t *testing.T) {
	long := strings.Repeat("é", 40)
	r, err := loose(t, `{"a":1,"`+long+`":1,"status/x":1,"b":"`+strings.Repeat("x", 4097)+`","c":[1],"d":1e999,"e":"`+
		strings.Repeat("x", 4096)+`","f":null}`)
	if err != nil {
		t.Fatal(err)
	}
	want := []wire.BadCode{0, wire.BadName, wire.BadName, wire.BadText, wire.BadType, wire.BadNumber, 0}
	if len(r) != len(want) {
		t.Fatalf("got %d readings, want %d", len(r), len(want))
	}
	for i := range r {
		if r[i].Bad != want[i] || len(r[i].Name) > device.MaxNameLen {
			t.Errorf("reading %d: got %q %s, want %s", i, r[i].Name, r[i].Bad, want[i])
		}
	}
}

// TestALongBaseNameCostsNoMemory: thousands of records with a name of which only a part is kept.
func TestALongBaseNameCostsNoMemory(t *testing.T) {
	frame := `[{"bn":"` + strings.Repeat("x", 128) + `"}` + strings.Repeat(`,{"n":"a","v":1}`, 4000) + `]`
	r, err := loose(t, frame)
	if err != nil || len(r) != 4000 || r[0].Bad != wire.BadName || len(r[0].Name) != device.MaxNameLen {
		t.Errorf("got %d readings, %v", len(r), err)
	}
}

// TestNullIsAnAbsentKeyInEveryForm: also where the key has a type of its own.
func TestNullIsAnAbsentKeyInEveryForm(t *testing.T) {
	x := index(t, greenhouse())
	b, bad, err := decode(t, x, `{"m":"data","s":null,"t":null,"tq":null,"new":null,"r":[[1,0,21.5]]}`)
	if err != nil || len(bad) != 0 || len(b.Rows) != 1 || b.Seq != 0 || b.BaseMS != 0 {
		t.Errorf("data: %+v, %v, %v", b, bad, err)
	}
	for _, frame := range []string{
		`{"m":"data","r":null}`, `{"m":"data","s":null,"s":1,"r":[]}`, `{"m":"data","t":nul,"r":[]}`,
	} {
		if _, _, err := decode(t, x, frame); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%s: got %v, want a protocol error", frame, err)
		}
	}
	for frame, want := range map[string]string{
		`{"t":null,"v":{"a":1}}`:                            "a  0 ok",
		`[{"bn":null,"bt":null,"bver":null,"n":"a","v":1}]`: "a  0 ok",
		`[{"bu":"Cel","u":null,"n":"a","v":1,"t":null}]`:    "a Cel 0 ok",
		`[{"n":"a","vs":null,"v":1}]`:                       "a  0 ok",
		`[{"n":"a","v":null}]`:                              "a  0 empty",
		`{"t":null,"t":5,"v":{"a":1}}`:                      "error",
		`[{"n":"a","v":null,"v":1}]`:                        "error",
	} {
		r, err := loose(t, frame)
		got := "error"
		if err == nil && len(r) == 1 {
			fault := "ok"
			if r[0].Bad != 0 {
				fault = r[0].Bad.String()
			}
			got = fmt.Sprintf("%s %s %d %s", r[0].Name, r[0].Unit, r[0].TimeMS, fault)
		}
		if got != want {
			t.Errorf("%s: got %q (%v), want %q", frame, got, err, want)
		}
	}
}
