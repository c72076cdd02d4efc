package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"telemetryhub/storage"
)

// Damage is something that was found wrong in a file, and what was done about it.
type Damage struct {
	// File is the path of the file.
	File string
	// What says what is wrong with it.
	What string
	// Action says what was done: where the damaged file was put, how much was rescued.
	Action string
	// From and To are the first and last position in the log that may be missing, zero if none is. Other files have none.
	From, To uint64
}

// String returns one line for people.
func (d Damage) String() string {
	s := d.File + ": " + d.What
	if d.From != 0 {
		s += fmt.Sprintf("; positions %d to %d may be missing", d.From, d.To)
	}
	if d.Action != "" {
		s += "; " + d.Action
	}
	return s
}

// damagedFile is a file that failed its check, opened and locked for rescue. Nothing ever writes to it.
type damagedFile struct {
	path string
	os   *os.File
	p    *pages // its meta is zero where no meta page can be believed
}

// openDamaged opens a file for rescue. Errors: storage.ErrLocked, errNotBolt if it is no database file at all, and what
// the system says.
func openDamaged(path string) (*damagedFile, error) {
	f, err := openLocked(path, true)
	if err != nil {
		return nil, err
	}
	p, err := pagesToRescue(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &damagedFile{path: path, os: f, p: p}, nil
}

// pagesToRescue returns a reader for a file however damaged it is. Its meta is zero where no meta page can be believed,
// also if neither says that it is one: what is in the file must tell whose it is. The error is errNotBolt or
// storage.ErrNewerFormat if a meta page that is right says so, or what the system says.
func pagesToRescue(f *os.File) (*pages, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p, err := openPages(f, info.Size())
	switch {
	case p == nil:
		p = &pages{r: f, size: info.Size()}
	case errors.Is(err, errNotBolt), errors.Is(err, storage.ErrNewerFormat):
		return nil, err
	}
	return p, nil
}

func (d *damagedFile) close() error { return d.os.Close() }

// swapIn puts a rescued file in the place of the damaged one, which gets a name that is returned. At every moment
// there is a file under the path.
func (d *damagedFile) swapIn(f *file) (aside string, err error) {
	if aside, err = keepAside(d.path); err != nil {
		return "", err
	}
	return aside, f.replace(d.path)
}

// keepAside gives a file a second name, path.damaged-1 or the next that is free.
func keepAside(path string) (string, error) {
	for n := 1; ; n++ {
		aside := path + ".damaged-" + strconv.Itoa(n)
		err := os.Link(path, aside)
		switch {
		case err == nil:
			return aside, syncDir(filepath.Dir(path))
		case errors.Is(err, os.ErrExist):
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			if err := copyFile(path, aside); !errors.Is(err, os.ErrExist) {
				return aside, err
			}
		default:
			return "", fmt.Errorf("keep the damaged file: %w", openError(err))
		}
	}
}

// copyFile is for file systems without second names.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return errors.Join(openError(err), os.Remove(to))
	}
	return syncDir(filepath.Dir(to))
}

// isHeader reports whether a value is the header of a file of the format.
func isHeader(value []byte, format string) bool {
	got, _, err := decodeHeader(value)
	return err == nil && got == format
}
