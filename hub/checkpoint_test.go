package hub_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/storage"
	"telemetryhub/storage/storagetest"
)

// acknowledged sends batch seq and reports whether it was acknowledged before the connection ended.
func (c *client) acknowledged(seq uint64) bool {
	if c.try(`{"m":"data","s":%d,"t":%d,"r":[[1,0,%d]]}`, seq, t0+1000*int64(seq), seq) != nil {
		return false
	}
	for {
		if frame, _, ok := c.s.Next(nil); ok {
			if a, err := wire.DecodeAck(wire.JSON, frame); err == nil && a.Seq >= seq {
				return true
			}
			continue
		}
		select {
		case <-c.wake:
		case <-c.gone:
			return false
		}
	}
}

// TestEveryFailureOfACheckpointLosesAndDoublesNothing lets every write of two checkpoints fail in turn, with and without being
// done, and goes on with what is there afterwards, as after a crash.
func TestEveryFailureOfACheckpointLosesAndDoublesNothing(t *testing.T) {
	const batches = 6
	for n := 1; ; n++ {
		fired := false
		for _, done := range []bool{false, true} {
			t.Run(fmt.Sprintf("operation %d, done %v", n, done), func(t *testing.T) {
				r := newRig(t, hub.Options{})
				r.add("a")
				r.connect("a").hello("other", 1, 1) // so that the stream of the test is not the first
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
				whole := r.stores
				f := storagetest.NewFaults(storagetest.Plan{At: n, Err: storage.ErrUnknown, Done: done})
				r.stores = hub.Stores{Log: f.Log(whole.Log), Chunks: f.Chunks(whole.Chunks), Catalog: f.Catalog(whole.Catalog)}
				acked := r.untilItFails(batches)
				fired = fired || f.Fired()

				r.stores = whole
				r.start()
				c := r.connect("a")
				known := c.hello("st", batches+1, 1).Ack
				if known < acked || known > batches {
					t.Fatalf("the hub knows of %d batches, %d were acknowledged", known, acked)
				}
				for seq := uint64(1); seq <= batches; seq++ {
					if !c.acknowledged(seq) {
						t.Fatalf("batch %d is not acknowledged", seq)
					}
				}
				if st := r.hub.Status(); st.Readings != batches-known {
					t.Errorf("%d readings were stored again", st.Readings-(batches-known))
				}
				var want []string
				for seq := range int64(batches) {
					want = append(want, fmt.Sprintf("%d temperature %d", t0+1000*(seq+1), seq+1))
				}
				for range 2 {
					if got := r.readings("a"); !slices.Equal(got, want) {
						t.Fatalf("got %q, want %q", got, want)
					}
					if err := r.hub.FlushHistory(t.Context()); err != nil {
						t.Fatal(err)
					}
					r.restart()
				}
			})
		}
		if !fired || t.Failed() {
			return
		}
	}
}

// untilItFails starts the hub, sends batches with a checkpoint after each half of them, and stops it. It returns how many
// were acknowledged.
func (r *rig) untilItFails(batches uint64) (acked uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h, err := hub.Open(ctx, r.stores, r.opts)
	if err != nil {
		return 0
	}
	r.hub = h
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, storage.ErrUnknown) {
			r.t.Errorf("run: %v", err)
		}
	}()
	c := r.connect("a")
	c.opening("st", batches)
	for seq := uint64(1); seq <= batches; seq++ {
		if !c.acknowledged(seq) {
			return acked
		}
		acked = seq
		if seq%(batches/2) == 0 {
			flush, stop := context.WithTimeout(ctx, 5*time.Second)
			err := h.FlushHistory(flush)
			stop()
			if err != nil {
				return acked
			}
		}
	}
	return acked
}

// opening says hello and declares the schema, whatever comes of it.
func (c *client) opening(stream string, next uint64) {
	_ = c.try(`{"m":"hello","st":%q,"next":%d,"have":1,"schema":"s1","tq":2}`, stream, next) // acknowledged tells
	_ = c.try(birth)
}
