package agent_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device/agent"
	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

func TestCutAtEveryFrameLosesAndDoublesNothing(t *testing.T) {
	for _, what := range []fate{cutBefore, cutAfter} {
		for n := 1; n <= 14; n++ {
			t.Run(fmt.Sprintf("fate %d frame %d", what, n), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newFakeHub()
					h.limits.Win = 3
					cuts := 0
					h.onFrame = func(s *hubSession) fate {
						if s.frames == n && cuts < 4 {
							cuts++
							return what
						}
						return handled
					}
					r := start(t, memory(t), h.dial, quick)
					r.add(t, 1, 40)
					r.wait(t)
					if cuts == 0 {
						t.Error("never cut: the test does not test")
					}
					wantIDs(t, h, 1, 40)
				})
			})
		}
	}
}

func TestRandomCutsLostAcksAndRestartsKeepTheOracle(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { storm(t, seed) })
		})
	}
}

// storm runs an agent whose connections break, whose acks get lost, and whose hub forgets what it did not acknowledge.
func storm(t *testing.T, seed uint64) {
	rng, pace := rand.New(rand.NewPCG(seed, 7)), rand.New(rand.NewPCG(seed, 8)) // the hub's, and the sampler's
	h := newFakeHub()
	h.limits.Win = 1 + uint32(rng.IntN(6))
	faults := 60
	durable := map[*hubStream]int{} // records that may not be forgotten any more
	h.onFrame = func(s *hubSession) fate {
		if faults > 0 && rng.IntN(8) == 0 {
			faults--
			return fate(1 + rng.IntN(2))
		}
		return handled
	}
	h.onAck = func(s *hubSession) bool {
		if faults > 0 && rng.IntN(3) == 0 {
			return false // commits later, or never
		}
		durable[s.stream] = len(s.stream.stored)
		return true
	}
	h.onReady = func(s *hubSession) error {
		if st := s.stream; faults > 0 && rng.IntN(2) == 0 { // the hub was restarted: what it never acked may be gone
			st.stored = st.stored[:durable[st]]
			if n := len(st.stored); n > 0 {
				st.last = st.stored[n-1].seq
			} else if durable[st] == 0 && len(h.gaps) == 0 {
				st.last = 0
			}
		}
		durable[s.stream] = len(s.stream.stored) // the welcome acknowledges it
		h.limits.Win = 1 + uint32(rng.IntN(6))
		return nil
	}
	sp, err := spool.Open(t.TempDir(), spool.Options{SegmentBytes: 4096, SyncEvery: 50 * time.Millisecond, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, sp, h.dial, agent.Options{MaxRows: 3, MaxAge: 20 * time.Millisecond, MaxRetry: 2 * time.Second})
	for id := 1; id <= 300; id++ {
		r.add(t, id, id)
		if pace.IntN(10) == 0 {
			time.Sleep(time.Duration(pace.IntN(300)) * time.Millisecond)
		}
	}
	r.wait(t)
	wantIDs(t, h, 1, 300)
	if err := r.stop(); err != nil {
		t.Errorf("run: %v", err)
	}
	if err := sp.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestKilledAgentGoesOnUnderANewStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		id := 0
		for round := range 6 {
			sp := memory(t) // a process that is killed takes a spool in memory with it; what was acked must be there
			r := start(t, sp, h.dial, quick)
			r.add(t, id+1, id+20)
			r.wait(t)
			id += 20
			if err := r.stop(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		wantIDs(t, h, 1, id)
		if len(h.order) != 6 {
			t.Errorf("%d streams, want one for each life", len(h.order))
		}
	})
}

func TestUncleanSpoolIsDeliveredUnderItsOldStreamFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		h := newFakeHub()
		h.limits.Win = 2
		lostAcks := 0
		h.onAck = func(*hubSession) bool { lostAcks++; return lostAcks < 4 }
		opt := spool.Options{MinFree: -1, SyncEvery: -1}
		sp, err := spool.Open(dir, opt)
		if err != nil {
			t.Fatal(err)
		}
		r := start(t, sp, h.dial, quick)
		r.add(t, 1, 30)
		time.Sleep(time.Second)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		copied := copyFolder(t, dir) // the process was killed here
		if err := sp.Close(); err != nil {
			t.Fatal(err)
		}

		h.mu.Lock()
		h.onAck = nil
		h.mu.Unlock()
		if sp, err = spool.Open(copied, opt); err != nil {
			t.Fatal(err)
		}
		before := h.dialed()
		r = start(t, sp, h.dial, quick)
		r.add(t, 31, 60)
		r.wait(t)
		wantIDs(t, h, 1, 60)
		if n := h.dialed() - before; len(h.order) != 2 || n != 2 {
			t.Errorf("%d streams over %d connections, want one for the old and one for the new stream", len(h.order), n)
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if err := sp.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHubThatForgotAcknowledgedBatchesGetsThemAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp, err := spool.Open(t.TempDir(), spool.Options{MinFree: -1})
		if err != nil {
			t.Fatal(err)
		}
		h := newFakeHub()
		r := start(t, sp, h.dial, quick)
		r.add(t, 1, 50)
		r.wait(t)
		h.mu.Lock() // restored from a backup that ends at 20
		st := h.order[0]
		st.stored, st.last = st.stored[:20], 20
		h.current.pipe.finish(errCut)
		h.mu.Unlock()
		r.add(t, 51, 60)
		r.wait(t)
		wantIDs(t, h, 1, 60)
		if err := errors.Join(r.stop(), sp.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestForeignAckMovesNewRowsToANewStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		r := start(t, memory(t), h.dial, quick)
		r.add(t, 1, 10)
		r.wait(t)
		h.mu.Lock() // a copy of the card has sent under the same stream meanwhile
		h.order[0].last += 7
		h.current.pipe.finish(errCut)
		h.mu.Unlock()
		synctest.Wait() // what is sent meanwhile under the number of another could not be told from it
		r.add(t, 11, 40)
		r.wait(t)
		wantIDs(t, h, 1, 40)
		if len(h.order) != 2 || h.order[1].stored[0].seq != 1 {
			t.Errorf("the rows went on in %d streams", len(h.order))
		}
	})
}

func TestDroppedRowsAreReportedAsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sp, err := spool.Open(t.TempDir(), spool.Options{MinFree: -1, SegmentBytes: 4096, MaxBytes: 20000, SyncEvery: 50 * time.Millisecond})
		if err != nil {
			t.Fatal(err)
		}
		h := newFakeHub()
		h.refuse = func(n int) error {
			if n < 4 {
				return errors.New("no route")
			}
			return nil
		}
		r := start(t, sp, h.dial, quick)
		r.add(t, 1, 1000)
		r.wait(t)
		if err := h.rules(); err != nil {
			t.Error(err)
		}
		ids := h.ids()
		var lost uint64
		for _, g := range h.gaps {
			lost += g.Count
		}
		if uint64(len(ids))*2+lost != 2000 || lost == 0 {
			t.Errorf("%d rows are stored and %d readings reported lost, together not 2000: %+v", len(ids), lost, h.gaps)
		}
		for i := range ids {
			if ids[i] != ids[0]+float64(i) {
				t.Fatalf("row %d is %v: the oldest should be missing, and only they", i, ids[i])
			}
		}
		if err := errors.Join(r.stop(), sp.Close()); err != nil {
			t.Error(err)
		}
	})
}

func TestBatchTooLargeForTheHubBecomesAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newFakeHub()
		h.refuse = func(n int) error {
			if n == 1 {
				return errors.New("no route")
			}
			return nil
		}
		h.limits.Max = 1024
		r := start(t, memory(t), h.dial, agent.Options{MaxRetry: time.Second})
		r.add(t, 1, 500) // closed before the limit is known
		if err := r.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		r.add(t, 501, 900)
		r.wait(t)
		wantIDs(t, h, 501, 900)
		if len(h.gaps) != 1 || h.gaps[0].Count != 1000 || h.gaps[0].FromMS != row(1).TimeMS || h.gaps[0].ToMS != row(500).TimeMS {
			t.Errorf("gaps %+v, want one of 1000 readings", h.gaps)
		}
	})
}

func TestHubThatBreaksTheProtocolIsLeft(t *testing.T) {
	ack := func(seq uint64) []byte { return wire.AppendAck(nil, wire.CBOR, &wire.Ack{Seq: seq}) }
	welcome := wire.AppendWelcome(nil, wire.CBOR, &wire.Welcome{Limits: wire.Limits{Win: 1, Bytes: 1, Max: 65536}, PingS: 1})
	for name, frame := range map[string][]byte{
		"ack of the unsent": ack(1000), "ack of everything": ack(wire.MaxSeq), "garbage": {0xff, 0x00},
		"truncated ack": {0x85, 0x07}, "second welcome": welcome, "empty": {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newFakeHub()
				r := start(t, memory(t), h.dial, quick)
				r.add(t, 1, 5)
				r.wait(t)
				if !h.push(frame) {
					t.Fatal("not connected")
				}
				r.add(t, 6, 10)
				time.Sleep(time.Minute)
				r.wait(t)
				wantIDs(t, h, 1, 10)
				if s := r.Stats(); s.Connects != 2 || s.LastErr == nil {
					t.Errorf("stats %+v, want a second connection", s)
				}
			})
		})
	}
}
