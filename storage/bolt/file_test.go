package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"telemetryhub/storage"
)

// testOptions are those of a small file with one bucket.
func testOptions() fileOptions {
	return fileOptions{format: "test", version: 3, buckets: []string{"data"}, create: true}
}

func mustOpen(t *testing.T, path string, opts fileOptions) *file {
	t.Helper()
	f, err := openFile(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func put(f *file, key, value string) error {
	return f.update(func(tx *bolt.Tx) error { return tx.Bucket([]byte("data")).Put([]byte(key), []byte(value)) })
}

func get(t *testing.T, f *file, key string) string {
	t.Helper()
	var v string
	if err := f.view(func(tx *bolt.Tx) error { v = string(tx.Bucket([]byte("data")).Get([]byte(key))); return nil }); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestFileKeepsWhatWasPut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.bolt")
	f := mustOpen(t, path, testOptions())
	for i := range 2000 {
		if err := put(f, fmt.Sprint("key", i%700), fmt.Sprint("value", i)); err != nil {
			t.Fatal(err)
		}
		if i%100 == 0 {
			if err := f.close(); err != nil {
				t.Fatal(err)
			}
			f = mustOpen(t, path, testOptions())
		}
	}
	defer f.close()
	if got := get(t, f, "key599"); got != "value1999" {
		t.Errorf("got %q", got)
	}
}

func TestOpenRefusesWhatIsNotOurs(t *testing.T) {
	whole := func() []byte {
		path := filepath.Join(t.TempDir(), "f.bolt")
		f := mustOpen(t, path, testOptions())
		defer f.close()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}()
	newer := testOptions()
	newer.version = 4
	write := func(b []byte) func(path string) error {
		return func(path string) error { return os.WriteFile(path, b, 0o600) }
	}
	for name, test := range map[string]struct {
		make func(path string) error
		want error
		text string
	}{
		"folder":        {func(path string) error { return os.Mkdir(path, 0o700) }, errNotBolt, "folder"},
		"symbolic link": {func(path string) error { return os.Symlink("/nonexistent", path) }, errNotBolt, "symbolic link"},
		"empty":         {write(nil), storage.ErrCorrupt, "0 bytes"},
		"8192 bytes":    {write(whole[:8192]), storage.ErrCorrupt, "8192 bytes"},
		"cut":           {write(whole[:5*pageSize]), storage.ErrCorrupt, "the file was cut"},
		"other program": {write([]byte(strings.Repeat("SQLite format 3\x00", 4096))), errNotBolt, "not a database"},
		"all zero":      {write(make([]byte, len(whole))), errNotBolt, "not a database"},
		"other bbolt": {func(path string) error {
			db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: pageSize})
			if err != nil {
				return err
			}
			return db.Close()
		}, storage.ErrCorrupt, "header is missing"},
		"other page size": {func(path string) error {
			db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 8192})
			if err != nil {
				return err
			}
			return db.Close()
		}, errNotBolt, "page size 8192"},
		"newer version": {func(path string) error {
			f, err := openFile(path, newer)
			if err != nil {
				return err
			}
			return f.close()
		}, storage.ErrNewerFormat, "format 4"},
		"other kind": {func(path string) error {
			o := testOptions()
			o.format = "other"
			f, err := openFile(path, o)
			if err != nil {
				return err
			}
			return f.close()
		}, errNotBolt, `"other"`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.bolt")
			if err := test.make(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadFile(path)
			_, err := openFile(path, testOptions())
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.text)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
}

func TestCreationSurvivesEveryCut(t *testing.T) {
	for name, left := range map[string][]byte{
		"nothing": nil, "empty": {}, "short": make([]byte, 100), "8192 bytes": emptyPages()[:8192], "whole": emptyPages(),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.bolt")
			if left != nil {
				if err := os.WriteFile(path+tempSuffix, left, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			f := mustOpen(t, path, testOptions())
			defer f.close()
			if err := put(f, "a", "b"); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(path + tempSuffix); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("temporary file is still there: %v", err)
			}
		})
	}
}

func TestSecondOpenerIsToldWithinASecond(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.bolt")
	f := mustOpen(t, path, testOptions())
	defer f.close()
	if _, err := openFile(path, testOptions()); !errors.Is(err, storage.ErrLocked) {
		t.Errorf("got %v", err)
	}
	if err := put(f, "a", "b"); err != nil {
		t.Errorf("first opener was harmed: %v", err)
	}
}

func TestLockDirNamesItsOwner(t *testing.T) {
	dir := t.TempDir()
	l, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = LockDir(dir)
	if !errors.Is(err, storage.ErrLocked) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
		t.Errorf("got %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, err = LockDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestPanicInAReadIsAnErrorAndReadsGoOn(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "f.bolt"), testOptions())
	defer f.close()
	if err := f.view(func(*bolt.Tx) error { panic("page 7: unexpected type") }); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
	if err := put(f, "a", "b"); err != nil {
		t.Error(err)
	}
	if got := get(t, f, "a"); got != "b" {
		t.Errorf("got %q", got)
	}
}

func TestPanicInAWriteStopsWriting(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "f.bolt"), testOptions())
	defer f.close()
	if err := put(f, "a", "b"); err != nil {
		t.Fatal(err)
	}
	if err := f.update(func(*bolt.Tx) error { panic("page 7 already freed") }); !errors.Is(err, storage.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
	if err := put(f, "a", "c"); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("got %v", err)
	}
	if got := get(t, f, "a"); got != "b" {
		t.Errorf("got %q", got)
	}
}

func TestCommitErrorsAreToldApart(t *testing.T) {
	write := func(err error) error { return &os.PathError{Op: "write", Path: "f", Err: err} }
	for name, test := range map[string]struct{ err, want error }{
		"write, no space":     {write(syscall.ENOSPC), storage.ErrFull},
		"write, quota":        {write(syscall.EDQUOT), storage.ErrFull},
		"write, too large":    {write(syscall.EFBIG), storage.ErrFull},
		"write, read-only":    {write(syscall.EROFS), storage.ErrReadOnly},
		"write, error":        {write(syscall.EIO), storage.ErrUnknown},
		"sync, error":         {syscall.EIO, storage.ErrUnknown},
		"sync, no space":      {syscall.ENOSPC, storage.ErrUnknown},
		"limit":               {bolterrors.ErrMaxSizeReached, storage.ErrFull},
		"growing, no space":   {fmt.Errorf("file resize error: %s", &os.PathError{Op: "truncate", Path: "f", Err: syscall.ENOSPC}), storage.ErrFull},
		"growing, error":      {fmt.Errorf("file resize error: %s", syscall.EIO), storage.ErrUnknown},
		"growing, sync error": {fmt.Errorf("file sync error: %s", syscall.ENOSPC), storage.ErrUnknown},
	} {
		if got := commitError(test.err); !errors.Is(got, test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
