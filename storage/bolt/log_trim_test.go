package bolt

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"telemetryhub/storage"
)

// warnings is a log handler that tells of warnings.
type warnings chan string

func (w warnings) Enabled(_ context.Context, level slog.Level) bool { return level == slog.LevelWarn }
func (w warnings) Handle(_ context.Context, r slog.Record) error    { w <- r.Message; return nil }
func (w warnings) WithAttrs([]slog.Attr) slog.Handler               { return w }
func (w warnings) WithGroup(string) slog.Handler                    { return w }

// appendToSegments appends groups until the log has so many segments.
func appendToSegments(t *testing.T, l *Log, n int) {
	t.Helper()
	for more := true; more; {
		if _, err := l.Append(t.Context(), make([]byte, 10_000), l.Last()); err != nil {
			t.Fatal(err)
		}
		l.mu.Lock()
		more = len(l.segments) < n
		l.mu.Unlock()
	}
}

// TestSegmentThatCouldNotBeClosedIsTrimmed hides a full segment while it is closed for writing, as a process without free
// descriptors would not find it.
func TestSegmentThatCouldNotBeClosedIsTrimmed(t *testing.T) {
	dir, warned := t.TempDir(), make(warnings, 10)
	l, err := OpenLog(dir, LogOptions{FreeBytes: -1, SegmentBytes: 64 << 10, Logger: slog.New(warned)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	path, hidden := filepath.Join(dir, segmentName(1)), filepath.Join(t.TempDir(), "hidden")
	if err := os.Rename(path, hidden); err != nil {
		t.Fatal(err)
	}
	appendToSegments(t, l, 2)
	t.Log(<-warned)
	if err := os.Rename(hidden, path); err != nil {
		t.Fatal(err)
	}
	last := l.Last()
	if err := l.Trim(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	if l.First() == 0 {
		t.Error("nothing was trimmed")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	if got := outline(t, l); l.Last() != last {
		t.Errorf("Last() = %d, it was %d; %s", l.Last(), last, got)
	}
	appendToSegments(t, l, 2)
}

// TestRescueComesTooLate finds damage in a segment that is trimmed, or closed, before its turn to be rescued comes.
func TestRescueComesTooLate(t *testing.T) {
	for name, end := range map[string]func(l *Log) error{
		"trimmed": func(l *Log) error { return l.Trim(context.Background(), l.Last()) },
		"closed":  (*Log).Close,
	} {
		t.Run(name, func(t *testing.T) {
			l, err := OpenLog(t.TempDir(), LogOptions{FreeBytes: -1, SegmentBytes: 64 << 10})
			if err != nil {
				t.Fatal(err)
			}
			appendToSegments(t, l, 2)
			s := l.segments[0]
			l.keep.sealNow(s)
			src := s.source()
			if err := end(l); err != nil {
				t.Fatal(err)
			}
			if err := l.rescueSegment(s, src, corruptf("page 7 is not what it should be")); err != nil {
				t.Errorf("got %v, want nothing: the caller looks again", err)
			}
			if s.source() != src {
				t.Error("a file was opened that nobody will close")
			}
			err = l.Read(t.Context(), 0, func(storage.Entry) bool { return false })
			if !errors.Is(err, storage.ErrTrimmed) && !errors.Is(err, storage.ErrClosed) {
				t.Errorf("read: got %v", err)
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
