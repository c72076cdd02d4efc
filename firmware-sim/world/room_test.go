package world_test

import (
	"testing"
	"time"

	"telemetryhub/firmware-sim/world"
)

var start = time.Date(2026, 11, 28, 0, 0, 0, 0, time.UTC)

func TestRoomLivesThroughAPlausibleDay(t *testing.T) {
	for seed := range uint64(8) {
		r := world.NewRoom(seed)
		lo, hi, opened, heated, wasOpen := 100.0, -100.0, 0, 0, false
		last := r.Air(start)
		for at := start; at.Before(start.Add(48 * time.Hour)); at = at.Add(10 * time.Second) {
			a := r.Air(at)
			if a.Celsius < 8 || a.Celsius > 30 || a.RH < 10 || a.RH > 100 || a.Pascal < 97_000 || a.Pascal > 104_000 {
				t.Fatalf("seed %d at %v: %+v", seed, at, a)
			}
			if d := a.Celsius - last.Celsius; d > 0.4 || d < -0.4 {
				t.Fatalf("seed %d at %v: %v degrees in 10 s", seed, at, d)
			}
			lo, hi, last = min(lo, a.Celsius), max(hi, a.Celsius), a
			if r.Window() && !wasOpen {
				opened++
			}
			if wasOpen = r.Window(); r.Heating() {
				heated++
			}
		}
		if hi-lo < 2 || opened < 2 || heated == 0 {
			t.Errorf("seed %d: %.1f to %.1f degrees, window opened %d times, heated %d steps: nothing happens", seed, lo, hi, opened, heated)
		}
	}
}

func TestSameSeedGivesTheSameAir(t *testing.T) {
	a, b, other := world.NewRoom(1), world.NewRoom(1), world.NewRoom(2)
	differs := false
	for i := range 1000 {
		at := start.Add(time.Duration(i) * 7 * time.Second)
		x := a.Air(at)
		if x != b.Air(at) {
			t.Fatal("two rooms of one seed differ")
		}
		differs = differs || x != other.Air(at)
	}
	if !differs {
		t.Error("another seed gives the same room")
	}
}
