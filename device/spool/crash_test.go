package spool_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/spool"
)

// scene is what was true when the power went: which records were durable, and what the hub had by then.
type scene struct {
	changes int
	durable uint64
	hub     *hub
}

// script runs a device for a while and takes a scene after each step.
func script(t *testing.T, d *disk, seed uint64) (scenes []scene, last uint64) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	h := newHub()
	var id, durable uint64
	o := small
	o.MaxBytes = 6 * o.SegmentBytes
	o.SyncBytes = 700
	snap := func() { scenes = append(scenes, scene{d.count(), durable, h.clone()}) }
	must := func(err error) {
		if err != nil {
			t.Fatalf("script: %v", err)
		}
	}
	for range 3 {
		s := open(t, d, o)
		snap()
		for range 90 {
			switch rng.IntN(10) {
			default:
				id++
				must(add(s, id))
				if s.Status().InMemory == 0 {
					durable = id
				}
			case 7:
				must(s.Sync())
				durable = id
			case 8, 9:
				h.limit = 1 + rng.IntN(30)
				must(h.drain(s))
			}
			snap()
		}
		if rng.IntN(2) == 0 {
			must(s.Close())
			durable = id
		} else {
			d.locked = false // killed
			durable = min(durable, id)
		}
		snap()
	}
	return scenes, id
}

// verify opens what is left after a crash, goes on and checks that the hub ends up with the truth.
func verify(c *disk, sc scene, last uint64) (*hub, error) {
	h := sc.hub.clone()
	h.limit = 0
	o := small
	o.MaxBytes = 6 * o.SegmentBytes
	s, err := spool.Open("", o.WithFS(c))
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	for id := last + 1; id <= last+5; id++ {
		if err := add(s, id); err != nil {
			return nil, err
		}
	}
	if err := h.drainAll(s); err != nil {
		return nil, err
	}
	return h, h.judge(sc.durable, last)
}

// judge checks that each body came once, in order, and that each durable one came or was dropped and is covered by the gap
// that says so: a crash is no damage, and must not look like it.
func (h *hub) judge(durable, last uint64) error {
	seen := map[uint64]bool{}
	var before uint64
	for _, id := range h.bodies() {
		if seen[id] {
			return fmt.Errorf("body %d is stored twice", id)
		}
		if id < before {
			return fmt.Errorf("body %d came after %d", id, before)
		}
		seen[id], before = true, id
	}
	for id := uint64(1); id <= last+5; id++ {
		if seen[id] || (id > durable && id <= last) {
			continue
		}
		if !h.dropped(id) {
			return fmt.Errorf("body %d was durable (up to %d), and is neither stored nor in a gap of a full spool: %+v", id, durable, h.gaps)
		}
	}
	return nil
}

// dropped reports whether a gap of a full spool covers the time of the body.
func (h *hub) dropped(id uint64) bool {
	for _, g := range h.gaps {
		if g.Cause == device.CauseSpoolFull && g.FromMS <= int64(id)*1000 && int64(id)*1000+900 <= g.ToMS {
			return true
		}
	}
	return false
}

func TestKillAtEveryWriteKeepsThePromise(t *testing.T) {
	for seed := range uint64(8) {
		d := newDisk()
		scenes, last := script(t, d, seed)
		eachCut(scenes, func(n int, sc scene) {
			h, err := verify(d.killed(n), sc, last)
			if err != nil {
				t.Fatalf("seed %d, killed after change %d: %v", seed, n, err)
			}
			for _, g := range h.gaps {
				if g.Cause == device.CauseDamaged { // every byte is there
					t.Fatalf("seed %d, killed after change %d: damage is reported: %+v", seed, n, g)
				}
			}
		})
	}
}

func TestPowerCutAtEveryWriteKeepsThePromise(t *testing.T) {
	for seed := range uint64(8) {
		d := newDisk()
		scenes, last := script(t, d, seed)
		eachCut(scenes, func(n int, sc scene) {
			for try := range uint64(3) {
				c := d.powerCut(n, rand.New(rand.NewPCG(seed, uint64(n)*8+try)))
				if _, err := verify(c, sc, last); err != nil {
					t.Fatalf("seed %d, try %d, power cut after change %d: %v", seed, try, n, err)
				}
			}
		})
	}
}

// eachCut calls f for every change, with what was true at the end of the step before.
func eachCut(scenes []scene, f func(n int, sc scene)) {
	for i, sc := range scenes {
		end := sc.changes
		if i+1 < len(scenes) {
			end = scenes[i+1].changes - 1
		}
		for n := sc.changes; n <= end; n++ {
			f(n, sc)
		}
	}
}
