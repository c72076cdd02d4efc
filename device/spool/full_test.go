package spool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/spool"
)

// account checks that every body from 1 to last came or is counted in a gap, none of them both.
func account(t *testing.T, h *hub, last uint64) {
	t.Helper()
	ids := h.bodies()
	var lost uint64
	for _, g := range h.gaps {
		if g.Cause != device.CauseSpoolFull {
			t.Errorf("gap %+v has the wrong cause", g)
		}
		lost += g.Count
	}
	if got := uint64(len(ids))*3 + lost; got != last*3 {
		t.Errorf("%d readings came and %d were reported lost, together %d, want %d", len(ids)*3, lost, got, last*3)
	}
	if lost == 0 {
		t.Error("nothing was dropped: the test does not test")
	}
	if len(ids) == 0 || ids[len(ids)-1] != last {
		t.Errorf("the newest record did not come: %v", ids)
	}
	came := map[uint64]bool{}
	for _, id := range ids {
		came[id] = true
	}
	for id := uint64(1); id <= last; id++ {
		if came[id] == h.dropped(id) {
			t.Errorf("body %d: came %v, inside a gap %v", id, came[id], h.dropped(id))
		}
	}
}

func TestFullSpoolDropsTheOldestSegmentAndReportsIt(t *testing.T) {
	d := newDisk()
	o := small
	o.MaxBytes = 5 * o.SegmentBytes
	s := open(t, d, o)
	mustAdd(t, s, 1, 1000)
	if got := s.Status(); got.Bytes > o.MaxBytes || got.Lost == 0 {
		t.Errorf("status %+v, want at most %d bytes and a loss", got, o.MaxBytes)
	}
	h := newHub()
	mustDrain(t, s, h)
	account(t, h, 1000)
	if len(h.gaps) > 6 { // about one a segment
		t.Errorf("%d gap records for one outage, want dropped ones to be merged", len(h.gaps))
	}
	g := h.gaps[len(h.gaps)-1]
	if g.FromSeq == 0 || g.ToSeq < g.FromSeq || g.ToSeq >= g.Seq {
		t.Errorf("gap %+v has no range of numbers", g)
	}
}

func TestDroppedSegmentsAreAccountedOverCrashes(t *testing.T) {
	d := newDisk()
	o := small
	o.MaxBytes = 5 * o.SegmentBytes
	o.SyncEvery = -1
	s := open(t, d, o)
	mustAdd(t, s, 1, 400)
	for n := d.count() - 150; n <= d.count(); n++ {
		c := d.killed(n)
		s := open(t, c, o)
		h := newHub()
		if err := h.drainAll(s); err != nil {
			t.Fatalf("killed after change %d: %v", n, err)
		}
		ids := h.bodies()
		account(t, h, ids[len(ids)-1])
	}
}

func TestRefusePolicyWaitsForAcknowledgements(t *testing.T) {
	for name, o := range map[string]spool.Options{
		"disk":   {SegmentBytes: 4096, MaxBytes: 5 * 4096, MinFree: -1, Full: spool.Refuse},
		"memory": {MaxBytes: 20000, SegmentBytes: 4096, Full: spool.Refuse},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := spool.NewMemory(o)
			if name == "disk" {
				s, err = spool.Open("", o.WithFS(newDisk()))
			}
			if err != nil {
				t.Fatal(err)
			}
			h := newHub()
			fulls := 0
			for id := uint64(1); id <= 1000; {
				err := add(s, id)
				switch {
				case err == nil:
					id++
				case errors.Is(err, spool.ErrFull):
					fulls++
					mustDrain(t, s, h)
				default:
					t.Fatal(err)
				}
				if got := s.Status().Bytes; got > o.MaxBytes {
					t.Fatalf("%d bytes, limit %d", got, o.MaxBytes)
				}
			}
			mustDrain(t, s, h)
			wantIDs(t, h.bodies(), 1, 1000)
			if fulls == 0 {
				t.Error("never full: the test does not test")
			}
		})
	}
}

