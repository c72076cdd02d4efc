package hub

import (
	"testing"
	"time"

	"telemetryhub/device"
)

func TestPresence(t *testing.T) {
	const s = 1000
	declared := func(l liveState, iv ...int64) liveState {
		for _, ms := range iv {
			l.cells = append(l.cells, cell{metric: &device.Metric{Num: uint32(len(l.cells) + 1), IntervalMS: ms}})
		}
		return l
	}
	measured := func(l liveState, n int, ms int64) liveState {
		for i := range l.steps {
			l.steps[i] = ms
		}
		l.steps[0], l.steps[1] = 1, 3600*s // the median does not mind
		l.stepCount = n
		return l
	}
	there := liveState{seenMS: 1000 * s, sessions: 1, socket: true, heard: true}
	left := liveState{seenMS: 1000 * s, closedMS: 1001 * s, socket: true, heard: true}
	back := liveState{seenMS: 1002 * s, closedMS: 1001 * s, socket: true, heard: true} // by HTTP
	never := liveState{seenMS: 1000 * s, heard: true}                                  // had a socket
	before := liveState{seenMS: 1000 * s}                                              // heard only before the start
	for name, c := range map[string]struct {
		state liveState
		at    int64
		want  Presence
	}{
		"no reading ever, though connected": {liveState{sessions: 1, socket: true}, 1, NeverSeen},
		"connected, interval unknown":       {there, 9000 * s, Live},
		"connected, in time":                {declared(there, 4*s), 1010 * s, Live},
		"connected, overdue":                {declared(there, 4*s), 1010*s + 1, Stale},
		"connected, overdue for long":       {declared(there, 4*s), 9000 * s, Stale},
		"fast, but within a hiccup":         {declared(there, 100), 1005 * s, Live},
		"fast, beyond a hiccup":             {declared(there, 100), 1005*s + 1, Stale},
		"the least interval counts":         {declared(there, 60*s, 4*s, 0), 1011 * s, Stale},
		"20 steps, overdue":                 {measured(there, 20, 4*s), 1010*s + 1, Stale},
		"20 steps, in time":                 {measured(there, 20, 4*s), 1010 * s, Live},
		"19 steps are too few":              {measured(there, 19, 4*s), 9000 * s, Live},
		"what is declared beats the median": {declared(measured(there, 20, 4*s), 60*s), 1100 * s, Live},
		"left, within the grace":            {left, 1016 * s, Live},
		"left, after the grace":             {left, 1016*s + 1, Offline},
		"left, and sends by HTTP":           {back, 1100 * s, Live},
		"left, by HTTP, overdue":            {declared(back, 10*s), 1030 * s, Stale},
		"left, by HTTP, gone":               {declared(back, 10*s), 1103 * s, Offline},
		"never had a socket, in time":       {declared(never, 10*s), 1025 * s, Live},
		"never had a socket, overdue":       {declared(never, 10*s), 1100 * s, Stale},
		"never had a socket, gone":          {declared(never, 10*s), 1100*s + 1, Offline},
		"not heard since the start":         {before, 1000 * s, Offline},
	} {
		if got := c.state.presenceAt(c.at); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestMetricThatIsNoLongerDeclaredExpectsNothing is a device whose fast sensor was taken off.
func TestMetricThatIsNoLongerDeclaredExpectsNothing(t *testing.T) {
	fast := device.Metric{Num: 1, Name: "wind", IntervalMS: 1000}
	slow := device.Metric{Num: 2, Name: "rain", IntervalMS: 60_000}
	silent := device.Metric{Num: 3, Name: "snow", IntervalMS: 10}
	s := liveState{seenMS: 1, cells: []cell{{metric: &fast}, {metric: &slow}}}
	for want, schema := range map[int64]*device.Schema{
		1000:   nil, // since the start nothing has come that names one
		1001:   {Metrics: []device.Metric{{Num: 1, Name: "wind", IntervalMS: 1001}, slow, silent}},
		60_000: {Metrics: []device.Metric{silent, slow}},
	} {
		if s.schema = schema; s.intervalMS() != want {
			t.Errorf("%v: %d ms, want %d", schema, s.intervalMS(), want)
		}
	}
}

// TestPresenceDoesNotMindTheClock has a device that sends every 4 s, until it falls silent.
func TestPresenceDoesNotMindTheClock(t *testing.T) {
	for name, step := range map[string]time.Duration{"kept": 0, "set forward": 24 * time.Hour, "set back": -24 * time.Hour} {
		h, e := still(t)
		now, run := time.Unix(1_766_000_000, 0), time.Duration(0)
		heard := func() { e.live.seenMS = max(e.live.seenMS, now.UnixMilli()) }
		e.live = liveState{presence: Live, sessions: 1, socket: true, heard: true, cells: []cell{{metric: &device.Metric{Num: 1, IntervalMS: 4000}}}}
		for s := range 60 {
			if s == 30 {
				now = now.Add(step)
			}
			if s%4 == 0 && s < 40 {
				heard()
			}
			h.live.tick(now, run)
			want := Live
			if s > 36+10 {
				want = Stale
			}
			if e.live.presence != want {
				t.Errorf("clock %s, second %d: %v, want %v", name, s, e.live.presence, want)
			}
			now, run = now.Add(time.Second), run+time.Second
		}
	}
}

// TestNobodyIsOverdueBecauseTheHubStoodStill stops the process for a minute.
func TestNobodyIsOverdueBecauseTheHubStoodStill(t *testing.T) {
	h, e := still(t)
	now, run := time.Unix(1_766_000_000, 0), time.Duration(0)
	e.live = liveState{presence: Live, seenMS: now.UnixMilli(), heard: true, cells: []cell{{metric: &device.Metric{Num: 1, IntervalMS: 4000}}}}
	for _, pause := range []time.Duration{0, time.Minute, time.Second, time.Second} {
		now, run = now.Add(pause), run+pause
		if h.live.tick(now, run); e.live.presence != Live {
			t.Fatalf("after %v: %v", run, e.live.presence)
		}
	}
	if h.live.tick(now.Add(3*time.Second), run+3*time.Second); e.live.presence != Offline {
		t.Errorf("in the end: %v", e.live.presence)
	}
}
