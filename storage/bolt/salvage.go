package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	bolt "go.etcd.io/bbolt"
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

// pagesToRescue returns a reader for a file however damaged it is. Its meta is zero where no meta page can be believed.
// The error is errNotBolt, or what the system says.
func pagesToRescue(f *os.File) (*pages, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p, err := openPages(f, info.Size())
	switch {
	case errors.Is(err, errNotBolt), errors.Is(err, storage.ErrNewerFormat):
		return nil, err
	case p == nil:
		p = &pages{r: f, size: info.Size()}
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

// picker tells what is worth rescuing. Only elements that carry a proof of their own, a checksum over key and value,
// may be accepted.
type picker interface {
	// place returns the bucket that an element belongs to, and false if it is not an intact record. The header is not
	// asked about.
	place(e element) (bucket string, ok bool)
	// newer reports whether b is to replace a, where both are intact records with the same key of the same bucket.
	newer(a, b element) bool
}

// rescued is what salvageFile found.
type rescued struct {
	Damage
	kept int
}

// salvageFile writes every intact record of a damaged file into a new one, which takes its place; the damaged one is
// kept aside, unchanged. why is what openFile said. It fails, and changes nothing, if nothing in the file is ours.
// It holds the records in memory while it runs.
func salvageFile(path string, opts fileOptions, why error, pick picker) (rescued, error) {
	d, err := openDamaged(path)
	if err != nil {
		return rescued{}, fmt.Errorf("rescue %s: %w", path, err)
	}
	defer d.close() // only read
	found, ours := collect(d.p, opts.format, pick)
	if !ours {
		return rescued{}, fmt.Errorf("rescue %s: %w of this program: nothing in it is ours; move it away", path, errNotBolt)
	}
	opts.create, opts.readOnly = true, false
	f, err := buildFile(path+tempSuffix, opts, func(f *file) error { return f.putAll(found) })
	if err != nil {
		return rescued{}, fmt.Errorf("rescue %s: %w", path, err)
	}
	aside, err := d.swapIn(f)
	if err = errors.Join(err, f.close()); err != nil {
		return rescued{}, fmt.Errorf("rescue %s: %w", path, err)
	}
	r := rescued{kept: len(found), Damage: Damage{File: path, What: why.Error()}}
	r.Action = fmt.Sprintf("%d intact records were put into a new file, the damaged one is kept as %s", r.kept, filepath.Base(aside))
	return r, nil
}

// slot is the place of a record.
type slot struct{ bucket, key string }

// collect finds the intact records. ours tells whether anything in the file has a checksum of ours.
func collect(p *pages, format string, pick picker) (found map[slot]element, ours bool) {
	found = make(map[slot]element)
	scan(p, func(e element) {
		if isHeader(e.value, format) {
			ours = true
			return
		}
		bucket, ok := pick.place(e)
		if !ok {
			return
		}
		ours = true
		s := slot{bucket, string(e.key)}
		if old, dup := found[s]; dup && !pick.newer(old, e) {
			return
		}
		e.key, e.value = []byte(s.key), append([]byte(nil), e.value...)
		found[s] = e
	})
	return found, ours
}

// isHeader reports whether a value is the header of a file of the format.
func isHeader(value []byte, format string) bool {
	got, _, err := decodeHeader(value)
	return err == nil && got == format
}

// putAll stores records, some hundred in each transaction.
func (f *file) putAll(found map[slot]element) error {
	slots := make([]slot, 0, len(found))
	for s := range found {
		slots = append(slots, s)
	}
	for len(slots) > 0 {
		n := min(len(slots), 256)
		err := f.update(func(tx *bolt.Tx) error {
			for _, s := range slots[:n] {
				b, err := tx.CreateBucketIfNotExists([]byte(s.bucket))
				if err != nil {
					return err
				}
				if err := b.Put([]byte(s.key), found[s].value); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		slots = slots[n:]
	}
	return nil
}
