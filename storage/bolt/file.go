package bolt

import (
	"errors"
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"telemetryhub/storage"
)

// fileOptions say what a file is and how it is opened.
type fileOptions struct {
	// format names what the file holds: "log", "catalog", "slice". A file with another format is refused.
	format string
	// version is the newest version of the format that is known, and what new files get.
	version uint32
	// buckets are made together with the file. The header bucket is always there. Buckets hold no buckets.
	buckets []string
	// create allows openFile to make the file if it does not exist.
	create bool
	// readOnly opens without the right to write; update then fails with storage.ErrReadOnly.
	readOnly bool
	// unchecked leaves the page graph unchecked: only for a file that this process itself has just made.
	unchecked bool
	// reserve is the disk space that a new file gets at once. Zero means that it grows as needed.
	reserve int64
	// maxBytes limits the file; a commit beyond it fails with storage.ErrFull. Zero means no limit. It is rounded down
	// to growBytes.
	maxBytes int64
	// growBytes is the step in which the file grows. Zero means 1 MiB.
	growBytes int
	// mapBytes is the address space for the file. A file that outgrows it is mapped anew, for which the writer waits
	// until all readers are done and new readers wait with it. Zero means 1 GiB, or 32 MiB where pointers have 32 bits.
	mapBytes int
	// latch is shared by files that stop writing together. Nil means an own one.
	latch *latch
}

func (o *fileOptions) fill() {
	if o.growBytes == 0 {
		o.growBytes = 1 << 20
	}
	if o.mapBytes == 0 {
		o.mapBytes = 1 << 30
		if strconv.IntSize == 32 {
			o.mapBytes = 32 << 20
		}
	}
	if o.latch == nil {
		o.latch = new(latch)
	}
}

// latch keeps the first error after which nothing may be written any more in this process. The zero value is open.
type latch struct{ p atomic.Pointer[error] }

// stop closes the latch for good. Later calls change nothing.
func (l *latch) stop(err error) { l.p.CompareAndSwap(nil, &err) }

// err returns what closed the latch, nil while it is open.
func (l *latch) err() error {
	if p := l.p.Load(); p != nil {
		return *p
	}
	return nil
}

// file is a bbolt file that was checked before it was opened. It is safe for use by many goroutines at once.
type file struct {
	path string
	opts fileOptions
	db   *bolt.DB
	os   *os.File // what db uses

	// wedged is set when a fault left bbolt's locks in an unknown state: nothing may wait for them any more.
	wedged atomic.Bool
}