func TestEntryThatCanNeverFitIsRefused(t *testing.T) {
	s := open(t, newDisk(), spool.Options{SegmentBytes: 4096, MaxBytes: 16384, MinFree: -1})
	if err := s.Append(spool.Entry{Body: make([]byte, 20000)}); !errors.Is(err, spool.ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
	for range 10 {
		if err := s.Append(spool.Entry{Body: make([]byte, 8000)}); err != nil {
			t.Errorf("half of the spool: %v", err)
		}
	}
}

func TestAcknowledgedSegmentsAreDeleted(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 500)
	h := newHub()
	mustDrain(t, s, h)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if len(d.names) != 2 { // the state and the active segment
		t.Errorf("%d files are left, want 2", len(d.names))
	}
	if st := s.Status(); st.Lost != 0 {
		t.Errorf("%d readings count as lost", st.Lost)
	}
}

func TestOldSegmentsExpire(t *testing.T) {
	d := newDisk()
	o := small
	o.MaxAge = 100 * time.Second // a record is a second
	s := open(t, d, o)
	mustAdd(t, s, 1, 500)
	h := newHub()
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	mustDrain(t, s, h)
	account(t, h, 500)
	if ids := h.bodies(); len(ids) < 100 || len(ids) > 150 {
		t.Errorf("%d records are left, want 100 and at most one segment more", len(ids))
	}
}

func TestLittleFreeSpaceDropsOldSegmentsThenUsesMemory(t *testing.T) {
	d := newDisk()
	o := small
	o.MinFree = 1000
	s := open(t, d, o)
	mustAdd(t, s, 1, 200)
	d.free = 999
	if err := s.Sync(); err == nil {
		t.Error("sync with too little free space succeeded")
	}
	if st := s.Status(); st.Fault == nil || st.Bytes > 2*o.SegmentBytes {
		t.Errorf("status %+v, want a fault and the old segments gone", st)
	}
	mustAdd(t, s, 201, 210)
	d.free = 1000
	h := newHub()
	mustDrain(t, s, h)
	account(t, h, 210)
	if st := s.Status(); st.Fault != nil {
		t.Errorf("still at fault: %v", st.Fault)
	}
}

func TestFullDiskIsBridgedInMemory(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 50)
	h := newHub()
	h.limit = 10
	mustDrain(t, s, h)
	d.fail = full
	mustAdd(t, s, 51, 100)
	if err := s.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("sync: %v, want ENOSPC", err)
	}
	if st := s.Status(); !errors.Is(st.Fault, syscall.ENOSPC) || st.InMemory != 50 {
		t.Errorf("status %+v, want ENOSPC and 50 records in memory", st)
	}
	h.limit = 60 // some from the disk, some from memory
	if err := h.drain(s); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, h.bodies(), 1, 70)
	d.fail = nil
	mustAdd(t, s, 101, 110)
	if err := s.Sync(); err != nil {
		t.Fatalf("sync after there is room: %v", err)
	}
	if st := s.Status(); st.Fault != nil || st.InMemory != 0 {
		t.Errorf("status %+v, want everything on disk", st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d.killed(d.count()), small)
	h.limit = 0
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 110)
	if len(h.gaps) != 0 {
		t.Errorf("gaps %+v, want none", h.gaps)
	}
}

func TestMemoryIsBoundedWhileTheDiskFails(t *testing.T) {
	d := newDisk()
	o := small
	o.RAMBytes = 8192
	s := open(t, d, o)
	mustAdd(t, s, 1, 30)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	d.fail = full
	for id := uint64(31); id <= 1000; id++ {
		mustAdd(t, s, id, id)
		if got := s.Status().Bytes; got > 3*4096+o.RAMBytes {
			t.Fatalf("%d bytes at %d", got, id)
		}
	}
	d.fail = nil
	h := newHub()
	mustDrain(t, s, h)
	account(t, h, 1000)
	wantIDs(t, h.bodies()[:30], 1, 30)
}

func TestReadOnlyDiskStartsInMemoryUnderANewStream(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 20)
	old := s.Outgoing().Stream
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	d.fail = func(string, string) error { return syscall.EROFS }
	s = open(t, d, small)
	if st := s.Status(); !errors.Is(st.Fault, syscall.EROFS) {
		t.Fatalf("status %+v, want EROFS", st)
	}
	mustAdd(t, s, 21, 30)
	h := newHub()
	if err := h.drain(s); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, h.bodies(), 1, 30)
	if h.acked[old] != 20 {
		t.Errorf("acknowledged %v: the clean mark is still on the disk, so new data must not use its stream", h.acked)
	}
	if err := s.Close(); err == nil {
		t.Error("close of a spool in RAM mode said that all is well")
	}
}

