package spool_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/spool"
)

const damagedRecords = 34

// sample makes a folder with three segments that was closed, or killed.
func sample(t *testing.T, clean bool) *disk {
	t.Helper()
	d := newDisk()
	s := open(t, d, small)
	mustAdd(t, s, 1, damagedRecords)
	if clean {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return d.clone()
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	return d.clone()
}

// survive opens a damaged folder and checks that what comes out is right, and what does not come out is reported.
func survive(d *disk, report bool) error {
	s, err := spool.Open("", small.WithFS(d))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	h := newHub()
	if err := add(s, damagedRecords+1); err != nil {
		return err
	}
	if err := h.drainAll(s); err != nil {
		return err
	}
	seen := map[uint64]bool{}
	var before uint64
	for _, k := range h.order {
		text := h.stored[k]
		if strings.HasPrefix(text, "gap ") {
			continue
		}
		id := idOf([]byte(text))
		if id <= before || id > damagedRecords+1 || text != string(body(id)) {
			return fmt.Errorf("%v is a wrong record: id %d after %d", k, id, before)
		}
		seen[id], before = true, id
	}
	if !seen[damagedRecords+1] {
		return fmt.Errorf("the record that was appended after the damage did not come")
	}
	missing := uint64(0)
	for id := uint64(1); id <= damagedRecords; id++ {
		if !seen[id] {
			missing++
		}
	}
	var reported uint64
	for _, g := range h.gaps {
		if g.Cause != device.CauseDamaged {
			return fmt.Errorf("gap with the wrong cause: %+v", g)
		}
		if g.ToSeq != 0 {
			reported += g.ToSeq - g.FromSeq + 1
		} else {
			reported = damagedRecords // a gap of an older stream has no numbers
		}
	}
	if report && reported < missing {
		return fmt.Errorf("%d records are missing, %d reported: %+v", missing, reported, h.gaps)
	}
	if missing == 0 && len(h.gaps) > 0 {
		return fmt.Errorf("nothing is missing, but gaps were reported: %+v", h.gaps)
	}
	return nil
}

// stride is how many bytes apart the damage is: every byte of a spool that was closed, fewer of one that was not.
func stride(clean bool) int {
	if clean {
		return 1
	}
	return 5
}

func TestFlippedByteNeverGivesAWrongRecord(t *testing.T) {
	for _, clean := range []bool{true, false} {
		d := sample(t, clean)
		for _, name := range slices.Sorted(maps.Keys(d.names)) {
			for i := 0; i < len(d.names[name].data); i += stride(clean) {
				c := d.clone()
				c.names[name].data[i] ^= 1 << (i % 8)
				// Without the clean mark a damaged last record cannot be told from a torn one, but this run was synced:
				// only the state knows, and it was written before.
				if err := survive(c, clean); err != nil {
					t.Fatalf("clean %v, %s, byte %d flipped: %v", clean, name, i, err)
				}
			}
		}
	}
}

func TestTruncatedFileNeverGivesAWrongRecord(t *testing.T) {
	for _, clean := range []bool{true, false} {
		d := sample(t, clean)
		for _, name := range slices.Sorted(maps.Keys(d.names)) {
			for i := 0; i < len(d.names[name].data); i += stride(clean) {
				c := d.clone()
				c.names[name].data = c.names[name].data[:i]
				if err := survive(c, clean && name != "state"); err != nil {
					t.Fatalf("clean %v, %s, cut to %d bytes: %v", clean, name, i, err)
				}
			}
		}
	}
}

func TestLostFileIsReported(t *testing.T) {
	d := sample(t, true)
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		c := d.clone()
		delete(c.names, name)
		if err := survive(c, true); err != nil {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

func TestZeroedPageIsSteppedOver(t *testing.T) {
	d := sample(t, true)
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		data := d.names[name].data
		for off := 0; off < len(data); off += 512 {
			c := d.clone()
			clear(c.names[name].data[off:min(off+512, len(data))])
			if err := survive(c, name != "state"); err != nil {
				t.Errorf("%s, 512 bytes from %d zeroed: %v", name, off, err)
			}
		}
	}
}

func TestDamageIsReportedOnce(t *testing.T) {
	d := sample(t, true)
	names := slices.Sorted(maps.Keys(d.names))
	d.names[names[1]].data[700] ^= 1
	h := newHub()
	h.limit = 20 // the first run sees the damage, and is killed before the report is delivered
	s := open(t, d, small)
	mustDrain(t, s, h)
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	h.limit = 0
	h.acked = map[string]uint64{s.Outgoing().Stream: 0} // and the hub forgets, so that all is read again
	h.stored, h.order = map[key]string{}, nil
	s = open(t, d, small)
	if err := h.drainAll(s); err != nil {
		t.Fatal(err)
	}
	if len(h.gaps) != 1 || h.gaps[0].FromSeq != h.gaps[0].ToSeq || h.gaps[0].FromSeq == 0 {
		t.Errorf("gaps %+v, want one record reported once", h.gaps)
	}
}

func TestRecordInsideADataBodyIsNotBelieved(t *testing.T) {
	// A body that holds a whole segment of another spool, then damage in front of it.
	inner := sample(t, true)
	var payload []byte
	for _, name := range slices.Sorted(maps.Keys(inner.names)) {
		if strings.HasSuffix(name, ".seg") {
			payload = append(payload, inner.names[name].data...)
		}
	}
	d := newDisk()
	s := open(t, d, small)
	mustContext(t, s, 200)
	if err := s.Append(spool.Entry{Count: 1, Body: payload}); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, s, 200, 210)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	first := slices.Sorted(maps.Keys(d.names))[0]
	d.names[first].data[100] ^= 1 // the header of the big record: the context before it takes 54 bytes
	h := newHub()
	s = open(t, d, small)
	if err := h.drainAll(s); err != nil {
		t.Fatal(err)
	}
	for _, id := range h.bodies() {
		if id < 200 || id > 210 {
			t.Fatalf("record %d was read out of a body", id)
		}
	}
}

// badPages fails reads that touch some pages.
type badPages struct {
	*disk
	name string
	from int64
}

type badFile struct {
	spool.File
	from int64
}

func (b badPages) Open(name string, write bool) (spool.File, error) {
	f, err := b.disk.Open(name, write)
	if name == b.name && err == nil {
		return badFile{f, b.from}, nil
	}
	return f, err
}

func (b badFile) ReadAt(p []byte, off int64) (int, error) {
	if off < b.from+1024 && off+int64(len(p)) > b.from {
		return 0, syscall.EIO
	}
	return b.File.ReadAt(p, off)
}

func TestUnreadablePageIsSteppedOver(t *testing.T) {
	d := sample(t, true)
	for _, name := range slices.Sorted(maps.Keys(d.names)) {
		if !strings.HasSuffix(name, ".seg") {
			continue
		}
		for from := int64(0); from < int64(len(d.names[name].data)); from += 1024 {
			s, err := spool.Open("", small.WithFS(badPages{d.clone(), name, from}))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			h := newHub()
			if err := h.drainAll(s); err != nil {
				t.Fatalf("%s, page at %d: %v", name, from, err)
			}
			ids := h.bodies()
			if len(h.gaps) == 0 || len(ids) >= damagedRecords || len(ids) < damagedRecords/6 {
				t.Errorf("%s, page at %d: %d records came, gaps %+v", name, from, len(ids), h.gaps)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	d := newDisk()
	s, err := spool.Open("", small.WithFS(d))
	if err != nil {
		f.Fatal(err)
	}
	for id := uint64(1); id <= damagedRecords; id++ {
		if err := add(s, id); err != nil {
			f.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(uint8(0), uint16(0), uint16(0), []byte{})
	f.Add(uint8(1), uint16(60), uint16(4), []byte{0xff, 0xff, 0, 0})
	f.Add(uint8(3), uint16(9), uint16(1), []byte("12345678901"))
	f.Fuzz(func(t *testing.T, file uint8, off, cut uint16, put []byte) {
		c := d.clone()
		names := slices.Sorted(maps.Keys(c.names))
		n := c.names[names[int(file)%len(names)]]
		at := min(int(off), len(n.data))
		end := min(at+int(cut), len(n.data))
		n.data = slices.Replace(n.data, at, end, put...)
		if err := survive(c, false); err != nil {
			t.Fatal(err)
		}
	})
}