// openFile checks a file and opens it. It never changes a file that it refuses. Errors: os.ErrNotExist if there is no
// file and create is not set; storage.ErrNewerFormat; storage.ErrLocked after a second; storage.ErrReadOnly if the file
// may not be written; storage.ErrCorrupt if it is damaged, then salvageFile is the way on; storage.ErrFull while creating;
// errNotBolt and others if it is not a file of this kind at all.
func openFile(path string, opts fileOptions) (*file, error) {
	opts.fill()
	f, err := openExisting(path, opts)
	if errors.Is(err, os.ErrNotExist) && opts.create {
		if f, err = buildFile(path+tempSuffix, opts, nil); err == nil {
			if err = f.publish(path); err != nil {
				err = errors.Join(err, f.close())
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return f, nil
}

// openExisting opens, locks and checks before bbolt sees the file, and hands bbolt the very descriptor that was checked.
func openExisting(path string, opts fileOptions) (*file, error) {
	f, err := openLocked(path, opts.readOnly)
	if err != nil {
		return nil, err
	}
	if err := checkFile(f, opts); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return openBolt(f, path, opts)
}

// openLocked opens a regular file and takes its lock.
func openLocked(path string, readOnly bool) (*os.File, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, openError(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is a %s; move it away if it does not belong there", errNotBolt, kindOf(info.Mode()))
	}
	flags, lock := os.O_RDWR, unix.LOCK_EX
	if readOnly {
		flags, lock = os.O_RDONLY, unix.LOCK_SH
	}
	// O_NONBLOCK, in case the file has become a pipe meanwhile.
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, openError(err)
	}
	if err := flock(f, lock); err != nil {
		return nil, errors.Join(openError(err), f.Close())
	}
	return f, nil
}

func kindOf(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "folder"
	case m&os.ModeSymlink != 0:
		return "symbolic link"
	}
	return "special file"
}

// checkFile reads the file from the disk, not from the cache, and checks what it is and that bbolt may open it.
func checkFile(f *os.File, opts fileOptions) error {
	if opts.unchecked {
		return nil
	}
	if err := forget(f); err != nil && !opts.readOnly { // who only reads can do without a disk that takes writes
		return fmt.Errorf("%w: what was written last cannot be made durable: %w", storage.ErrUnknown, err)
	}
	p, err := pagesOf(f)
	if err != nil {
		return err
	}
	if err := p.checkHeader(opts.format, opts.version); err != nil {
		return err
	}
	return checkGraph(p)
}

// pagesOf returns a reader for an open file.
func pagesOf(f *os.File) (*pages, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return openPages(f, info.Size())
}

// openBolt lets bbolt take over an open, locked and checked file. It closes f if it fails.
func openBolt(f *os.File, path string, opts fileOptions) (out *file, err error) {
	out = &file{path: path, opts: opts, os: f}
	defer func() {
		if err != nil {
			_ = f.Close() // bbolt may have closed it already; nothing was written
		}
	}()
	defer recoverTo(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	out.db, err = bolt.Open(path, 0o600, &bolt.Options{
		Timeout:         lockWait,
		ReadOnly:        opts.readOnly,
		FreelistType:    bolt.FreelistMapType,
		PageSize:        pageSize,
		InitialMmapSize: opts.mapBytes,
		MaxSize:         int(min(opts.maxBytes, math.MaxInt)),
		NoStatistics:    true,
		OpenFile:        func(string, int, os.FileMode) (*os.File, error) { return f, nil },
	})
	if err != nil {
		return nil, openError(err)
	}
	out.db.AllocSize = opts.growBytes
	return out, nil
}

// recoverTo turns a panic into an error: a fault when a mapped page cannot be read, or bbolt's panic about a page that
// it did not expect.
func recoverTo(err *error) {
	if r := recover(); r != nil {
		*err = corruptf("%v", r)
	}
}

// view runs fn in a read transaction. An error of fn comes back as it is. If a page cannot be read or is not what
// bbolt expects, the error wraps storage.ErrCorrupt. fn must be short: while it runs no page that it may see is reused.
func (f *file) view(fn func(tx *bolt.Tx) error) (err error) {
	if err := f.touch(); err != nil {
		return err
	}
	var tx *bolt.Tx
	defer func() {
		if tx == nil {
			return
		}
		if rerr := tx.Rollback(); err == nil {
			err = rerr
		}
	}()
	defer recoverTo(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if tx, err = f.begin(false); err != nil {
		return err
	}
	return fn(tx)
}

// touch reads the meta pages with read(2). bbolt reads them from the map while it holds its locks; a fault there would
// leave the locks held, so the pages had better be in memory.
func (f *file) touch() error {
	if f.wedged.Load() {
		return corruptf("%s could not be read before and stays closed until the next start", f.path)
	}
	var b [1]byte
	for i := range int64(2) {
		if _, err := f.os.ReadAt(b[:], i*pageSize); errors.Is(err, os.ErrClosed) {
			return storage.ErrClosed
		} else if err != nil {
			return readError(err, pageID(i))
		}
	}
	return nil
}

// begin starts a transaction. A fault inside leaves bbolt unusable.
func (f *file) begin(writable bool) (tx *bolt.Tx, err error) {
	defer func() {
		if r := recover(); r != nil {
			f.wedged.Store(true)
			tx, err = nil, corruptf("%v", r)
		}
	}()
	tx, err = f.db.Begin(writable)
	if errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		err = storage.ErrClosed
	}
	return tx, err
}

// update runs fn in a write transaction and makes it durable. An error of fn comes back as it is, and nothing was
// written. Other errors: storage.ErrFull (nothing was written, and the same may succeed later), storage.ErrReadOnly,
// storage.ErrClosed, storage.ErrReadOnly together with storage.ErrCorrupt (nothing was written, nor will be), and
// storage.ErrUnknown. After the last three every update of every file with the same latch fails with the same error.
func (f *file) update(fn func(tx *bolt.Tx) error) error {
	if f.opts.readOnly {
		return storage.ErrReadOnly
	}
	if err := f.opts.latch.err(); err != nil {
		return err
	}
	if err := f.touch(); err != nil {
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	tx, err := f.begin(true)
	if err != nil {
		return err
	}
	id := tx.ID()
	if err := f.apply(tx, fn); err != nil {
		return err
	}
	err = f.commit(tx)
	if err == nil {
		return nil
	}
	if !errors.Is(err, storage.ErrUnknown) && f.lastTx() != id-1 {
		err = fmt.Errorf("%w: the write failed, but the transaction is there: %v", storage.ErrUnknown, err)
	}
	err = fmt.Errorf("%s: %w", f.path, err)
	if !errors.Is(err, storage.ErrFull) {
		f.opts.latch.stop(err)
	}
	return err
}

// apply runs fn and rolls back if it fails.
func (f *file) apply(tx *bolt.Tx, fn func(tx *bolt.Tx) error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			// bbolt's state in memory may be half changed, so it is not used for writing again.
			err = fmt.Errorf("%s: %w until the next start: %w", f.path, storage.ErrReadOnly, corruptf("%v", r))
			f.opts.latch.stop(err)
		}
		if err != nil {
			f.release(tx)
		}
	}()
	return fn(tx)
}

// release rolls a transaction back after an error. If even that fails bbolt's locks stay held.
func (f *file) release(tx *bolt.Tx) {
	defer func() {
		if recover() != nil {
			f.wedged.Store(true)
		}
	}()
	_ = tx.Rollback() // the only error is that it has ended already
}

// commit makes tx durable. A panic on the way leaves the outcome unknown.
func (f *file) commit(tx *bolt.Tx) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", storage.ErrUnknown, r)
			f.release(tx)
		}
	}()
	if err := tx.Commit(); err != nil {
		return commitError(err)
	}
	return nil
}

// lastTx returns the number of the last transaction that readers see, -1 if that cannot be told.
func (f *file) lastTx() int {
	id := -1
	if err := f.view(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		return -1
	}
	return id
}

// close ends the use of the file after running transactions have ended.
func (f *file) close() error {
	if f.wedged.Load() {
		return f.os.Close() // db.Close would wait for ever; the map goes with the process
	}
	return f.db.Close()
}
