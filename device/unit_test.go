package device_test

import (
	"math"
	"testing"

	"telemetryhub/device"
)

func TestEveryUnitKeepsTheRulesOfTheTable(t *testing.T) {
	quantities, names := map[string]bool{}, map[string]bool{}
	for u := range device.Units {
		if u.Quantity == "" || u.Name == "" || quantities[u.Quantity] || names[u.Name] {
			t.Errorf("%q, %q: empty or not unique", u.Quantity, u.Name)
		}
		quantities[u.Quantity], names[u.Name] = true, true
		if len(u.Name) > device.MaxUnitLen || u.Step <= 0 || u.Lo >= u.Hi || u.Kind.StateClass() == "" && u.Quantity != "state" {
			t.Errorf("%s: name, step, range or kind are wrong: %+v", u.Quantity, u)
		}
		if len(u.Display) == 0 {
			t.Errorf("%s: nothing to show it in", u.Quantity)
		}
		symbols := map[string]bool{}
		for _, d := range u.Display {
			if symbols[d.Symbol] || d.Mul <= 0 || d.Div <= 0 {
				t.Errorf("%s: display unit %+v", u.Quantity, d)
			}
			symbols[d.Symbol] = true
			for _, v := range []float64{0, 1, -17.5, 12345.678} {
				if back := d.Store(d.Show(v)); math.Abs(back-v) > 1e-9*max(1, math.Abs(v)) {
					t.Errorf("%s: %v became %v through %s", u.Quantity, v, back, d.Symbol)
				}
			}
		}
		if got, ok := device.LookupUnit(u.Name); !ok || got.Quantity != u.Quantity {
			t.Errorf("LookupUnit(%q) gives %q, %v", u.Name, got.Quantity, ok)
		}
		if got, ok := device.LookupQuantity(u.Quantity); !ok || got.Name != u.Name {
			t.Errorf("LookupQuantity(%q) gives %q, %v", u.Quantity, got.Name, ok)
		}
		if name, d, ok := device.UnitFromHuman(u.Name); !ok || name != u.Name || d.Store(5) != 5 {
			t.Errorf("UnitFromHuman(%q) gives %q, %+v, %v", u.Name, name, d, ok)
		}
	}
	if len(names) < 25 {
		t.Errorf("only %d units", len(names))
	}
}

func TestConvert(t *testing.T) {
	for _, c := range []struct {
		v        float64
		from, to string
		want     float64
	}{
		{100, "Cel", "°F", 212},
		{-40, "°F", "°C", -40},
		{0, "Cel", "K", 273.15},
		{101325, "Pa", "hPa", 1013.25},
		{1013.25, "hPa", "Pa", 101325},
		{5, "kWh", "MJ", 18},
		{10, "m/s", "km/h", 36},
		{1, "in", "m", 0.0254},
		{1, "in", "mm", 25.4},
		{5e-5, "T", "µT", 50},
		{7200, "s", "h", 2},
		{57, "/100", "%", 57},
		{47, "%RH", "%", 47},
		{3, "furlong", "furlong", 3},
	} {
		if got, ok := device.Convert(c.v, c.from, c.to); !ok || got != c.want {
			t.Errorf("Convert(%v, %q, %q) = %v, %v, want %v", c.v, c.from, c.to, got, ok, c.want)
		}
	}
	for _, c := range [][2]string{{"Cel", "Pa"}, {"Cel", "furlong"}, {"furlong", "Cel"}, {"%RH", "%EL"}} {
		if got, ok := device.Convert(1, c[0], c[1]); ok {
			t.Errorf("Convert(1, %q, %q) = %v, want a refusal", c[0], c[1], got)
		}
	}
}

func TestUnitFromHuman(t *testing.T) {
	for _, c := range []struct {
		symbol, name string
		in, stored   float64
	}{
		{"°C", "Cel", 21, 21},
		{" degC ", "Cel", 21, 21},
		{"°F", "Cel", 212, 100},
		{"%", "/100", 57, 57},
		{"%RH", "%RH", 57, 57},
		{"hPa", "Pa", 1013.25, 101325},
		{"mbar", "Pa", 1013.25, 101325},
		{"µg/m³", "ug/m3", 5, 5},
		{"μg/m³", "ug/m3", 5, 5}, // the Greek letter
		{"kW.h", "kWh", 5, 5},
		{"mm", "mm", 5, 5},
		{"g", "kg", 500, 0.5},
		{"Ω", "Ohm", 5, 5},
	} {
		name, d, ok := device.UnitFromHuman(c.symbol)
		if !ok || name != c.name || d.Store(c.in) != c.stored {
			t.Errorf("UnitFromHuman(%q) = %q, %+v, %v; want %q and %v stored as %v", c.symbol, name, d, ok, c.name, c.in, c.stored)
		}
	}
	for _, symbol := range []string{"", "1", "furlong", "CEL"} {
		if name, _, ok := device.UnitFromHuman(symbol); ok {
			t.Errorf("UnitFromHuman(%q) = %q, want nothing", symbol, name)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		name string
		v    float64
		want string
	}{
		{"Cel", 21.37, "21.4 °C"},
		{"Pa", 101325.4, "1013.3 hPa"},
		{"ppm", 843.4, "843 ppm"},
		{"T", 4.8e-5, "48.0 µT"},
		{"%RH", 47.31, "47.3 %"},
		{"count", 12, "12"},
	} {
		u, _ := device.LookupUnit(c.name)
		if got := u.Format(c.v); got != c.want {
			t.Errorf("%v %s is shown as %q, want %q", c.v, c.name, got, c.want)
		}
	}
}

func TestTheTableCannotBeChanged(t *testing.T) {
	u, _ := device.LookupUnit("Cel")
	u.Display[0].Symbol = "changed"
	if again, _ := device.LookupUnit("Cel"); again.Display[0].Symbol != "°C" {
		t.Error("a caller changed the table")
	}
}
