package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// errLost is damage that is known and cannot be helped: the file says itself that the data was lost.
var errLost = errors.New("lost to an earlier damage")

// sliceView reads one state of a slice file, page by page. It is for one goroutine.
type sliceView struct {
	slice storage.Slice
	p     *pages
}

// bucketCursor returns a cursor at the first element of a bucket whose key is not less than key.
func (p *pages) bucketCursor(bucket string, key []byte) (*cursor, error) {
	root, _, inline, ok, err := p.bucket(bucket)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, corruptf("bucket %s is missing", bucket)
	case root != 0:
		return p.seek(root, key)
	}
	inline.b = bytes.Clone(inline.b) // the reader's bytes are gone with the next page
	c := &cursor{p: p, leaf: inline}
	c.at, _ = inline.find(key)
	return c, nil
}

// value returns what a bucket has under a key, nil if nothing. It is valid until the next read.
func (p *pages) value(bucket string, key []byte) ([]byte, error) {
	c, err := p.bucketCursor(bucket, key)
	if err != nil {
		return nil, err
	}
	k, v, ok, err := c.next()
	if err != nil || !ok || !bytes.Equal(k, key) {
		return nil, err
	}
	return v, nil
}

// directory returns the directory of a flush. ok is false if there is none.
func (s *sliceView) directory(flush uint64) (d directory, ok bool, err error) {
	b, err := s.p.value(flushesBucket, flushKey(flush))
	if err != nil || b == nil {
		return directory{}, false, err
	}
	d, err = decodeDirectory(s.slice, flush, b)
	return d, err == nil, err
}

// block returns a block. Errors: storage.ErrNotFound; storage.ErrCorrupt, together with errLost if that is old news.
func (s *sliceView) block(key storage.BlockKey) ([]byte, error) {
	d, ok, err := s.directory(key.Flush)
	if err != nil {
		return nil, err
	}
	if ok && d.kind == directoryLost {
		return nil, fmt.Errorf("%w: flush %d is %w", storage.ErrCorrupt, key.Flush, errLost)
	}
	if !ok || uint64(key.Index) >= uint64(len(d.entries)) {
		return nil, storage.ErrNotFound
	}
	e := d.entries[key.Index]
	if e.size&lostBit != 0 {
		return nil, fmt.Errorf("%w: block %d of flush %d is %w", storage.ErrCorrupt, key.Index, key.Flush, errLost)
	}
	joined, err := s.parts(key, e.size)
	if err != nil {
		return nil, err
	}
	h, block, err := splitBlock(joined)
	if err == nil && h.sum != e.sum {
		err = corruptf("block %d of flush %d is not the one in the directory", key.Index, key.Flush)
	}
	if err == nil {
		err = h.intact(s.slice, key, block)
	}
	if err != nil {
		return nil, err
	}
	return block, nil
}

// parts joins the parts of a block of the size, as far as they are there.
func (s *sliceView) parts(key storage.BlockKey, size uint32) ([]byte, error) {
	if size > storage.MaxBlock {
		return nil, corruptf("block %d of flush %d has %d bytes", key.Index, key.Flush, size)
	}
	want := blockHead + int(size)
	c, err := s.p.bucketCursor(blocksBucket, blockPart(key, 0))
	if err != nil {
		return nil, err
	}
	joined := make([]byte, 0, want)
	for part := uint16(0); len(joined) < want; part++ {
		k, v, ok, err := c.next()
		if err != nil {
			return nil, err
		}
		if !ok || !bytes.Equal(k, blockPart(key, part)) || len(joined)+len(v) > want {
			return nil, corruptf("part %d of block %d of flush %d is missing", part, key.Index, key.Flush)
		}
		joined = append(joined, v...)
	}
	return joined, nil
}

// tail returns the tail after comparing it with the transaction that the file is at.
func (s *sliceView) tail() (tail, error) {
	b, err := s.p.value(tailBucket, []byte(tailKey))
	if err != nil {
		return tail{}, err
	}
	t, err := decodeTail(s.slice, b)
	if err == nil && t.tx != s.p.meta.txid {
		err = corruptf("the tail is of transaction %d, the file of %d", t.tx, s.p.meta.txid)
	}
	return t, err
}

