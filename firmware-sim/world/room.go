// Package world is the physical truth that simulated sensors measure: a room with a day outside, a window that somebody opens,
// and a heater. It tells stories in physical terms; what a sensor reads of them is the sensor's business.
package world

import (
	"fmt"
	"hash/fnv"
	"math"
	"sync"
	"time"

	"telemetryhub/firmware-sim/chip"
)

// Room is a room in a house. The same seed and times give the same air. It is safe for concurrent use.
type Room struct {
	seed uint64

	mu       sync.Mutex // guards the fields below
	at       time.Time  // of the state
	celsius  float64
	vapour   float64 // grams of water in a cubic metre
	heating  bool
	openTill time.Time
}

const (
	step = 10 * time.Second // of the integration
	// memory is how long before the first question the room's story begins: longer than it remembers anything.
	memory = 36 * time.Hour

	leakHours   = 14.0 // in which an unheated room comes close to the outside by a factor e
	windowHours = 0.6  // the same with the window open
	heaterRise  = 2.2  // degrees an hour
	sourceGrams = 0.45 // grams of water a cubic metre and hour, from people, by day
)

// NewRoom returns a room; each seed gives another one.
func NewRoom(seed uint64) *Room { return &Room{seed: seed} }

// Outside is the weather at a moment: a day, a year, and the highs and lows that pass.
func (r *Room) Outside(t time.Time) chip.Air {
	days := float64(t.Unix()) / 86400
	front := r.wave(days, 4.3, 1) + r.wave(days, 2.7, 2)/2
	celsius := 9 + 9*math.Sin(2*math.Pi*(days/365.25-0.29)) + 4.5*math.Sin(2*math.Pi*(days-0.4)) + 2*front + 0.4*r.wave(days, 0.07, 3)
	rh := 74 - 14*math.Sin(2*math.Pi*(days-0.4)) + 5*front
	return chip.Air{Celsius: celsius, Pascal: 101_000 - 900*front + 25*r.wave(days, 0.31, 4), RH: min(max(rh, 25), 98)}
}

// wave swings between -1 and 1 with a period in days; its phase is the room's.
func (r *Room) wave(days, period float64, n uint64) float64 {
	return math.Sin(2*math.Pi*days/period + 6*float64(r.hash(n)%1000)/1000)
}

func (r *Room) hash(n uint64) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %d", r.seed, n)
	return h.Sum64()
}

// Air returns the air in the room at a moment. Times should not go back; a time before the last one gives the last state.
func (r *Room) Air(t time.Time) chip.Air {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.Sub(r.at) > memory {
		r.at = t.Add(-memory).Truncate(step)
		r.celsius, r.vapour, r.heating, r.openTill = 20, 8, false, time.Time{}
	}
	for ; !r.at.Add(step).After(t); r.at = r.at.Add(step) {
		r.advance()
	}
	// What a sensor sees besides: the air moves.
	s := t.Sub(time.Unix(0, 0)).Seconds()
	flutter := math.Sin(s/7.3+float64(r.hash(5)%7)) * math.Sin(s/2.9)
	return chip.Air{
		Celsius: r.celsius + 0.03*flutter, Pascal: r.Outside(t).Pascal + 1.5*flutter,
		RH: min(100*r.vapour/saturation(r.celsius)+0.1*flutter, 100),
	}
}

// Window reports whether the window is open, and Heating whether the heater is on, as of the last Air.
func (r *Room) Window() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.at.Before(r.openTill) }

// Heating reports whether the heater is on.
func (r *Room) Heating() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.heating }

// advance lives through one step.
func (r *Room) advance() {
	hour := float64(r.at.Hour()) + float64(r.at.Minute())/60
	day := hour >= 6.5 && hour < 22
	// Somebody thinks of the window each quarter of an hour, and opens it about every second hour.
	if quarter := r.at.Truncate(15 * time.Minute); day && r.at.Equal(quarter) {
		if h := r.hash(uint64(quarter.Unix())); h%8 == 0 {
			r.openTill = r.at.Add(time.Duration(4+h/8%9) * time.Minute)
		}
	}
	want := 17.0
	if day {
		want = 20.5 + 0.1*float64(r.hash(6)%16)
	}
	switch {
	case r.celsius < want-0.3:
		r.heating = true
	case r.celsius > want+0.3:
		r.heating = false
	}
	out := r.Outside(r.at)
	hours := leakHours
	if r.at.Before(r.openTill) {
		hours = windowHours
	}
	dt := step.Hours()
	r.celsius += (out.Celsius - r.celsius) * dt / hours
	r.vapour += (out.RH/100*saturation(out.Celsius) - r.vapour) * dt / min(hours, 3)
	if r.heating {
		r.celsius += heaterRise * dt
	}
	if day {
		r.celsius += 0.15 * dt
		r.vapour += sourceGrams * dt
	}
	r.vapour = min(r.vapour, saturation(r.celsius))
}

// saturation is the most water that air can hold, in grams a cubic metre: the Magnus formula (WMO-No. 8, annex 4.B) and the law
// of ideal gases.
func saturation(celsius float64) float64 {
	hPa := 6.112 * math.Exp(17.62*celsius/(243.12+celsius))
	return 216.7 * hPa / (273.15 + celsius)
}
