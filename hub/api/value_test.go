package api

import (
	"encoding/csv"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/device"
)

func TestNumbersComeBackExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Float64().Filter(func(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }).Draw(t, "f")
		text := appendNumber(nil, want)
		var got float64
		if err := json.Unmarshal(text, &got); err != nil || math.Float64bits(got) != math.Float64bits(want) {
			t.Fatalf("%v was written as %s, which reads as %v, %v", want, text, got, err)
		}
	})
}

func TestNumbersAreShort(t *testing.T) {
	for _, c := range []struct {
		f    float64
		want string
	}{
		{0, "0"}, {math.Copysign(0, -1), "-0"}, {21.37, "21.37"}, {101325.4, "101325.4"}, {-40, "-40"}, {1e6, "1000000"},
		{1 << 53, "9007199254740992"}, {1e20, "100000000000000000000"}, {1e21, "1e+21"}, {1e-6, "0.000001"}, {1e-7, "1e-07"},
		{0.30000000000000004, "0.30000000000000004"}, {math.MaxFloat64, "1.7976931348623157e+308"}, {5e-324, "5e-324"},
		{math.NaN(), "null"}, {math.Inf(1), "null"},
	} {
		if got := string(appendNumber(nil, c.f)); got != c.want {
			t.Errorf("%v is written as %s, want %s", c.f, got, c.want)
		}
	}
}

func TestTextsComeBackAndCannotBeMarkup(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, want string) {
		text := appendJSON(nil, device.TextValue(want))
		var got string
		if err := json.Unmarshal(text, &got); err != nil || got != want {
			t.Fatalf("%q was written as %s, which reads as %q, %v", want, text, got, err)
		}
		if strings.ContainsAny(string(text), "<>&\n") {
			t.Fatalf("%s could be taken for markup", text)
		}
	}
	for _, s := range []string{"", "offen", `a"b\c`, "<script>&amp;", "a\nb\tc\x00\x7f", "grün \u2028 \u2029 🌡"} {
		check(t, s)
	}
	rapid.Check(t, func(t *rapid.T) { check(t, rapid.String().Draw(t, "s")) })
}

func TestCSVTextsAreNoFormulas(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"open", "open"}, {`say "hi", twice`, `say "hi", twice`}, {"", ""},
		{"=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"}, {"+1", "'+1"}, {"-1", "'-1"}, {"@SUM(A1)", "'@SUM(A1)"}, {"\t=1", "'\t=1"}, {"\r=1", "'\r=1"},
	} {
		line := appendCSV(nil, device.TextValue(c.in))
		rows, err := csv.NewReader(strings.NewReader(string(line) + ",1\n")).ReadAll()
		if err != nil || len(rows) != 1 || len(rows[0]) != 2 {
			t.Fatalf("%q is written as %s, which reads as %q, %v", c.in, line, rows, err)
		}
		// encoding/csv turns a carriage return before a line feed away, none of which stands here.
		if rows[0][0] != c.want {
			t.Errorf("%q reads back as %q, want %q", c.in, rows[0][0], c.want)
		}
	}
	if got := string(appendCSV(nil, device.NumberValue(-1.5))); got != "-1.5" {
		t.Errorf("a negative number is written as %s", got)
	}
}
