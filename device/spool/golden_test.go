package spool_test

import (
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/spool"
)

var update = flag.Bool("update", false, "write the golden folders anew")

// golden is a spool of version 1: closed once, killed once, with a gap, two contexts, and the first ten records acknowledged.
const golden = "testdata/v1"

func TestGoldenFolderOfVersion1IsRead(t *testing.T) {
	if *update {
		writeGolden(t)
	}
	dir := filepath.Join(t.TempDir(), "spool")
	if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	s, err := spool.Open(dir, spool.Options{MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	h := newHub()
	h.acked["nlthqp2pxxurw3vy"] = 10
	if first := s.Outgoing().Stream; h.acked[first] != 10 {
		t.Errorf("the first stream is %s", first)
	}
	mustAdd(t, s, 21, 21)
	mustDrain(t, s, h)
	wantIDs(t, h.bodies(), 11, 21)
	want := device.Gap{Seq: 16, Count: 5, FromMS: 1000, ToMS: 2000, Cause: device.CauseSensor}
	if len(h.gaps) != 1 || h.gaps[0] != want {
		t.Errorf("gaps %+v, want %+v", h.gaps, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func writeGolden(t *testing.T) {
	t.Helper()
	if err := os.RemoveAll(golden); err != nil {
		t.Fatal(err)
	}
	live := filepath.Join(t.TempDir(), "spool")
	o := spool.Options{SegmentBytes: 4096, MinFree: -1, Rand: rand.NewChaCha8([32]byte{1})}
	s, err := spool.Open(live, o)
	if err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, 1, 15)
	h := newHub()
	h.limit = 10
	mustDrain(t, s, h)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s, err = spool.Open(live, o); err != nil {
		t.Fatal(err)
	}
	if err := s.AppendGap(device.Gap{Count: 5, FromMS: 1000, ToMS: 2000, Cause: device.CauseSensor}); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, 16, 20)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(golden, os.DirFS(live)); err != nil { // killed here
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
