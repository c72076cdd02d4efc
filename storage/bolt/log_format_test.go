package bolt

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

var update = flag.Bool("update", false, "write the golden files of this version")

func TestExampleInFormatIsWhatIsWritten(t *testing.T) {
	text, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```\n01000000 ")
	line, _, closed := strings.Cut(rest, "\n```")
	if !found || !closed {
		t.Fatal("the example is gone")
	}
	want, err := hex.DecodeString(strings.ReplaceAll("01000000"+line, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	got := append(make([]byte, groupHeaderSize), "hello"...)
	sealGroup(got, 7, link{6, 0x01020304}, []byte("hello"))
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, FORMAT.md says %x", got, want)
	}
	if _, err := openGroup(want, 7); err != nil {
		t.Error(err)
	}
}

// goldenGroup is group n of the golden log.
func goldenGroup(n int) []byte { return bytes.Repeat(fmt.Appendf(nil, "group %d ", n), 1+n*n*7) }

const goldenGroups = 14

// TestGoldenLogIsRead opens what version 1 wrote. The folder is never written again, only added to by new versions.
func TestGoldenLogIsRead(t *testing.T) {
	golden := filepath.Join("testdata", fmt.Sprintf("log-v%d", logVersion))
	if *update {
		writeGolden(t, golden)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(dir, LogOptions{FreeBytes: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	n := 0
	err = l.Read(t.Context(), 0, func(e storage.Entry) bool {
		if n++; e.Damaged || e.Position != storage.Position(n) || !bytes.Equal(e.Group, goldenGroup(n)) {
			t.Errorf("group %d: position %d, damaged %v, %d bytes", n, e.Position, e.Damaged, len(e.Group))
		}
		return true
	})
	if err != nil || n != goldenGroups || len(l.Damage()) > 0 {
		t.Errorf("%d groups, %v, %v", n, err, l.Damage())
	}
	if _, err := l.Append(t.Context(), []byte("more"), l.Last()); err != nil {
		t.Error(err)
	}
}

func writeGolden(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := OpenLog(dir, LogOptions{FreeBytes: -1, SegmentBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= goldenGroups; n++ {
		if _, err := l.Append(t.Context(), goldenGroup(n), l.Last()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(dir, "*.bolt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths { // without the space that was set aside
		fd, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := pagesOf(fd)
		if err == nil {
			err = os.Truncate(path, int64(p.meta.high)*pageSize)
		}
		if err = errors.Join(err, fd.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// segmentOf makes a log with one segment of n groups and returns its path.
func segmentOf(t *testing.T, dir string, n int) string {
	t.Helper()
	l, err := OpenLog(dir, LogOptions{FreeBytes: -1, SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := l.Append(t.Context(), []byte("group"), l.Last()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, segmentName(1))
}

// behindItsBack lets bbolt change a segment behind the log's back, so that its pages are in order.
func behindItsBack(t *testing.T, path string, fn func(tx *bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fn), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func groupKey(pos storage.Position, piece int) []byte {
	var b [logKeySize]byte
	return logKey(&b, pos, piece)
}

// TestWhatVanishedInOrderIsFound takes groups away in ways that leave no page out of order.
func TestWhatVanishedInOrderIsFound(t *testing.T) {
	for name, test := range map[string]struct {
		change func(b *bolt.Bucket) error
		want   string // what Read yields, position by position
	}{
		"last group":      {func(b *bolt.Bucket) error { return b.Delete(groupKey(5, 0)) }, "1 2 3 4 -5"},
		"last two groups": {func(b *bolt.Bucket) error { return errors.Join(b.Delete(groupKey(5, 0)), b.Delete(groupKey(4, 0))) }, "1 2 3 -5"},
		"group between":   {func(b *bolt.Bucket) error { return b.Delete(groupKey(3, 0)) }, "1 2 -3 4 5"},
		"first group":     {func(b *bolt.Bucket) error { return b.Delete(groupKey(1, 0)) }, "-1 2 3 4 5"},
		"first piece": {func(b *bolt.Bucket) error {
			return errors.Join(b.Delete(groupKey(2, 0)), b.Put(groupKey(2, 1), []byte("x")))
		}, "1 -2 3 4 5"},
		"group of another": {func(b *bolt.Bucket) error { return b.Put(groupKey(3, 0), foreignGroup(3)) }, "1 2 3 -4 5"},
		"number too small": {func(b *bolt.Bucket) error { return b.SetSequence(4) }, "1 2 3 4 5"},
		"number too large": {func(b *bolt.Bucket) error { return b.SetSequence(7) }, "1 2 3 4 5 -7"},
		"a group too many": {func(b *bolt.Bucket) error { return b.Put(groupKey(1<<40, 0), []byte("x")) }, "1 2 3 4 5"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := segmentOf(t, dir, 5)
			// Pages that became free would give the groups back.
			behindItsBack(t, path, func(tx *bolt.Tx) error {
				return errors.Join(tx.Bucket([]byte(headerBucket)).Delete([]byte(cleanKey)), test.change(tx.Bucket([]byte(logBucket))))
			})
			scrubFree(t, path)
			for round := range 2 {
				l, err := OpenLog(dir, LogOptions{FreeBytes: -1, SegmentBytes: 1 << 20})
				if err != nil {
					t.Fatal(err)
				}
				got := outline(t, l)
				if got != test.want {
					t.Errorf("round %d: got %s, want %s", round, got, test.want)
				}
				if len(l.Damage()) == 0 && round == 0 {
					t.Errorf("round %d: nothing was reported", round)
				}
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if aside, err := filepath.Glob(filepath.Join(dir, "*.damaged-*")); err != nil || len(aside) > 1 {
				t.Errorf("the same damage was rescued again: %v, %v", aside, err)
			}
		})
	}
}

// foreignGroup is a group with a right seal, of another log.
func foreignGroup(pos storage.Position) []byte {
	b := append(make([]byte, groupHeaderSize), "other"...)
	sealGroup(b, pos, link{pos - 1, 0}, []byte("other"))
	return b
}

// outline reads a log: the position of each intact group, and minus that of each damaged entry.
func outline(t *testing.T, l *Log) string {
	t.Helper()
	var out []string
	err := l.Read(context.Background(), l.First(), func(e storage.Entry) bool {
		sign := ""
		if e.Damaged {
			sign = "-"
		}
		out = append(out, fmt.Sprint(sign, e.Position))
		return true
	})
	if err != nil {
		t.Error(err)
	}
	return strings.Join(out, " ")
}

// scrubFree overwrites the free pages of a file.
func scrubFree(t *testing.T, path string) {
	t.Helper()
	fd, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	p, err := pagesOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	ids, _, err := p.freelist()
	for _, id := range ids {
		_, werr := fd.WriteAt(make([]byte, pageSize), int64(id)*pageSize)
		err = errors.Join(err, werr)
	}
	if err = errors.Join(err, fd.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestLogOfNewerVersionIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := segmentOf(t, dir, 3)
	behindItsBack(t, path, func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(headerBucket)).Put([]byte(formatKey), encodeHeader(logFormat, logVersion+1))
	})
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenLog(dir, LogOptions{FreeBytes: -1}); !errors.Is(err, storage.ErrNewerFormat) {
		t.Errorf("got %v", err)
	}
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed, %v", err)
	}
}
