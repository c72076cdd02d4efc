package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"

	"telemetryhub/storage"
)

// The layout of a bbolt file (version 2), as far as the own reader needs it. bbolt writes the byte order of the
// machine; all machines that the hub runs on are little endian.
const (
	pageSize        = 4096
	pageHeaderSize  = 16
	elemSize        = 16 // of a leaf and of a branch element
	bucketValueSize = 16 // root page and sequence, before the page of an inline bucket
	metaSize        = 64
	metaMagic       = 0xED0CDAED
	metaVersion     = 2
	maxDepth        = 32
	maxNodeBytes    = 64 << 20
	bucketElem      = 1 // flag of a leaf element whose value is a bucket
)

// The types of page.
const (
	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10
)

type pageID uint64

var le = binary.LittleEndian

// meta is one of the two pages that a commit ends with.
type meta struct {
	version  uint32
	pageSize uint32
	root     pageID // of the bucket of buckets
	freelist pageID
	high     pageID // the first page that was never used
	txid     uint64
}

var (
	errNotBolt      = errors.New("not a database file")
	errMetaChecksum = errors.New("checksum of the meta page is wrong")
)

// parseMeta reads a meta page. It fails with errNotBolt if the magic is missing, and with errMetaChecksum.
func parseMeta(page []byte) (meta, error) {
	b := page[pageHeaderSize : pageHeaderSize+metaSize]
	if le.Uint32(b) != metaMagic {
		return meta{}, errNotBolt
	}
	if le.Uint64(b[metaSize-8:]) != metaSum(b) {
		return meta{}, errMetaChecksum
	}
	return meta{
		version:  le.Uint32(b[4:]),
		pageSize: le.Uint32(b[8:]),
		root:     pageID(le.Uint64(b[16:])),
		freelist: pageID(le.Uint64(b[32:])),
		high:     pageID(le.Uint64(b[40:])),
		txid:     le.Uint64(b[48:]),
	}, nil
}

// putMeta writes a meta page, all but its page header.
func putMeta(page []byte, m meta) {
	b := page[pageHeaderSize : pageHeaderSize+metaSize]
	le.PutUint32(b, metaMagic)
	le.PutUint32(b[4:], m.version)
	le.PutUint32(b[8:], m.pageSize)
	le.PutUint64(b[16:], uint64(m.root))
	le.PutUint64(b[32:], uint64(m.freelist))
	le.PutUint64(b[40:], uint64(m.high))
	le.PutUint64(b[48:], m.txid)
	le.PutUint64(b[metaSize-8:], metaSum(b))
}

func metaSum(b []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(b[:metaSize-8]) // a hash never fails
	return h.Sum64()
}

// repairMeta looks for the one bit that makes the checksum of a meta page right again.
func repairMeta(page []byte) (meta, bool) {
	b := append([]byte(nil), page[:pageHeaderSize+metaSize]...)
	for i := range metaSize * 8 {
		at, bit := pageHeaderSize+i/8, byte(1)<<(i%8)
		b[at] ^= bit
		if m, err := parseMeta(b); err == nil {
			return m, true
		}
		b[at] ^= bit
	}
	return meta{}, false
}

// pages reads the pages of a bbolt file without bbolt. Every offset is checked: whatever the file contains, it returns
// an error that wraps storage.ErrCorrupt and never panics. It is for one goroutine.
type pages struct {
	r    io.ReaderAt
	size int64
	meta meta
	// notes says what was wrong with the meta pages although meta could be had.
	notes []string
	// lostMeta tells that one meta page is beyond repair, so that the newest transaction may be lost.
	lostMeta bool

	window    []byte
	windowOff int64
	windowLen int
	ahead     int // how much to read at once
}

// How much is read at once: little after a jump, more and more while one page follows the other.
const (
	minAhead = 2 * pageSize
	maxAhead = 256 << 10
)

