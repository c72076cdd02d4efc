package bolt

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"sync/atomic"

	bolt "go.etcd.io/bbolt"

	"telemetryhub/storage"
)

// What is in a segment besides the header.
const (
	logFormat  = "log"
	logVersion = 1
	logBucket  = "log"
	// cleanKey is in the header bucket of the last segment after a clean end.
	cleanKey = "clean"
	// fillerSize is the size of the element with key zero, which makes the bucket too large to be kept inside the page
	// that points to it. So the sequence of the bucket, which names the last group, is always in another page than the
	// groups, and one damaged page cannot take both.
	fillerSize = pageSize/4 + 1
)

func encodeClean(l link) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(l.pos))
	b = binary.BigEndian.AppendUint32(b, l.sum)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeClean(b []byte) (link, bool) {
	if len(b) != 16 || crc32.Checksum(b[:12], castagnoli) != binary.BigEndian.Uint32(b[12:]) {
		return link{}, false
	}
	return link{storage.Position(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint32(b[8:])}, true
}

// segment is one file of the log.
type segment struct {
	first storage.Position // of the first group that is, or will be, in it
	path  string
	size  atomic.Int64
	src   atomic.Pointer[source]
	file  *file // while it is written to, and until it is sealed
	// searched is set when something is missing or damaged in it for which all its pages have been searched in vain.
	searched atomic.Bool

	// retired is set, under Log.appending, when nothing may be written to it any more although it has room.
	retired bool
}

// source is where the groups of a segment are read from.
type source interface {
	// read returns groups from the position on, up to and including to, with about budget bytes in all, but at least one
	// if there is one; end tells that there are no more. Damaged groups are among them. An error that wraps
	// storage.ErrCorrupt means that the file is damaged behind the groups that came with it; one that wraps os.ErrClosed
	// or storage.ErrClosed that the segment has another source by now.
	read(from, to storage.Position, budget int) (groups []foundGroup, end bool, err error)
	io.Closer
}

func newActive(first storage.Position, path string, f *file, size int64) *segment {
	s := &segment{first: first, path: path, file: f}
	s.size.Store(size)
	s.use(&activeSource{f: f})
	return s
}

// newSealed takes over fd.
func newSealed(first storage.Position, path string, fd *os.File, p *pages) (*segment, error) {
	src, err := newSealedSource(fd, p)
	if err != nil {
		return nil, err
	}
	s := &segment{first: first, path: path}
	s.size.Store(p.size)
	s.use(src)
	return s, nil
}

func (s *segment) use(src source) { s.src.Store(&src) }

func (s *segment) source() source { return *s.src.Load() }

// sealed reports whether the segment is not written to any more and nobody is about to change its source.
func (s *segment) sealed() bool {
	_, active := s.source().(*activeSource)
	return !active
}

func (s *segment) close() error { return s.source().Close() }

// activeSource reads through a transaction of bbolt, which keeps the writer from reusing the pages. Only the root comes
// from bbolt; the pages are read by the own reader.
type activeSource struct{ f *file }

func (a *activeSource) Close() error { return a.f.close() }

func (a *activeSource) read(from, to storage.Position, budget int) (groups []foundGroup, end bool, err error) {
	verr := a.f.view(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(logBucket))
		if b == nil {
			return corruptf("%s: the bucket is gone", a.f.path)
		}
		p := &pages{r: a.f.os, size: tx.Size()}
		p.meta.high = pageID(tx.Size() / pageSize)
		groups, end, err = readGroups(p, pageID(b.Root()), from, to, budget)
		return nil
	})
	return groups, end, errors.Join(err, verr)
}

// sealedSource reads a file that nobody writes to.
type sealedSource struct {
	fd   *os.File
	size int64
	meta meta
	root pageID
}

// newSealedSource takes over fd, whose meta pages p has read.
func newSealedSource(fd *os.File, p *pages) (*sealedSource, error) {
	root, _, err := logRoot(p)
	if err != nil {
		return nil, err
	}
	return &sealedSource{fd: fd, size: p.size, meta: p.meta, root: root}, nil
}

// logRoot returns root page and sequence of the bucket with the groups.
func logRoot(p *pages) (pageID, storage.Position, error) {
	root, sequence, _, ok, err := p.bucket(logBucket)
	if err == nil && (!ok || root == 0) {
		err = corruptf("the bucket of the groups is gone")
	}
	return root, storage.Position(sequence), err
}

func (s *sealedSource) Close() error { return s.fd.Close() }

func (s *sealedSource) read(from, to storage.Position, budget int) ([]foundGroup, bool, error) {
	return readGroups(&pages{r: s.fd, size: s.size, meta: s.meta}, s.root, from, to, budget)
}

// readGroups is source.read for the tree under root.
func readGroups(p *pages, root pageID, from, to storage.Position, budget int) (groups []foundGroup, end bool, err error) {
	var key [logKeySize]byte
	c, err := p.seek(root, logKey(&key, from, 0))
	if err != nil {
		return nil, false, err
	}
	var a assembly
	begun := false
	for {
		k, v, ok, err := c.next()
		if err != nil {
			return groups, false, err
		}
		pos, piece, good := parseLogKey(k)
		if ok && !good {
			return groups, false, corruptf("a key of %d bytes", len(k))
		}
		if begun && (!ok || pos != a.pos) {
			groups = append(groups, a.finish(true))
			if budget -= len(a.buf); budget <= 0 {
				return groups, !ok, nil
			}
		}
		if !ok || pos > to {
			return groups, true, nil
		}
		if !begun || pos != a.pos {
			a.reset(pos)
			begun = true
		}
		a.add(piece, v)
	}
}