// flushes walks the directories of a slice and checks that each is chained to the one before. It goes on behind what is
// damaged, as far as it can.
type flushes struct {
	s    *sliceView
	c    *cursor
	last *directory // nil before the first
	num  uint64     // of last
	err  error      // the first damage

	unsure bool // whether last is the one before the next
}

// numberedDirectory is a directory with the number of its flush.
type numberedDirectory struct {
	flush uint64
	directory
}

// flushesAfter begins behind a flush, or at the first if after is nil. If that flush is not there any more the chain is
// checked from the next one on.
func (s *sliceView) flushesAfter(after *uint64) *flushes {
	w := &flushes{s: s}
	key := []byte{0}
	if after != nil {
		d, ok, err := s.directory(*after)
		w.fail(err)
		w.last, w.num, w.unsure = &d, *after, !ok
		key = append(flushKey(*after), 0) // the smallest key behind it
	}
	c, err := s.p.bucketCursor(flushesBucket, key)
	w.c = c
	w.fail(err)
	return w
}

func (w *flushes) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// next moves on to the next directory. It returns false at the end.
func (w *flushes) next() bool {
	for w.c != nil {
		k, v, ok, err := w.c.next()
		w.fail(err)
		if err != nil {
			return false
		}
		if !ok {
			w.fail(w.end())
			return false
		}
		if len(k) != 8 {
			w.fail(corruptf("a flush has a key of %d bytes", len(k)))
			continue
		}
		num := binary.BigEndian.Uint64(k)
		d, err := decodeDirectory(w.s.slice, num, v)
		if err != nil {
			w.fail(err)
			w.unsure = true
			continue
		}
		w.fail(w.chained(num, &d))
		w.last, w.num, w.unsure = &d, num, false
		return true
	}
	return false
}

// chained checks that a directory is the one behind the last.
func (w *flushes) chained(num uint64, d *directory) error {
	switch {
	case w.unsure:
	case w.last == nil && d.place != 0:
		return corruptf("%d flushes before flush %d are missing", d.place, num)
	case w.last != nil && (d.place != w.last.place+1 || d.prev != w.num || d.prevCheck != w.last.check):
		return corruptf("flush %d is not the one that flush %d follows", w.num, num)
	}
	return nil
}

// end checks that nothing is missing behind the last flush.
func (w *flushes) end() error {
	t, err := w.s.tail()
	switch {
	case err != nil:
		return err
	case w.unsure:
		return nil
	case w.last == nil && t.count != 0:
		return corruptf("all %d flushes are missing", t.count)
	case w.last != nil && (t.count != w.last.place+1 || t.flush != w.num || t.check != w.last.check):
		return corruptf("flush %d should be the last of %d, flush %d is", t.flush, t.count, w.num)
	}
	return nil
}

// audit checks all directories and the tail.
func (s *sliceView) audit() error {
	if _, err := s.tail(); err != nil {
		return err
	}
	w := s.flushesAfter(nil)
	for w.next() {
	}
	return w.err
}

// someEntries is about how many entries of directories are read at once.
const someEntries = 4096

// someDirectories returns directories behind a flush. end tells that there are no more. With an error, which is the first
// damage, it returns what is intact.
func (s *sliceView) someDirectories(after *uint64) (dirs []numberedDirectory, end bool, err error) {
	w := s.flushesAfter(after)
	for n := 0; n < someEntries; n += 1 + len(w.last.entries) {
		if !w.next() {
			return dirs, true, w.err
		}
		dirs = append(dirs, numberedDirectory{flush: w.num, directory: *w.last})
	}
	return dirs, false, w.err
}

// viewPages runs fn on the pages of the newest transaction, which bbolt keeps from being reused meanwhile.
func (f *file) viewPages(fn func(p *pages) error) error {
	return f.view(func(tx *bolt.Tx) error {
		high := pageID(tx.Size() / pageSize)
		return fn(&pages{r: f.os, size: int64(high) * pageSize, meta: meta{
			version: metaVersion, pageSize: pageSize, root: pageID(tx.Cursor().Bucket().Root()), high: high, txid: uint64(tx.ID()),
		}})
	})
}