// openPages reads the meta pages. If only one of them is right the newest transaction may be lost with the other, so
// that is noted; a single flipped bit is found and undone in memory, which is noted too.
func openPages(r io.ReaderAt, size int64) (*pages, error) {
	p := &pages{r: r, size: size}
	if size < 4*pageSize {
		return nil, corruptf("the file has %d bytes, the smallest has %d", size, 4*pageSize)
	}
	var buf [2 * pageSize]byte
	if _, err := r.ReadAt(buf[:], 0); err != nil {
		return nil, readError(err, 0)
	}
	var metas [2]meta
	var ok [2]bool
	foreign := 0
	for i := range metas {
		page := buf[i*pageSize : (i+1)*pageSize]
		m, err := parseMeta(page)
		ok[i] = err == nil
		if err == nil {
			metas[i] = m
			continue
		}
		if m, fixed := repairMeta(page); fixed {
			p.notes = append(p.notes, fmt.Sprintf("meta page %d: one bit was flipped", i))
			metas[i], ok[i] = m, true
			continue
		}
		if errors.Is(err, errNotBolt) {
			foreign++
		}
		p.lostMeta = true
		p.notes = append(p.notes, fmt.Sprintf("meta page %d: %v, so the newest transaction may be lost", i, err))
	}
	switch {
	case foreign == 2:
		return nil, errNotBolt
	case !ok[0] && !ok[1]:
		return nil, corruptf("both meta pages are damaged")
	case ok[0] && (!ok[1] || metas[0].txid > metas[1].txid):
		p.meta = metas[0]
	default:
		p.meta = metas[1]
	}
	if ok[0] && ok[1] && metas[0].txid-metas[1].txid+1 > 2 {
		p.notes = append(p.notes, fmt.Sprintf("the meta pages are of transactions %d and %d, which do not follow each other",
			metas[0].txid, metas[1].txid))
	}
	return p, p.checkMeta()
}

func (p *pages) checkMeta() error {
	m := &p.meta
	switch {
	case m.version > metaVersion:
		return fmt.Errorf("database format %d: %w", m.version, storage.ErrNewerFormat)
	case m.version != metaVersion || m.pageSize != pageSize:
		return fmt.Errorf("%w of this program: format %d, page size %d", errNotBolt, m.version, m.pageSize)
	case uint64(m.high) > uint64(p.size)/pageSize:
		return corruptf("the file was cut: %d pages are in use, it has %d bytes", m.high, p.size)
	case m.high < 4 || !p.inUse(m.root) || !p.inUse(m.freelist):
		return corruptf("the meta page points outside the file")
	}
	return nil
}

func (p *pages) inUse(id pageID) bool { return id >= 2 && id < p.meta.high }

// raw returns n bytes at the page. They are valid until the next call.
func (p *pages) raw(id pageID, n int) ([]byte, error) {
	off := int64(id) * pageSize
	// First, because the window may reach beyond the pages that are in use.
	if end := int64(p.meta.high) * pageSize; off < 0 || off+int64(n) > end || off+int64(n) > p.size {
		return nil, corruptf("page %d lies outside the file", id)
	}
	if at := off - p.windowOff; at >= 0 && at+int64(n) <= int64(p.windowLen) {
		return p.window[at : at+int64(n)], nil
	}
	if off == p.windowOff+int64(p.windowLen) {
		p.ahead = min(2*p.ahead, maxAhead)
	} else {
		p.ahead = minAhead
	}
	want := max(p.ahead, minAhead, n)
	if cap(p.window) < want {
		p.window = make([]byte, want)
	}
	p.windowLen = 0
	got, err := p.r.ReadAt(p.window[:min(int64(want), p.size-off)], off)
	if got < n {
		return nil, readError(err, id)
	}
	p.windowOff, p.windowLen = off, got
	return p.window[:n], nil
}

// node returns a tree page with its overflow pages, after its header has been checked.
func (p *pages) node(id pageID) (node, error) {
	if !p.inUse(id) {
		return node{}, corruptf("page %d is not in use", id)
	}
	b, err := p.raw(id, pageHeaderSize)
	if err != nil {
		return node{}, err
	}
	overflow := le.Uint32(b[12:])
	n := (int64(overflow) + 1) * pageSize
	if got := pageID(le.Uint64(b)); got != id {
		return node{}, corruptf("page %d says that it is page %d", id, got)
	}
	if n > maxNodeBytes {
		return node{}, corruptf("page %d says that it has %d more pages", id, overflow)
	}
	if b, err = p.raw(id, int(n)); err != nil {
		return node{}, err
	}
	return parseNode(b, fmt.Sprintf("page %d", id))
}
