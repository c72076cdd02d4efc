package api

import (
	"fmt"
	"slices"
	"strings"

	"telemetryhub/device"
)

// aggregates are the names that agg takes. All but count, first and last need numbers; readings that are none are left
// out, and true and false count as 1 and 0.
var aggregates = []string{"avg", "min", "max", "sum", "count", "first", "last"}

func checkAggregate(name string) error {
	if !slices.Contains(aggregates, name) {
		return fmt.Errorf("%q is not an aggregate: use one of %s", name, strings.Join(aggregates, ", "))
	}
	return nil
}

// bucket gathers the readings of one step, which come in order of time.
type bucket struct {
	count       int64 // of all readings
	first, last device.Value

	numbers  int64 // how many of them are numbers
	min, max float64
	sum, rem float64 // Neumaier's sum: rem holds what sum has lost to rounding
}

func (b *bucket) add(v device.Value) {
	if b.count == 0 {
		b.first = v
	}
	b.last = v
	b.count++
	if v.Type != device.Number && v.Type != device.Bool {
		return
	}
	f := v.Float()
	if b.numbers == 0 {
		b.min, b.max = f, f
	}
	b.numbers++
	b.min, b.max = min(b.min, f), max(b.max, f)
	t := b.sum + f
	if abs(b.sum) >= abs(f) {
		b.rem += (b.sum - t) + f
	} else {
		b.rem += (f - t) + b.sum
	}
	b.sum = t
}

func abs(f float64) float64 {
	if f < 0 {
		return -f
	}
	return f
}

// value returns the aggregate of that name, and false if the bucket has nothing to make it from.
func (b *bucket) value(agg string) (device.Value, bool) {
	switch agg {
	case "count":
		return device.NumberValue(float64(b.count)), b.count > 0
	case "first":
		return b.first, b.count > 0
	case "last":
		return b.last, b.count > 0
	}
	if b.numbers == 0 {
		return device.Value{}, false
	}
	switch agg {
	case "min":
		return device.NumberValue(b.min), true
	case "max":
		return device.NumberValue(b.max), true
	case "sum":
		return device.NumberValue(b.sum + b.rem), true
	default: // avg: checkAggregate lets nothing else through
		return device.NumberValue((b.sum + b.rem) / float64(b.numbers)), true
	}
}
