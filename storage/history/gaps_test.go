package history_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/history"
	"telemetryhub/storage/record"
	"telemetryhub/storage/storagetest"
)

func gapItem(dev, stream uint32, g device.Gap) item {
	return item{header: record.Header{Kind: record.Gap, Device: dev, Stream: stream, Seq: g.Seq, ArrivalMS: baseMS + 1_000_000}, gap: g}
}

func TestGapsAreFiledJoinedAndFound(t *testing.T) {
	const arrival = baseMS + 1_000_000
	for name, c := range map[string]struct {
		gaps []device.Gap
		want []history.Gap
	}{
		"apart": {
			[]device.Gap{{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSensor}, {FromMS: baseMS + 12, ToMS: baseMS + 20, Cause: device.CauseSensor}},
			[]history.Gap{{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSensor}, {FromMS: baseMS + 12, ToMS: baseMS + 20, Cause: device.CauseSensor}},
		},
		"touching": {
			[]device.Gap{
				{FromMS: baseMS + 11, ToMS: baseMS + 20, Cause: device.CauseSpoolFull, FromSeq: 5, ToSeq: 6, Count: 3},
				{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSpoolFull, FromSeq: 3, ToSeq: 4, Count: 4},
			},
			[]history.Gap{{FromMS: baseMS, ToMS: baseMS + 20, Cause: device.CauseSpoolFull, FromSeq: 3, ToSeq: 6, Count: 7}},
		},
		"next in the sequence": {
			[]device.Gap{
				{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSpoolFull, FromSeq: 3, ToSeq: 4},
				{FromMS: baseMS + 500, ToMS: baseMS + 600, Cause: device.CauseSpoolFull, FromSeq: 5, ToSeq: 9},
			},
			[]history.Gap{{FromMS: baseMS, ToMS: baseMS + 600, Cause: device.CauseSpoolFull, FromSeq: 3, ToSeq: 9}},
		},
		"refused rows of batches that are there": {
			[]device.Gap{
				{FromMS: baseMS, ToMS: baseMS, Cause: device.CauseRefused, FromSeq: 3, ToSeq: 3, Count: 1},
				{FromMS: baseMS + 500, ToMS: baseMS + 500, Cause: device.CauseRefused, FromSeq: 4, ToSeq: 4, Count: 1},
			},
			[]history.Gap{
				{FromMS: baseMS, ToMS: baseMS, Cause: device.CauseRefused, FromSeq: 3, ToSeq: 3, Count: 1},
				{FromMS: baseMS + 500, ToMS: baseMS + 500, Cause: device.CauseRefused, FromSeq: 4, ToSeq: 4, Count: 1},
			},
		},
		"another cause": {
			[]device.Gap{{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseJump}, {FromMS: baseMS + 5, ToMS: baseMS + 9, Cause: "new one"}},
			[]history.Gap{{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseJump}, {FromMS: baseMS + 5, ToMS: baseMS + 9, Cause: device.CauseOther}},
		},
		"unknown times":    {[]device.Gap{{Cause: device.CauseJump, FromSeq: 1, ToSeq: 9}}, []history.Gap{{FromMS: arrival, ToMS: arrival, Cause: device.CauseJump, FromSeq: 1, ToSeq: 9}}},
		"unknown begin":    {[]device.Gap{{ToMS: baseMS, Cause: device.CauseJump}}, []history.Gap{{FromMS: baseMS, ToMS: baseMS, Cause: device.CauseJump}}},
		"unknown end":      {[]device.Gap{{FromMS: baseMS, Cause: device.CauseJump}}, []history.Gap{{FromMS: baseMS, ToMS: arrival, Cause: device.CauseJump}}},
		"end before begin": {[]device.Gap{{FromMS: baseMS + 9, ToMS: baseMS, Cause: device.CauseJump}}, []history.Gap{{FromMS: baseMS, ToMS: baseMS + 9, Cause: device.CauseJump}}},
	} {
		t.Run(name, func(t *testing.T) {
			for i := range c.want {
				c.want[i].Stream = 4
			}
			w := newWorld(t)
			for i, g := range c.gaps {
				w.append(gapItem(1, 4, g))
				if i == 0 {
					w.flush() // so that one is in the catalog and the other in memory
				}
			}
			wantGaps(t, w, 1, c.want...)
			w.flush()
			w.crash()
			w.open(storagetest.Plan{})
			wantGaps(t, w, 1, c.want...)
			for _, q := range []struct {
				from, to int64
				want     int
			}{{c.want[0].FromMS, c.want[0].FromMS + 1, 1}, {c.want[0].FromMS - 5, c.want[0].FromMS, 0}} {
				got, err := w.store.Gaps(t.Context(), 1, q.from, q.to)
				if err != nil || len(got) != q.want {
					t.Errorf("gaps in [%d, %d): %+v, %v, want %d", q.from, q.to, got, err, q.want)
				}
			}
		})
	}
}

