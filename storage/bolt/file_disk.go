package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"telemetryhub/storage"
)

// lockWait is how long to wait for somebody else's lock: a process that is about to end.
const lockWait = time.Second

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) { // a file system that has nothing to sync
		err = nil
	}
	return errors.Join(err, d.Close())
}

// renameByLink is rename without replacing, for file systems that have no such rename.
func renameByLink(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}

// flock takes the lock of an open file, exclusive or shared, and waits up to lockWait for it.
func flock(f *os.File, how int) error {
	deadline := time.Now().Add(lockWait)
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// DirLock keeps other processes from using a data folder.
type DirLock struct{ f *os.File }

// lockName is the file in the data folder whose lock stands for the folder. It holds the process id of its owner and
// stays when the lock is given up.
const lockName = "hub.lock"

// LockDir takes the lock of the data folder dir, which must exist. If another process has it, LockDir fails within a
// second with an error that wraps storage.ErrLocked and names the process. The lock ends with Close or with the process,
// however it ends.
func LockDir(dir string) (*DirLock, error) {
	path := filepath.Join(dir, lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, unix.EROFS) {
		f, err = os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0) // the lock works all the same
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, openError(err))
	}
	if err := flock(f, unix.LOCK_EX); err != nil {
		defer f.Close() // nothing was written
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", dir, err)
		}
		return nil, fmt.Errorf("%s is %w (pid %s): stop that hub first, or use another folder", dir, storage.ErrLocked, lockOwner(f))
	}
	writeOwner(f)
	return &DirLock{f: f}, nil
}

// writeOwner leaves the lock usable when the disk takes no writes: then only the name of the owner is missing.
func writeOwner(f *os.File) {
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
}

func lockOwner(f *os.File) string {
	var b [16]byte
	n, _ := f.ReadAt(b[:], 0) // io.EOF is what a short file gives; without an owner the text says so
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil {
		return strconv.Itoa(pid)
	}
	return "unknown"
}

// Close gives the lock up.
func (l *DirLock) Close() error { return l.f.Close() }
