package agent_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

var errNoNetwork = errors.New("no network yet")

// clockBed is a device whose clock is wrong, and a hub that knows the time.
type clockBed struct {
	hub   *fakeHub
	wrong time.Duration // what the device's clock is behind
	off   bool          // no network, guarded by hub.mu
}

func newClockBed(wrong time.Duration, timing bool) *clockBed {
	b := &clockBed{hub: newFakeHub(), wrong: wrong, off: true}
	b.hub.now = func() int64 { return time.Now().Add(wrong).UnixMilli() }
	b.hub.timing = timing
	b.hub.refuse = func(int) error {
		if b.off {
			return errNoNetwork
		}
		return nil
	}
	return b
}

func (b *clockBed) network(on bool) {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	b.off = !on
}

// sample takes a row and returns when that really was.
func (b *clockBed) sample(t *testing.T, a *agent.Agent, id int) int64 {
	t.Helper()
	r := row(id)
	r.TimeMS = 0
	if err := a.Sample(t.Context(), time.Now(), r); err != nil {
		t.Fatal(err)
	}
	return b.hub.now()
}

// check compares what the hub stored: ids from 0 on, their true times, and how good the times are said to be.
func (b *clockBed) check(t *testing.T, truth []int64, tq ...device.TimeQuality) {
	t.Helper()
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	n := 0
	for _, st := range b.hub.order {
		for _, rec := range st.stored {
			for _, r := range rec.rows {
				if off := r.TimeMS - truth[n]; off < -5 || off > 5 {
					t.Errorf("row %d is stored %v from its time", n, time.Duration(off)*time.Millisecond)
				}
				if rec.tq != tq[n] {
					t.Errorf("row %d has the time quality %d, want %d", n, rec.tq, tq[n])
				}
				n++
			}
		}
	}
	if n != len(truth) {
		t.Errorf("%d rows, want %d", n, len(truth))
	}
}

const (
	none = device.ClockNone
	hub  = device.ClockHub
	ntp  = device.ClockNTP
)

// TestTimesOfADeviceWithoutAClockAreRight: it starts without network and in the wrong year, and takes rows before it knows.
func TestTimesOfADeviceWithoutAClockAreRight(t *testing.T) {
	for name, tc := range map[string]struct {
		timing bool
		want   [4]device.TimeQuality
	}{
		"the hub tells the time": {true, [4]device.TimeQuality{none, none, hub, hub}}, // the first go out before, relative to sending
		"an older hub":           {false, [4]device.TimeQuality{none, none, none, none}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newClockBed(26*365*24*time.Hour, tc.timing)
				r := start(t, memory(t), b.hub.dial, agent.Options{Clock: agent.NewClock(agent.ClockOptions{}), MaxRows: 2, MinRetry: time.Second, MaxRetry: 10 * time.Second})
				var truth []int64
				truth = append(truth, b.sample(t, r.Agent, 0))
				time.Sleep(10 * time.Minute)
				truth = append(truth, b.sample(t, r.Agent, 1))
				time.Sleep(time.Hour)
				b.network(true)
				time.Sleep(time.Minute)
				truth = append(truth, b.sample(t, r.Agent, 2))
				time.Sleep(time.Minute)
				truth = append(truth, b.sample(t, r.Agent, 3))
				r.wait(t)
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				b.check(t, truth, tc.want[0], tc.want[1], tc.want[2], tc.want[3])
				if err := b.hub.rules(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestSpooledTimesAreRestatedInTheSameBootOnly: what another process of the same boot took is restated, what was taken before
// the power failed keeps its time, and says that nobody knows how good it is.
func TestSpooledTimesAreRestatedInTheSameBootOnly(t *testing.T) {
	for name, nextBoot := range map[string]uint16{"the same boot": 7, "after a power cut": 8} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newClockBed(time.Hour, true)
				booted := time.Now()
				clock := func(boot uint16) *agent.Clock {
					return agent.NewClock(agent.ClockOptions{Boot: boot, Uptime: func() time.Duration { return time.Since(booted) }})
				}
				dir := t.TempDir()
				open := func() *spool.Spool {
					sp, err := spool.Open(dir, spool.Options{SyncEvery: -1, MinFree: -1})
					if err != nil {
						t.Fatal(err)
					}
					return sp
				}
				sp := open()
				r := start(t, sp, b.hub.dial, agent.Options{Clock: clock(7), MaxRows: 1})
				truth := []int64{b.sample(t, r.Agent, 0)}
				if err := errors.Join(r.stop(), sp.Close()); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				b.network(true)
				sp = open()
				r = start(t, sp, b.hub.dial, agent.Options{Clock: clock(nextBoot), MaxRows: 1})
				time.Sleep(time.Minute)
				r.wait(t)
				if err := errors.Join(r.stop(), sp.Close()); err != nil {
					t.Fatal(err)
				}
				// What came before the clock was set may go out before it, and is then relative to sending.
				if nextBoot == 7 {
					got := b.hub.order[0].stored[0].tq
					b.check(t, truth, got)
					return
				}
				b.check(t, []int64{truth[0] - time.Hour.Milliseconds()}, none)
			})
		})
	}
}

// TestClockThatNTPKeepsIsNotTouched: rows are stamped by the system's clock, whatever the hub thinks.
func TestClockThatNTPKeepsIsNotTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newClockBed(time.Hour, true)
		b.network(true)
		r := start(t, memory(t), b.hub.dial, agent.Options{Clock: agent.NewClock(agent.ClockOptions{Synced: func() bool { return true }}), MaxRows: 1})
		time.Sleep(time.Minute)
		truth := b.sample(t, r.Agent, 0) - time.Hour.Milliseconds()
		r.wait(t)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		b.check(t, []int64{truth}, ntp)
	})
}

func TestEventsWaitForAConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newClockBed(0, false)
		r := start(t, memory(t), b.hub.dial, agent.Options{Clock: agent.NewClock(agent.ClockOptions{}), MaxRows: 1})
		for i := range 20 { // more than are kept
			r.Event(wire.Event{Level: wire.LevelWarn, Code: "sensor_fault", Alias: uint16(i + 1)})
		}
		time.Sleep(time.Minute)
		b.network(true)
		time.Sleep(10 * time.Minute)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		b.hub.mu.Lock()
		defer b.hub.mu.Unlock()
		if n := len(b.hub.events); n != 16 || b.hub.events[0].Alias != 5 || b.hub.events[15].Alias != 20 {
			t.Errorf("%d events came: %+v", n, b.hub.events)
		}
		for _, e := range b.hub.events {
			if e.TimeMS > -time.Minute.Milliseconds() {
				t.Errorf("an event of more than a minute ago came with %d ms", e.TimeMS)
			}
		}
	})
}
