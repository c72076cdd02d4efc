package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"telemetryhub/storage"
)

// tempSuffix marks files that are not finished. They are made anew or removed at the next start.
const tempSuffix = ".tmp"

// buildFile makes a new file at the path of a temporary file, replacing what a cut left there, and returns it open. fill
// may be nil; it adds contents. The file is durable when buildFile returns, but only publish gives it its name.
func buildFile(temp string, opts fileOptions, fill func(f *file) error) (_ *file, err error) {
	opts.fill()
	if err := removeTemp(temp); err != nil {
		return nil, err
	}
	fd, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, openError(err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(temp) // it is of no use; the next start removes it too
		}
	}()
	if opts.reserve > 0 {
		err = reserve(fd, opts.reserve)
	}
	if err == nil {
		// bbolt makes its first pages only in an empty file, which a reserved one is not.
		_, err = fd.WriteAt(emptyPages(), 0)
	}
	if err != nil {
		return nil, errors.Join(openError(err), fd.Close())
	}
	opts.unchecked = true
	f, err := openBolt(fd, temp, opts)
	if err != nil {
		return nil, err
	}
	if err := f.fillNew(fill); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}

// fillNew writes header, buckets and contents and makes all of it durable.
func (f *file) fillNew(fill func(f *file) error) error {
	err := f.update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte(headerBucket))
		if err != nil {
			return err
		}
		for _, name := range f.opts.buckets {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		return b.Put([]byte(formatKey), encodeHeader(f.opts.format, f.opts.version))
	})
	if err == nil && fill != nil {
		err = fill(f)
	}
	if err != nil {
		return err
	}
	if err := f.os.Sync(); err != nil {
		err = fmt.Errorf("%w: %w", storage.ErrUnknown, err)
		f.opts.latch.stop(err)
		return err
	}
	return nil
}

// removeTemp removes what an interrupted buildFile left. It removes nothing but a regular file.
func removeTemp(temp string) error {
	info, err := os.Lstat(temp)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return openError(err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is in the way: it is a %s", temp, kindOf(info.Mode()))
	}
	return openError(os.Remove(temp))
}

// publish gives a built file its name. It fails if the name is taken.
func (f *file) publish(path string) error {
	if err := renameNew(f.path, path); err != nil {
		return errors.Join(openError(err), removeTemp(f.path))
	}
	f.path = path
	return f.named()
}

// replace gives a built file its name, in place of the file that has it.
func (f *file) replace(path string) error {
	if err := os.Rename(f.path, path); err != nil {
		return errors.Join(openError(err), removeTemp(f.path))
	}
	f.path = path
	return f.named()
}

// named makes the new name durable. If that fails nobody can say which name is on the disk.
func (f *file) named() error {
	err := syncDir(filepath.Dir(f.path))
	if err != nil {
		err = fmt.Errorf("%w: %w", storage.ErrUnknown, err)
		f.opts.latch.stop(err)
	}
	return err
}

// emptyPages returns the first four pages of a new bbolt file: two meta pages, the freelist, an empty leaf.
func emptyPages() []byte {
	b := make([]byte, 4*pageSize)
	for i := range 2 {
		page := b[i*pageSize:]
		le.PutUint64(page, uint64(i))
		le.PutUint16(page[8:], metaPage)
		putMeta(page, meta{version: metaVersion, pageSize: pageSize, root: 3, freelist: 2, high: 4, txid: uint64(i)})
	}
	le.PutUint64(b[2*pageSize:], 2)
	le.PutUint16(b[2*pageSize+8:], freelistPage)
	le.PutUint64(b[3*pageSize:], 3)
	le.PutUint16(b[3*pageSize+8:], leafPage)
	return b
}
