package bolt_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// fillUp appends groups until the log says that it is full.
func fillUp(t *testing.T, l *bolt.Log, m *logImage) {
	t.Helper()
	for n := 0; ; n++ {
		group := []byte(fmt.Sprintf("%d %100000d", n, n))
		last := l.Last()
		p, err := l.Append(t.Context(), group, last)
		if errors.Is(err, storage.ErrFull) {
			if l.Last() != last {
				t.Fatalf("Last() went from %d to %d although the log is full", last, l.Last())
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		m.groups[p], m.last = group, p
	}
}

func TestFullDiskIsAPause(t *testing.T) {
	disk := smallDisk(t, 12<<20)
	other := filepath.Join(disk, "other")
	if err := os.WriteFile(other, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(disk, "log")
	l, err := bolt.OpenLog(dir, bolt.LogOptions{SegmentBytes: 1 << 20, FreeBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	m := &logImage{groups: make(map[storage.Position][]byte)}
	fillUp(t, l, m)
	full := m.last
	wantAll(t, l, m)
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	fillUp(t, l, m) // goes on by itself, until the disk is full again
	if m.last <= full {
		t.Error("the log did not go on after space was freed")
	}
	wantAll(t, l, m)
	if err := l.Trim(t.Context(), full); err != nil {
		t.Fatal(err)
	}
	for p := range m.groups {
		if p <= l.First() {
			delete(m.groups, p)
		}
	}
	before := m.last
	fillUp(t, l, m)
	if m.last <= before {
		t.Error("the log did not go on after it was trimmed")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = openLog(t, dir, bolt.LogOptions{SegmentBytes: 1 << 20})
	wantAll(t, l, m)
}

func TestLimitIsAPause(t *testing.T) {
	o := bolt.LogOptions{SegmentBytes: 1 << 20, MaxBytes: 6 << 20}
	l := openLog(t, t.TempDir(), o)
	m := &logImage{groups: make(map[storage.Position][]byte)}
	fillUp(t, l, m)
	if n := l.Size(); n > o.MaxBytes {
		t.Errorf("the log has %d bytes, the limit is %d", n, o.MaxBytes)
	}
	wantAll(t, l, m)
	if err := l.Trim(t.Context(), l.Last()); err != nil {
		t.Fatal(err)
	}
	before := l.Last()
	fillUp(t, l, m)
	if l.Last() <= before {
		t.Error("the log did not go on after it was trimmed")
	}
}

// TestFaultUnderTheMapIsAnError cuts the file that is written to while it is open. Touching a page behind the cut is
// SIGBUS, as it is for a page that the disk cannot read any more.
func TestFaultUnderTheMapIsAnError(t *testing.T) {
	dir := t.TempDir()
	l, err := bolt.OpenLog(dir, bolt.LogOptions{FreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if _, err := l.Append(t.Context(), make([]byte, 10_000), l.Last()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(filepath.Join(dir, fmt.Sprintf("%020d.bolt", 1)), 4*4096); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := l.Append(t.Context(), []byte("x"), l.Last())
		if !errors.Is(err, storage.ErrReadOnly) && !errors.Is(err, storage.ErrUnknown) {
			t.Errorf("append: got %v", err)
		}
	}
	intact := 0
	err = l.Read(t.Context(), 0, func(e storage.Entry) bool {
		if !e.Damaged {
			intact++
		}
		return true
	})
	if intact > 0 {
		t.Errorf("%d intact groups were read from behind the cut", intact)
	}
	if err == nil && len(l.Damage()) == 0 {
		t.Error("no error and no damage was reported")
	}
	if err := l.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
