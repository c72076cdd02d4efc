package device

import (
	"math"
	"strconv"
	"strings"
)

// Unit is what is known of one quantity: the unit it is stored in, and how others call and show it. Values are always
// stored in the unit that was sent; conversion is for display only.
type Unit struct {
	// Quantity is what is measured ("temperature"). It is unique.
	Quantity string
	// Name is the stored unit, a SenML name where there is one (RFC 8428 section 12.1, RFC 8798). It is unique.
	Name string
	// Display are the units that the quantity is shown in. The first is the usual one.
	Display []Display
	// UCUM is the name of the stored unit in UCUM, empty if there is none.
	UCUM string
	// Class is the device_class of a Home Assistant sensor, empty if none fits.
	Class string
	// Kind is what metrics of this quantity are unless they say otherwise.
	Kind Kind
	// Step is the difference, in the stored unit, that is worth showing.
	Step float64
	// Lo and Hi bound what sensors can reasonably measure, in the stored unit. NaN means no limit.
	Lo, Hi float64
}

// Display is a unit for people: shown = stored*Mul/Div + Offset. Factors that are ratios of whole numbers are given as
// such, because 9/5 is exact and 0.5555… is not.
type Display struct {
	// Symbol is what people read ("°C").
	Symbol           string
	Mul, Div, Offset float64
}

// StateClass returns the state_class of a Home Assistant sensor for metrics of the kind, empty for states and texts.
func (k Kind) StateClass() string {
	switch k {
	case Gauge:
		return "measurement"
	case Counter:
		return "total_increasing"
	}
	return ""
}

// Show returns v, given in the stored unit, in the display unit.
func (d Display) Show(v float64) float64 { return v*d.Mul/d.Div + d.Offset }

// Store is the inverse of Show, apart from rounding.
func (d Display) Store(v float64) float64 { return (v - d.Offset) * d.Div / d.Mul }

// same is the unit that is shown as it is stored.
func same(symbol string) Display { return Display{Symbol: symbol, Mul: 1, Div: 1} }

// LookupUnit returns the entry whose stored unit is name, and false for a unit that is not in the table. Such a unit is
// allowed; it is shown as it is and never converted.
func LookupUnit(name string) (Unit, bool) {
	return find(func(u *Unit) bool { return u.Name == name })
}

// LookupQuantity returns the entry of a quantity.
func LookupQuantity(quantity string) (Unit, bool) {
	return find(func(u *Unit) bool { return u.Quantity == quantity })
}

// UnitFromHuman returns the stored unit that a person means by a symbol ("°C", "hPa", "%"), a stored unit or a UCUM name,
// and the display unit that it stands for: d.Store turns values in it into the stored unit. Case matters, space around
// it does not. For anything else ok is false.
//
// "%" means percent. Only SenML uses it for a ratio, which its decoder sees to.
func UnitFromHuman(symbol string) (name string, d Display, ok bool) {
	symbol = strings.TrimSpace(symbol)
	if symbol == "" {
		return "", Display{}, false
	}
	if alias, found := spellings[symbol]; found {
		symbol = alias
	}
	if u, found := LookupUnit(symbol); found {
		return u.Name, same(u.Name), true
	}
	if symbol == "%" {
		return "/100", same("%"), true
	}
	for i := range units {
		for _, d := range units[i].Display {
			if d.Symbol == symbol {
				return units[i].Name, d, true
			}
		}
	}
	if u, found := find(func(u *Unit) bool { return u.UCUM == symbol && symbol != "1" }); found {
		return u.Name, same(u.Name), true
	}
	return "", Display{}, false
}

// Convert turns v from one unit into another. Both may be stored units or display symbols of the same quantity. If they
// are not, or if one of them is not in the table, ok is false, unless both are the same text.
func Convert(v float64, from, to string) (out float64, ok bool) {
	if from == to {
		return v, true
	}
	for i := range units {
		u := &units[i]
		f, found := u.display(from)
		if !found {
			continue
		}
		if t, found := u.display(to); found {
			return t.Show(f.Store(v)), true
		}
	}
	return 0, false
}

// display returns the display unit with the symbol; the stored unit counts as one.
func (u *Unit) display(symbol string) (Display, bool) {
	if symbol == u.Name {
		return same(u.Name), true
	}
	for _, d := range u.Display {
		if d.Symbol == symbol {
			return d, true
		}
	}
	return Display{}, false
}

// Format returns v, given in the stored unit, as people read it: in the usual display unit, rounded to Step.
func (u Unit) Format(v float64) string {
	d := u.Display[0]
	decimals := max(0, int(math.Ceil(-math.Log10(u.Step*d.Mul/d.Div)-1e-9)))
	text := strconv.FormatFloat(d.Show(v), 'f', decimals, 64)
	if d.Symbol == "" {
		return text
	}
	return text + " " + d.Symbol
}

// Units calls yield for every entry of the table until yield returns false.
func Units(yield func(Unit) bool) {
	for i := range units {
		if !yield(units[i].clone()) {
			return
		}
	}
}

func find(match func(*Unit) bool) (Unit, bool) {
	for i := range units {
		if match(&units[i]) {
			return units[i].clone(), true
		}
	}
	return Unit{}, false
}

func (u *Unit) clone() Unit {
	c := *u
	c.Display = append([]Display(nil), u.Display...)
	return c
}
