package spool_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/spool"
)

func TestRecordsComeBackInOrderWithTheirContext(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 200)
	h := newHub()
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 200)
	for i, k := range h.order {
		if k.seq != uint64(i)+1 {
			t.Fatalf("record %d has sequence %d", i, k.seq)
		}
	}
	if st := s.Status(); st.Waiting != 0 || st.InMemory != 0 {
		t.Errorf("status after everything was acknowledged: %+v", st)
	}
}

func TestNothingIsHandedOutBeforeItIsDurable(t *testing.T) {
	s := open(t, newDisk(), small)
	mustAdd(t, s, 1, 3)
	h := newHub()
	if err := h.drain(s); err != nil {
		t.Fatal(err)
	}
	if len(h.order) != 0 {
		t.Fatalf("%d records were handed out before the sync", len(h.order))
	}
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 3)
}

func TestNegativeSyncEveryMakesEachAppendDurable(t *testing.T) {
	d := newDisk()
	o := small
	o.SyncEvery = -1
	s := open(t, d, o)
	mustAdd(t, s, 1, 3)
	h := newHub()
	if err := h.drain(s); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, h.bodies(), 1, 3)
}

func TestCleanCloseKeepsTheStream(t *testing.T) {
	d := newDisk()
	h := newHub()
	for run := range uint64(5) {
		s := open(t, d, small)
		mustAdd(t, s, run*50+1, run*50+50)
		if run%2 == 0 {
			mustDrain(t, s, h)
		}
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	wantIDs(t, h.bodies(), 1, 250)
	if len(h.acked) != 1 {
		t.Errorf("%d streams were used, want 1", len(h.acked))
	}
}

func TestUncleanEndTakesANewStreamAndDeliversTheOldOneFirst(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 20)
	h := newHub()
	h.limit = 8
	mustDrain(t, s, h)
	d = d.killed(d.count()) // twenty records, eight delivered, no Close
	first := s.Outgoing().Stream

	s = open(t, d, small)
	mustAdd(t, s, 21, 30)
	if out := s.Outgoing(); out.Stream != first || out.Current || out.Next != 21 {
		t.Fatalf("outgoing is %+v, want the old stream %s up to 20", out, first)
	}
	h.limit = 0
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 30)
	if h.acked[first] != 20 || len(h.acked) != 2 {
		t.Errorf("acknowledged %v, want 20 of %s and 10 of a new stream", h.acked, first)
	}
	if out := s.Outgoing(); !out.Current || out.Next != 11 {
		t.Errorf("outgoing is %+v, want the new stream with 11 as its next number", out)
	}
}

func TestLostTailThatTheHubHasIsNotReused(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 10)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	cut := d.count()
	mustAdd(t, s, 11, 20)
	h := newHub()
	mustDrain(t, s, h) // the hub has 20, and then the card forgets the last ten

	s = open(t, d.killed(cut), small)
	mustAdd(t, s, 101, 110)
	mustDrain(t, s, h)
	got := h.bodies()
	wantIDs(t, got[:20], 1, 20)
	wantIDs(t, got[20:], 101, 110)
}

func TestClonedSpoolForksInsteadOfLosingData(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 10)
	h := newHub()
	mustDrain(t, s, h)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clone := d.clone()

	a := open(t, d, small)
	mustAdd(t, a, 11, 15)
	mustDrain(t, a, h)

	b := open(t, clone, small) // runs offline for a while, is even closed, and meets the hub later
	mustAdd(t, b, 111, 140)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b = open(t, clone, small)
	mustAdd(t, b, 141, 142)
	mustDrain(t, b, h)

	mustAdd(t, a, 16, 17)
	mustDrain(t, a, h)
	got := h.bodies()
	wantIDs(t, got[:15], 1, 15)
	wantIDs(t, got[15:47], 111, 142)
	wantIDs(t, got[47:], 16, 17)
}

func TestAcknowledgementOfTheUnsentForksOnce(t *testing.T) {
	s := open(t, newDisk(), small)
	mustAdd(t, s, 1, 5)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	before := s.Outgoing()
	for _, ack := range []uint64{1, 5, 6, 1 << 63, 1<<64 - 1} {
		out := s.Outgoing()
		if _, err := s.Resume(out.Stream, ack); !errors.Is(err, spool.ErrForked) {
			t.Fatalf("resume with %d acknowledged: %v, want ErrForked", ack, err)
		}
	}
	if out := s.Outgoing(); out.Stream == before.Stream || out.Have != 1 || out.Next != 6 {
		t.Errorf("outgoing is %+v, want a new stream with five records", out)
	}
	h := newHub()
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 5)
}

func TestAckOfTheUnsentIsRefused(t *testing.T) {
	s := open(t, newDisk(), small)
	mustAdd(t, s, 1, 5)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	out := s.Outgoing()
	r, err := s.Resume(out.Stream, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second is looked at, but not sent
		if _, ok, err := r.Next(); !ok || err != nil {
			t.Fatalf("next: %v, %v", ok, err)
		}
		if s.Status().Waiting == 5 && !r.Sending() {
			t.Fatal("the first record is not to be sent")
		}
		if err := s.Ack(out.Stream, 1); err != nil {
			t.Errorf("ack 1: %v", err)
		}
	}
	for _, seq := range []uint64{2, 1 << 63, 1<<64 - 1} {
		if err := s.Ack(out.Stream, seq); !errors.Is(err, spool.ErrAck) {
			t.Errorf("ack %d: %v, want ErrAck", seq, err)
		}
	}
	if got := s.Status().Waiting; got != 4 {
		t.Errorf("%d batches wait, want 4", got)
	}
}

