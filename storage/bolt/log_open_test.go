package bolt_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
)

func TestLogRefusesWhatDoesNotBelong(t *testing.T) {
	for name, test := range map[string]struct {
		make func(path string) error
		text string
	}{
		"folder":        {func(path string) error { return os.Mkdir(path, 0o700) }, "folder"},
		"symbolic link": {func(path string) error { return os.Symlink("/dev/null", path) }, "symbolic link"},
		"other program": {func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte("SQLite format 3\x00"), 4096), 0o600)
		}, "not a database file"},
		"empty": {func(path string) error { return os.WriteFile(path, nil, 0o600) }, "0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := openLog(t, dir, bolt.LogOptions{})
			if _, err := l.Append(t.Context(), []byte("one"), 0); err != nil {
				t.Fatal(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, fmt.Sprintf("%020d.bolt", 2))
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			_, err := bolt.OpenLog(dir, bolt.LogOptions{FreeBytes: -1})
			if err == nil || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), "move it away") && !strings.Contains(err.Error(), "not a database") {
				t.Fatalf("got %v", err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			l = openLog(t, dir, bolt.LogOptions{})
			wantAll(t, l, &logImage{groups: map[storage.Position][]byte{1: []byte("one")}})
		})
	}
}

func TestSecondLogIsToldWhoHasIt(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, bolt.LogOptions{})
	_, err := bolt.OpenLog(dir, bolt.LogOptions{})
	if !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprint("pid ", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if _, err := l.Append(t.Context(), []byte("x"), 0); err != nil {
		t.Errorf("the first was harmed: %v", err)
	}
}

func TestMissingSegmentIsToldAtItsPlace(t *testing.T) {
	crashed, closed := buildLog(t, 1)
	for name, m := range map[string]*logImage{"crashed": crashed, "closed": closed} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			gone := m.names()[1]
			m.write(t, dir, func(name string, b []byte) []byte {
				if name == gone {
					return nil
				}
				return b
			})
			l, err := bolt.OpenLog(dir, flipOptions)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if len(l.Damage()) == 0 {
				t.Error("nothing was reported at the start")
			}
			lost, err := m.examine(t, l)
			if err != nil || lost == 0 {
				t.Errorf("%d groups lost, %v", lost, err)
			}
		})
	}
}

// TestDamagedGroupIsHandedOut checks that a group with a flipped bit comes back in full length, marked, in its place.
func TestDamagedGroupIsHandedOut(t *testing.T) {
	dir := t.TempDir()
	l, err := bolt.OpenLog(dir, flipOptions)
	if err != nil {
		t.Fatal(err)
	}
	secret := bytes.Repeat([]byte("0123456789"), 2000)
	for _, group := range [][]byte{[]byte("before"), secret, []byte("behind")} {
		if _, err := l.Append(t.Context(), group, l.Last()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fmt.Sprintf("%020d.bolt", 1))
	b := readFile(t, path)
	for at := 0; ; { // in every copy, so that none can help
		n := bytes.Index(b[at:], []byte("45678901234567890123"))
		if n < 0 {
			break
		}
		b[at+n+3] ^= 1
		at += n + 4096
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err = bolt.OpenLog(dir, flipOptions); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var got []storage.Entry
	if err := l.Read(t.Context(), 0, func(e storage.Entry) bool { got = append(got, e); return true }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Damaged || !got[1].Damaged || got[2].Damaged || len(got[1].Group) != len(secret) || got[1].Position != 2 {
		t.Fatalf("got %d entries", len(got))
	}
	if len(l.Damage()) != 1 {
		t.Errorf("reported: %v", l.Damage())
	}
}

// signal is a log handler that tells of errors.
type signal chan slog.Record

func (s signal) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (s signal) Handle(_ context.Context, r slog.Record) error    { s <- r; return nil }
func (s signal) WithAttrs([]slog.Attr) slog.Handler               { return s }
func (s signal) WithGroup(string) slog.Handler                    { return s }

// TestOldSegmentsAreReadInTheBackground damages a group in the first segment of a log that was closed in order: the start
// does not read it, but it is found although nobody reads the log.
func TestOldSegmentsAreReadInTheBackground(t *testing.T) {
	_, closed := buildLog(t, 2)
	dir := t.TempDir()
	first := closed.names()[0]
	at := closed.longestGroupIn(first)
	closed.write(t, dir, func(name string, b []byte) []byte {
		if name == first {
			b[at+500] ^= 1
		}
		return b
	})
	o, found := flipOptions, make(signal, 10)
	o.Logger = slog.New(found)
	l, err := bolt.OpenLog(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	<-found
	if len(l.Damage()) == 0 {
		t.Error("nothing was reported")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWhatIsFoundInTheBackgroundIsRescued damages a page of the first segment of a log that was closed in order. Nothing is
// appended in the run that finds it, and the next start must rescue the file all the same.
func TestWhatIsFoundInTheBackgroundIsRescued(t *testing.T) {
	_, closed := buildLog(t, 4)
	dir := t.TempDir()
	first := closed.names()[0]
	at := closed.longestGroupIn(first)
	closed.write(t, dir, func(name string, b []byte) []byte {
		if name == first {
			clear(b[at/4096*4096:][:4096])
		}
		return b
	})
	o, found := flipOptions, make(signal, 10)
	o.Logger = slog.New(found)
	l, err := bolt.OpenLog(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	<-found
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = bolt.OpenLog(dir, flipOptions); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := os.Stat(filepath.Join(dir, first+".damaged-1")); err != nil {
		t.Errorf("the file was not rescued: %v", err)
	}
}

// TestSegmentWithoutMetaPagesIsRescued clears the first two pages, so that the file does not even say that it is a database.
func TestSegmentWithoutMetaPagesIsRescued(t *testing.T) {
	crashed, closed := buildLog(t, 5)
	for name, m := range map[string]*logImage{"crashed": crashed, "closed": closed} {
		names := m.names()
		for place, victim := range map[string]string{"first": names[0], "last": names[len(names)-1]} {
			t.Run(name+" "+place, func(t *testing.T) {
				dir := t.TempDir()
				m.write(t, dir, func(name string, b []byte) []byte {
					if name == victim {
						clear(b[:2*4096])
					}
					return b
				})
				_, damage, err := m.readOnly(t, dir)
				if err != nil || len(damage) == 0 {
					t.Errorf("read-only: damage %v, %v", damage, err)
				}
				if outcome, err := m.try(t, dir); err != nil || outcome != "reported, nothing lost" {
					t.Errorf("%s, %v", outcome, err)
				}
			})
		}
	}
}

func TestRescueKeepsTheDamagedFile(t *testing.T) {
	crashed, _ := buildLog(t, 3)
	dir := t.TempDir()
	first := crashed.names()[0]
	at := crashed.longestGroupIn(first) // a page that is surely in use
	var damaged []byte
	crashed.write(t, dir, func(name string, b []byte) []byte {
		if name == first {
			clear(b[at/4096*4096:][:4096])
			damaged = slices.Clone(b)
		}
		return b
	})
	l, err := bolt.OpenLog(dir, flipOptions)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := readFile(t, filepath.Join(dir, first+".damaged-1")); !bytes.Equal(got, damaged) {
		t.Error("the damaged file was changed")
	}
	if ds := l.Damage(); len(ds) == 0 || !strings.Contains(ds[0].Action, first+".damaged-1") {
		t.Errorf("reported: %v", ds)
	}
}
