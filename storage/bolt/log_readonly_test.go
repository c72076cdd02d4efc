package bolt_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

// readOnly opens the folder for reading, looks at everything, and checks that no byte of it has changed.
func (m *logImage) readOnly(t *testing.T, dir string) (lost int, damage []bolt.Damage, err error) {
	t.Helper()
	before := snapshot(t, dir, m.groups)
	o := flipOptions
	o.ReadOnly = true
	l, err := bolt.OpenLog(dir, o)
	if err != nil {
		return 0, nil, err
	}
	if lost, err = m.examine(t, l); err != nil {
		return lost, l.Damage(), errors.Join(err, l.Close())
	}
	if _, err := l.Append(t.Context(), []byte("no"), l.Last()); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("Append: %v, want ErrReadOnly", err)
	}
	if err := l.Trim(t.Context(), l.Last()); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("Trim: %v, want ErrReadOnly", err)
	}
	damage = l.Damage()
	if err := errors.Join(l.Close(), l.Close()); err != nil {
		t.Errorf("Close: %v", err)
	}
	after := snapshot(t, dir, m.groups)
	for name, b := range before.files {
		if !bytes.Equal(b, after.files[name]) {
			t.Errorf("%s was changed", name)
		}
	}
	if len(after.files) != len(before.files) {
		t.Errorf("%d segments, there were %d", len(after.files), len(before.files))
	}
	return lost, damage, nil
}

func TestReadOnlyLogShowsEverythingAndChangesNothing(t *testing.T) {
	crashed, closed := buildLog(t, 1)
	for name, m := range map[string]*logImage{"crashed": crashed, "closed": closed} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m.write(t, dir, nil)
			lost, damage, err := m.readOnly(t, dir)
			if lost != 0 || len(damage) != 0 || err != nil {
				t.Errorf("lost %d, damage %v, %v", lost, damage, err)
			}
		})
	}
	o := flipOptions
	o.ReadOnly = true
	if _, err := bolt.OpenLog(t.TempDir(), o); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("an empty folder: %v, want ErrNotFound", err)
	}
}

func TestReadOnlyLogFindsFlippedBits(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	crashed, closed := buildLog(t, seed)
	root, r := fastDir(t), rand.New(rand.NewPCG(seed, 9))
	found := 0
	for i := range flipCount(t) / 4 {
		m := []*logImage{crashed, closed}[r.IntN(2)]
		names := m.names()
		victim := names[r.IntN(len(names))]
		bit, what := newFlipper(m.files[victim], r.Uint64()).draw()
		dir := filepath.Join(root, fmt.Sprint("ro", i))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		m.write(t, dir, func(name string, b []byte) []byte {
			if name == victim {
				b[bit/8] ^= 1 << (bit % 8)
			}
			return b
		})
		_, damage, err := m.readOnly(t, dir)
		if err != nil {
			t.Errorf("%s, bit %d (%s): %v", victim, bit, what, err)
		}
		found += min(1, len(damage))
		_ = os.RemoveAll(dir) // only to save space
	}
	if found == 0 {
		t.Error("no damage was found at all")
	}
}
