package wire

import "fmt"

// BadCode says why a row, or one value of a row, was refused. JSON carries the name, CBOR the number; both are never
// changed or reused.
type BadCode uint8

// The codes of refused rows.
const (
	BadOther  BadCode = 1  // a code of a newer version
	BadShape  BadCode = 2  // the row is not an array of the right length, or its quality is not a number
	BadAlias  BadCode = 3  // the alias or set is not in the schema
	BadType   BadCode = 4  // the value does not fit the kind of the metric
	BadNumber BadCode = 5  // NaN, infinite, or beyond the range of a float64
	BadExact  BadCode = 6  // the integer is beyond 2^53 and not exact as a float64
	BadText   BadCode = 7  // the text is longer than device.MaxTextLen or not UTF-8
	BadTime   BadCode = 8  // the time is no integer, or further than 31 days from another row
	BadName   BadCode = 9  // by hand: not a metric name
	BadUnit   BadCode = 10 // by hand: the unit is too long or not printable
	BadSum    BadCode = 11 // SenML: sums are not supported
	BadData   BadCode = 12 // SenML: binary values are not supported
	BadEmpty  BadCode = 13 // SenML: a record with a name and without a value
	BadMore   BadCode = 14 // not a row: counts the faults that were left off the list
	BadLimit  BadCode = 15 // set by the hub: the device has too many metrics
	BadUnreg  BadCode = 16 // set by the hub: the metric could not be registered
)

var badNames = [...]string{
	BadOther: "other", BadShape: "shape", BadAlias: "alias", BadType: "type", BadNumber: "number", BadExact: "exact",
	BadText: "text", BadTime: "time", BadName: "name", BadUnit: "unit", BadSum: "sum", BadData: "data",
	BadEmpty: "empty", BadMore: "more", BadLimit: "limit", BadUnreg: "unreg",
}

// String returns the name that JSON carries.
func (c BadCode) String() string {
	if c == 0 || int(c) >= len(badNames) {
		return fmt.Sprintf("bad(%d)", uint8(c))
	}
	return badNames[c]
}

func badNamed(name string) BadCode {
	for c := BadOther; int(c) < len(badNames); c++ {
		if badNames[c] == name {
			return c
		}
	}
	return BadOther
}

// Bad is a fault in one row of a data message. The rest of the message stands.
type Bad struct {
	// Seq is the batch. Decoder.Data leaves it zero for messages that are not numbered.
	Seq uint64
	// Row counts the rows of the message from 0; in CBOR the rows of sets come first.
	Row int
	// Value is 0 if the whole row was refused. Otherwise it counts the values of the row from 1: that value was
	// refused and is absent, the others stand.
	Value int
	// Count is the number of readings that were lost by this fault, at least 1.
	Count int
	Code  BadCode
}

// badList collects faults up to MaxBad; the last entry counts the rest.
type badList []Bad

func (l *badList) add(b Bad) {
	switch n := len(*l); {
	case n < MaxBad-1:
		*l = append(*l, b)
	case n == MaxBad-1:
		*l = append(*l, Bad{Seq: b.Seq, Row: b.Row, Count: b.Count, Code: BadMore})
	default:
		(*l)[n-1].Count += b.Count
	}
}