func TestEveryDiskFaultKeepsWhatWasAppended(t *testing.T) {
	for _, once := range []bool{true, false} {
		for n := 1; ; n++ {
			fired, err := faultAt(n, once)
			if err != nil {
				t.Fatalf("change %d fails, once %v: %v", n, once, err)
			}
			if !fired {
				break
			}
		}
	}
}

// faultAt lets the n-th change fail, and all after it until the disk is repaired, or only that one.
func faultAt(n int, once bool) (fired bool, err error) {
	d := newDisk()
	s, err := spool.Open("", small.WithFS(d))
	if err != nil {
		return false, err
	}
	left := n
	d.fail = func(string, string) error {
		if left--; left == 0 || left < 0 && !once {
			fired = true
			return syscall.EIO
		}
		return nil
	}
	h := newHub()
	rng := rand.New(rand.NewPCG(uint64(n), 3))
	for id := uint64(1); id <= 120; id++ {
		if err := add(s, id); err != nil {
			return fired, err
		}
		if rng.IntN(9) == 0 {
			_ = s.Sync() // may fail: that is the test
		}
		if rng.IntN(30) == 0 {
			h.limit = 15
			if err := h.drain(s); err != nil {
				return fired, err
			}
		}
	}
	d.fail, h.limit = nil, 0
	if err := h.drainAll(s); err != nil {
		return fired, err
	}
	ids := h.bodies()
	for i, id := range ids {
		if id != uint64(i)+1 {
			return fired, fmt.Errorf("record %d is %d", i, id)
		}
	}
	var onDisk int64
	for name, n := range d.names {
		if name != "state" {
			onDisk += int64(len(n.data))
		}
	}
	if got := s.Status().Bytes; got != onDisk {
		return fired, fmt.Errorf("the spool counts %d bytes, the disk %d: something was left behind", got, onDisk)
	}
	if len(ids) != 120 || len(h.gaps) != 0 {
		return fired, fmt.Errorf("%d records and %d gaps, want 120 and none", len(ids), len(h.gaps))
	}
	return fired, s.Close()
}

func TestRunSyncsByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, newDisk(), small)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		mustAdd(t, s, 1, 2)
		time.Sleep(4 * time.Second)
		if st := s.Status(); st.InMemory != 2 {
			t.Errorf("synced before its time: %+v", st)
		}
		time.Sleep(2 * time.Second)
		if st := s.Status(); st.InMemory != 0 {
			t.Errorf("not synced in time: %+v", st)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
}

func TestWritesStayBelowThreeBytesAByte(t *testing.T) {
	d := newDisk()
	s := open(t, d, spool.Options{MinFree: -1})
	h := newHub()
	var appended int
	for id := uint64(1); id <= 20000; id++ {
		b := make([]byte, 300) // ten seconds of a few sensors
		copy(b, body(id))
		mustContext(t, s, id)
		if err := s.Append(spool.Entry{Count: 30, Body: b}); err != nil {
			t.Fatal(err)
		}
		appended += len(b)
		if id%100 == 0 {
			mustDrain(t, s, h)
		}
	}
	written := 0
	for _, o := range d.ops {
		written += len(o.data)
	}
	if written > 2*appended {
		t.Errorf("%d bytes were written for %d", written, appended)
	}
}

// opening is a disk that calls onOpen before a file is opened.
type opening struct {
	*disk
	onOpen func(name string)
}

func (o *opening) Open(name string, write bool) (spool.File, error) {
	if f := o.onOpen; f != nil && !write {
		o.onOpen = nil
		f(name)
	}
	return o.disk.Open(name, write)
}

func TestSegmentDroppedWhileTheReaderOpensItIsNoDamage(t *testing.T) {
	d := &opening{disk: newDisk()}
	o := small
	o.MaxBytes = 4 * o.SegmentBytes
	s, err := spool.Open("", o.WithFS(d))
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, 1, 60)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	d.onOpen = func(string) { mustAdd(t, s, 61, 120) } // which drops what is about to be read
	h := newHub()
	if err := h.drainAll(s); err != nil {
		t.Fatal(err)
	}
	account(t, h, 120)
	for _, g := range h.gaps {
		if g.Cause != device.CauseSpoolFull {
			t.Errorf("gap %+v, want only those of a full spool", g)
		}
	}
}
