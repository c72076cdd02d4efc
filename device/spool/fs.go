package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// filesystem is what a spool needs from its folder. Names have no path. Tests implement it to cut the power between any
// two writes.
type filesystem interface {
	// Lock makes the folder if it is missing and takes it for this process, or returns ErrLocked.
	Lock() (unlock func() error, err error)
	List() ([]string, error)
	// Create makes an empty file, replacing one of that name.
	Create(name string) (file, error)
	// Open opens an existing file: to read only, or to read and to write at its end.
	Open(name string, write bool) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	// SyncDir makes creations, renames and removals durable.
	SyncDir() error
	// Free returns the bytes that this process may still write to the disk.
	Free() (int64, error)
}

type file interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Truncate(size int64) error
	Size() (int64, error)
	Close() error
}

// folder is the real filesystem.
type folder string

func (d folder) path(name string) string { return filepath.Join(string(d), name) }

func (d folder) Lock() (func() error, error) {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return nil, err
	}
	f, err := os.Open(string(d))
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written through it
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", d, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", d, err)
	}
	return f.Close, nil
}

func (d folder) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

func (d folder) Create(name string) (file, error) {
	return d.open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (d folder) Open(name string, write bool) (file, error) {
	if write {
		return d.open(name, os.O_RDWR)
	}
	return d.open(name, os.O_RDONLY)
}

func (d folder) open(name string, flag int) (file, error) {
	f, err := os.OpenFile(d.path(name), flag, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d folder) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }
func (d folder) Remove(name string) error     { return os.Remove(d.path(name)) }

func (d folder) SyncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d folder) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(string(d), &st); err != nil {
		return 0, fmt.Errorf("free space of %s: %w", d, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}
