package device_test

import (
	"math"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/device"
)

func TestUnscaleIsTheNearestFloatToTheDecimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.Int64Range(-(1<<53)+1, 1<<53-1).Draw(t, "i")
		exp := rapid.Int8Range(-device.MaxExp, device.MaxExp).Draw(t, "exp")
		got, ok := device.Unscale(i, exp)
		want, err := strconv.ParseFloat(strconv.FormatInt(i, 10)+"e"+strconv.Itoa(int(exp)), 64)
		if !ok || err != nil || got != want {
			t.Fatalf("Unscale(%d, %d) = %v, %v, want %v (%v)", i, exp, got, ok, want, err)
		}
	})
}

func TestScaleIsTakenOnlyWhenItComesBackExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Float64().Draw(t, "v")
		exp := rapid.Int8().Draw(t, "exp")
		i, ok := device.Scale(v, exp)
		if !ok {
			return
		}
		if back, ok := device.Unscale(i, exp); !ok || math.Float64bits(back) != math.Float64bits(v) {
			t.Fatalf("Scale(%v, %d) = %d, which comes back as %v, %v", v, exp, i, back, ok)
		}
	})
}

func TestScaleTakesEveryShortDecimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.Int64Range(-1e12, 1e12).Draw(t, "i")
		v, _ := device.Unscale(i, -3)
		if got, ok := device.Scale(v, -3); !ok || got != i {
			t.Fatalf("Scale(%v, -3) = %d, %v, want %d", v, got, ok, i)
		}
	})
}

func TestScaleRefusesWhatHasNoInteger(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 0.125, 1e300} {
		if i, ok := device.Scale(v, -2); ok {
			t.Errorf("Scale(%v, -2) = %d, want none", v, i)
		}
	}
}
