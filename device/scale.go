package device

import "math"

// MaxExp is the greatest magnitude of Metric.Exp. Powers of ten up to 10^22 are exact float64 numbers, so one division
// or multiplication of an integer below 2^53 is correctly rounded.
const MaxExp = 15

var pow10 = [MaxExp + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// maxInt is the first integer with a neighbour that float64 cannot tell from it.
const maxInt = 1 << 53

// Unscale returns i times ten to the exp as the nearest float64, and false if that is not certain because i or exp is
// too large.
func Unscale(i int64, exp int8) (float64, bool) {
	if i <= -maxInt || i >= maxInt || exp < -MaxExp || exp > MaxExp {
		return 0, false
	}
	if exp < 0 {
		return float64(i) / pow10[-exp], true
	}
	return float64(i) * pow10[exp], true
}

// Scale returns the integer that [Unscale] turns back into exactly v, bit by bit, and false if there is none.
func Scale(v float64, exp int8) (int64, bool) {
	if exp < -MaxExp || exp > MaxExp {
		return 0, false
	}
	var r float64
	if exp < 0 {
		r = math.RoundToEven(v * pow10[-exp])
	} else {
		r = math.RoundToEven(v / pow10[exp])
	}
	if !(r > -maxInt && r < maxInt) {
		return 0, false
	}
	i := int64(r)
	back, _ := Unscale(i, exp)
	return i, math.Float64bits(back) == math.Float64bits(v)
}
