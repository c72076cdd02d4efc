package bolt

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// forget makes the system read the file from the disk again, also if it cannot be made durable, which the error says.
// Pages of a commit whose fsync failed are in the cache as if they were durable; what the disk has shows only without the
// cache.
func forget(f *os.File) error {
	err := f.Sync()
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EINVAL) {
		err = nil
	}
	// It is advice: file systems that keep no cache refuse it.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return err
}

// reserve gives the file n bytes of real disk, so that later writes cannot fail for want of space. Where the file
// system cannot do that, the file only becomes longer.
func reserve(f *os.File, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), 0, 0, n)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return f.Truncate(n)
		default:
			return &os.PathError{Op: "fallocate", Path: f.Name(), Err: err}
		}
	}
}

// freeBytes returns what an ordinary user may still write to the file system of dir.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

// renameNew renames a file and fails with an error that is os.ErrExist if the new name is taken.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return renameByLink(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