func TestHubThatForgotGetsWhatIsLeft(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 12)
	h := newHub()
	mustDrain(t, s, h)
	old := newHub() // restored from a backup that ends at 7
	out := s.Outgoing()
	old.acked[out.Stream] = 7
	mustDrain(t, s, old)
	wantIDs(t, old.bodies(), 8, 12)
	fresh := newHub() // knows nothing
	mustDrain(t, s, fresh)
	wantIDs(t, fresh.bodies(), 1, 12)
}

func TestNewReaderEndsTheOldOne(t *testing.T) {
	s := open(t, newDisk(), small)
	mustAdd(t, s, 1, 5)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	st := s.Outgoing().Stream
	r1, err1 := s.Resume(st, 0)
	r2, err2 := s.Resume(st, 0)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r1.Next(); !errors.Is(err, spool.ErrStale) {
		t.Errorf("old reader: %v, want ErrStale", err)
	}
	if rec, ok, err := r2.Next(); !ok || err != nil || rec.Seq != 1 {
		t.Errorf("new reader: %+v %v %v", rec, ok, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r2.Next(); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("reader of a closed spool: %v, want ErrClosed", err)
	}
	if err := s.Append(entryOf(9)); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("append to a closed spool: %v, want ErrClosed", err)
	}
}

func TestUnknownAndFutureStreamsAreRefused(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 5)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d.killed(d.count()), small)
	mustAdd(t, s, 6, 8)
	if _, err := s.Resume("nobody", 0); !errors.Is(err, spool.ErrStream) {
		t.Errorf("resume of an unknown stream: %v, want ErrStream", err)
	}
	h := newHub()
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 8)
}

func TestOversizedEntriesAreRefused(t *testing.T) {
	s := open(t, newDisk(), small)
	for name, e := range map[string]spool.Entry{
		"body": {Body: make([]byte, spool.MaxBody+1)},
		"span": {ToMS: 1 << 32},
		"back": {FromMS: 1},
		"wrap": {FromMS: -1 << 63, ToMS: 1<<63 - 1},
	} {
		if err := s.Append(e); !errors.Is(err, spool.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
	}
	if err := s.Append(spool.Entry{Body: make([]byte, spool.MaxBody), ToMS: spool.MaxSpan.Milliseconds()}); err != nil {
		t.Errorf("the largest entry: %v", err)
	}
	if err := s.SetContext(make([]byte, spool.MaxBody+1)); !errors.Is(err, spool.ErrTooLarge) {
		t.Errorf("context: %v, want ErrTooLarge", err)
	}
}

func TestGapOfTheCallerKeepsItsPlace(t *testing.T) {
	s := open(t, newDisk(), small)
	mustAdd(t, s, 1, 2)
	want := device.Gap{Count: 17, FromMS: 5, ToMS: 9, Cause: device.CauseSensor}
	if err := s.AppendGap(want); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, 3, 4)
	h := newHub()
	mustDrain(t, s, h)
	want.Seq = 3
	if len(h.gaps) != 1 || h.gaps[0] != want {
		t.Errorf("gaps %+v, want %+v", h.gaps, want)
	}
	wantIDs(t, h.bodies(), 1, 4)
}

func TestSecondAgentOnOneFolderIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := spool.Open(dir, spool.Options{}); !errors.Is(err, spool.ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
	}
	if err := add(s, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err = spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatalf("open after close: %v", err)
	}
	h := newHub()
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestNewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, patch := range map[string]func(*disk){
		"state":   func(c *disk) { c.names["state"].data = newerState },
		"segment": func(c *disk) { newerSegment(c) },
	} {
		c := d.clone()
		patch(c)
		c.names["x.tmp"] = &inode{}
		if _, err := spool.Open("", small.WithFS(c)); !errors.Is(err, spool.ErrNewerFormat) {
			t.Errorf("%s: %v, want ErrNewerFormat", name, err)
		}
		if c.count() != 0 {
			t.Errorf("%s: %d changes were made", name, c.count())
		}
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "notes.txt")
	if err := os.WriteFile(foreign, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(dir, spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(foreign); err != nil || string(got) != "mine" {
		t.Errorf("foreign file: %q, %v", got, err)
	}
	if _, err := spool.Open(foreign, spool.Options{}); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("open of a file: %v, want ENOTDIR", err)
	}
}

func TestMemorySpoolKeepsAndForgets(t *testing.T) {
	s, err := spool.NewMemory(spool.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, 1, 100)
	h := newHub()
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 100)
	if st := s.Status(); st.Bytes != 0 || st.Fault != nil {
		t.Errorf("status %+v, want no bytes and no fault", st)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestReadyTellsOfNewRecords(t *testing.T) {
	s := open(t, newDisk(), small)
	select {
	case <-s.Ready():
		t.Fatal("ready before anything was appended")
	default:
	}
	mustAdd(t, s, 1, 1)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Ready():
	default:
		t.Fatal("not ready after a sync")
	}
}

func TestOldStreamEndsWithEOF(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 2)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d.killed(d.count()), small)
	r, err := s.Resume(s.Outgoing().Stream, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, ok, err := r.Next(); !ok || err != nil {
			t.Fatalf("next: %v %v", ok, err)
		}
	}
	if _, ok, err := r.Next(); ok || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v %v, want io.EOF", ok, err)
	}
}

func TestTornTailIsCutOnlyOnce(t *testing.T) {
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, 5)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, 6, 6)
	d = d.killed(d.count())
	for name, n := range d.names {
		if name != "state" {
			n.data = n.data[:len(n.data)-3]
		}
	}
	s = open(t, d, small)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, d, small)
	mustAdd(t, s, 6, 6)
	h := newHub()
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 1, 6)
	if len(h.acked) != 2 {
		t.Errorf("%d streams were used, want the one before the crash and one after it", len(h.acked))
	}
}
