//go:build linux

package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"telemetryhub/storage"
)

// TestCommitOnAFullDiskWritesNothing lets bbolt itself meet ENOSPC, as the file was not given its space before.
func TestCommitOnAFullDiskWritesNothing(t *testing.T) {
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("a small disk needs root and the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	path, other := filepath.Join(disk, "f.bolt"), filepath.Join(disk, "other")
	f := mustOpen(t, path, testOptions())
	value := func(i int) string { return fmt.Sprintf("%d %3000d", i, i) }
	acked := 0
	for round := range 4 {
		if err := os.WriteFile(other, make([]byte, (3-round)*(256<<10)), 0o600); err != nil {
			t.Fatal(err)
		}
		before, fulls := acked, 0
		for fulls < 3 {
			err := put(f, fmt.Sprintf("%06d", acked), value(acked))
			switch {
			case err == nil:
				acked++
			case errors.Is(err, storage.ErrFull):
				fulls++
			default:
				t.Fatal(err)
			}
		}
		if acked == before {
			t.Errorf("round %d: nothing was stored after space was freed", round)
		}
		for i := range acked {
			if got := get(t, f, fmt.Sprintf("%06d", i)); got != value(i) {
				t.Fatalf("round %d: key %d has %d bytes", round, i, len(got))
			}
		}
		if round%2 == 1 {
			if err := f.close(); err != nil {
				t.Fatal(err)
			}
			f = mustOpen(t, path, testOptions()) // checks every page
		}
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
}

func TestLimitOfAFileWritesNothing(t *testing.T) {
	o := testOptions()
	o.maxBytes, o.growBytes = 1<<20, 64<<10
	path := filepath.Join(t.TempDir(), "f.bolt")
	f := mustOpen(t, path, o)
	var err error
	for i := 0; err == nil && i < 10_000; i++ {
		err = put(f, fmt.Sprint(i), strings.Repeat("some text", 100))
	}
	if !errors.Is(err, storage.ErrFull) {
		t.Fatalf("got %v", err)
	}
	if got := get(t, f, "0"); got != strings.Repeat("some text", 100) {
		t.Errorf("got %d bytes", len(got))
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	f = mustOpen(t, path, o)
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
}
