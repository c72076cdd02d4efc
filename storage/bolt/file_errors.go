package bolt

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	bolterrors "go.etcd.io/bbolt/errors"

	"telemetryhub/storage"
)

// corruptf returns an error that wraps storage.ErrCorrupt.
func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: %s", storage.ErrCorrupt, fmt.Sprintf(format, args...))
}

// readError is what a failed read of a page means: the bytes are not there, so the data is as good as damaged.
func readError(err error, id pageID) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corruptf("the file ends before page %d", id)
	}
	return fmt.Errorf("%w: page %d cannot be read: %w", storage.ErrCorrupt, id, err)
}

// openError maps what the system says about opening or creating a file.
func openError(err error) error {
	switch {
	case err == nil:
		return nil
	case isFull(err):
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	case isReadOnly(err):
		return fmt.Errorf("%w: %w", storage.ErrReadOnly, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOMEM):
		return fmt.Errorf("%w for the moment: %w", storage.ErrFull, err)
	case errors.Is(err, bolterrors.ErrTimeout), errors.Is(err, syscall.EWOULDBLOCK):
		return fmt.Errorf("%w: is a hub already running?", storage.ErrLocked)
	}
	return err
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) ||
		errors.Is(err, bolterrors.ErrMaxSizeReached)
}

// commitError maps what bbolt's Commit returned. Errors of write(2) come as *os.PathError, those of fdatasync(2) bare.
// Only a write that was refused may be called "nothing was written", and the caller checks even that: at fdatasync the
// system had already taken the data over, and for all that is known it is on the disk.
func commitError(err error) error {
	var path *os.PathError
	refused := errors.Is(err, bolterrors.ErrMaxSizeReached) || errors.As(err, &path)
	if text, found := strings.CutPrefix(err.Error(), "file resize error: "); found {
		// Nothing has been written when the file is made longer, but bbolt keeps only the text of what was wrong.
		for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
			if strings.HasSuffix(text, full.Error()) {
				return fmt.Errorf("%w: %w", storage.ErrFull, err)
			}
		}
	}
	switch {
	case refused && isFull(err):
		return fmt.Errorf("%w: %w", storage.ErrFull, err)
	case refused && isReadOnly(err):
		return fmt.Errorf("%w: %w", storage.ErrReadOnly, err)
	}
	return fmt.Errorf("%w: %w", storage.ErrUnknown, err)
}

func isReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, os.ErrPermission)
}
