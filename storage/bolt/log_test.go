package bolt_test

import (
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
	"telemetryhub/storage/storagetest"
)

// reopenable is a log that knows how it was opened.
type reopenable struct {
	*bolt.Log
	dir string
	o   bolt.LogOptions
}

func openLog(t testing.TB, dir string, o bolt.LogOptions) *bolt.Log {
	t.Helper()
	o.FreeBytes = -1
	l, err := bolt.OpenLog(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, d := range l.Damage() {
		t.Errorf("damage: %v", d)
	}
	return l
}

func TestLogConforms(t *testing.T) {
	for name, o := range map[string]bolt.LogOptions{
		"one segment": {}, "many segments": {SegmentBytes: 64 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			storagetest.RunLog(t, storagetest.Harness[storage.Log]{
				Open: func(t testing.TB) storage.Log {
					dir := t.TempDir()
					return &reopenable{openLog(t, dir, o), dir, o}
				},
				Reopen: func(t testing.TB, s storage.Log) storage.Log {
					r := s.(*reopenable)
					if err := r.Close(); err != nil {
						t.Fatal(err)
					}
					return &reopenable{openLog(t, r.dir, r.o), r.dir, r.o}
				},
			})
		})
	}
}