// TestGapsAreNotCountedTwiceAfterACrash lets a flush fail after it has saved gaps, and starts again.
func TestGapsAreNotCountedTwiceAfterACrash(t *testing.T) {
	gap := device.Gap{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSpoolFull, FromSeq: 3, ToSeq: 4, Count: 4}
	want := history.Gap{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSpoolFull, FromSeq: 3, ToSeq: 4, Count: 4, Stream: 1}
	for at := 1; ; at++ {
		w := newWorld(t)
		w.crash()
		w.open(storagetest.Plan{At: at, Err: errBoom, Done: true})
		w.append(gapItem(1, 1, gap), w.simple(1, 1, baseMS))
		err := w.store.Flush(t.Context())
		wantGaps(t, w, 1, want)
		w.crash()
		w.open(storagetest.Plan{})
		wantGaps(t, w, 1, want)
		// One that follows is joined with the first in memory, before it meets the first in the catalog.
		next := gap
		next.FromMS, next.ToMS, next.FromSeq, next.ToSeq = gap.ToMS+1, gap.ToMS+9, 5, 5
		w.append(gapItem(1, 1, next))
		both := want
		both.ToMS, both.ToSeq, both.Count = next.ToMS, 5, 8
		wantGaps(t, w, 1, both)
		w.flush()
		wantGaps(t, w, 1, both)
		if err == nil {
			return
		}
	}
}

// TestGapsAreCountedOnceOnAFullDisk lets each operation of a flush fail for a while. Only a crash may count a gap without
// sequence numbers twice.
func TestGapsAreCountedOnceOnAFullDisk(t *testing.T) {
	gap := device.Gap{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSensor, Count: 4}
	want := history.Gap{FromMS: baseMS, ToMS: baseMS + 10, Cause: device.CauseSensor, Count: 4, Stream: 1}
	for at := 1; ; at++ {
		w := newWorld(t)
		w.crash()
		w.open(storagetest.Plan{At: at, For: 3, Err: storage.ErrFull})
		w.append(gapItem(1, 1, gap), w.simple(1, 1, baseMS))
		tries := 1
		for ; w.store.Flush(t.Context()) != nil; tries++ {
			wantGaps(t, w, 1, want)
		}
		wantGaps(t, w, 1, want)
		w.crash()
		w.open(storagetest.Plan{})
		wantGaps(t, w, 1, want)
		if tries == 1 {
			return
		}
	}
}

// TestFloodOfGapsCostsDetailOnly sends more gaps than are kept: what is missing must stay within what is reported.
func TestFloodOfGapsCostsDetailOnly(t *testing.T) {
	w := newWorld(t)
	rng := rand.New(rand.NewPCG(1, 2))
	causes := []device.Cause{device.CauseSensor, device.CauseJump, device.CauseRefused}
	var sent []device.Gap
	for i := range 20_000 {
		from := baseMS - rng.Int64N(1<<31)
		g := device.Gap{FromMS: from, ToMS: from + rng.Int64N(5), Cause: causes[rng.IntN(3)], Count: 1}
		sent = append(sent, g)
		w.append(gapItem(1, uint32(rng.IntN(50)), g))
		if i%7000 == 0 {
			w.flush()
		}
	}
	if n := w.store.Stats().ActiveBytes; n > 1<<20 {
		t.Errorf("gaps take up %d bytes of memory", n)
	}
	w.flush()
	w.crash()
	w.open(storagetest.Plan{})
	got, err := w.store.Gaps(t.Context(), 1, 0, 1<<50)
	if err != nil || len(got) > 3000 {
		t.Fatalf("%d gaps, %v", len(got), err)
	}
	count := uint64(0)
	for _, g := range got {
		count += g.Count
	}
	if count != uint64(len(sent)) {
		t.Errorf("%d readings are reported as missing, want %d", count, len(sent))
	}
	for _, s := range sent {
		if !slices.ContainsFunc(got, func(g history.Gap) bool { return g.Cause == s.Cause && g.FromMS <= s.FromMS && g.ToMS >= s.ToMS }) {
			t.Fatalf("gap %+v is lost", s)
		}
	}
}

func TestDroppedDeviceIsForgotten(t *testing.T) {
	w := newWorld(t)
	gap := gapItem(1, 1, device.Gap{FromMS: baseMS, ToMS: baseMS + 1, Cause: device.CauseSensor})
	w.append(w.simple(1, 1, baseMS), w.simple(2, 2, baseMS), gap)
	w.flush()
	w.append(w.simple(1, 1, baseMS+1000), gap)
	if err := w.store.DropDevice(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	w.model.dropped[1] = true
	gone := func() {
		t.Helper()
		w.check()
		wantGaps(t, w, 1)
	}
	gone()
	w.append(w.simple(1, 1, baseMS+2000), gap)
	gone()
	w.flush()
	w.crash()
	w.open(storagetest.Plan{})
	gone()
	for _, key := range []string{"history/gaps/0000000001", "history/gaps/0000000002"} {
		if _, _, err := w.catalog.Get(t.Context(), key); err == nil {
			t.Errorf("%s is still there", key)
		}
	}
}
