package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"telemetryhub/storage"
)

// The form of a group in a segment. FORMAT.md says why.
//
// Two pieces with keys fill a page exactly: 16 bytes of page header, and twice 16 for the element, 10 for the key, 2,014
// for the piece. bbolt rewrites the last page at every commit and splits only what has more than four elements, so
// larger pieces make it rewrite more, and in blocks of several pages, which it must allocate anew each time.
const (
	groupVersion    = 1
	groupHeaderSize = 24
	logPieceSize    = 2014
	logKeySize      = 10
	// maxLogPieces is how many pieces the largest group has.
	maxLogPieces = (storage.MaxGroup + groupHeaderSize + logPieceSize - 1) / logPieceSize
)

// link is what the next group says about the one before it.
type link struct {
	pos storage.Position
	sum uint32 // of its seal; zero if nobody knows it
}

// groupHeader stands before the bytes of a group, in the first piece.
type groupHeader struct {
	length uint32
	prev   link
	sum    uint32
}

// sealGroup writes the header of a group into the first bytes of b and returns its checksum, which covers header,
// position and group.
func sealGroup(b []byte, pos storage.Position, prev link, group []byte) uint32 {
	be := binary.BigEndian
	be.PutUint32(b, groupVersion<<24)
	be.PutUint32(b[4:], uint32(len(group)))
	be.PutUint64(b[8:], uint64(prev.pos))
	be.PutUint32(b[16:], prev.sum)
	sum := groupSum(b, pos, group)
	be.PutUint32(b[20:], sum)
	return sum
}

func groupSum(header []byte, pos storage.Position, group []byte) uint32 {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(pos))
	sum := crc32.Update(0, castagnoli, header[:20])
	sum = crc32.Update(sum, castagnoli, at[:])
	return crc32.Update(sum, castagnoli, group)
}

// openGroup checks the seal of header and group. Without an error h can be believed and the bytes behind the header
// are what was appended. With one, h is what stands there.
func openGroup(b []byte, pos storage.Position) (h groupHeader, err error) {
	if len(b) < groupHeaderSize {
		return h, corruptf("group %d: its header is missing", pos)
	}
	be := binary.BigEndian
	h = groupHeader{length: be.Uint32(b[4:]), prev: link{storage.Position(be.Uint64(b[8:])), be.Uint32(b[16:])}, sum: be.Uint32(b[20:])}
	body := b[groupHeaderSize:]
	switch {
	case be.Uint32(b) != groupVersion<<24:
		return h, corruptf("group %d: unknown form %#x", pos, be.Uint32(b))
	case int(h.length) != len(body):
		return h, corruptf("group %d: %d of %d bytes", pos, len(body), h.length)
	case groupSum(b, pos, body) != h.sum:
		return h, corruptf("group %d: its checksum is wrong", pos)
	}
	return h, nil
}

// logKey writes the key of a piece.
func logKey(b *[logKeySize]byte, pos storage.Position, piece int) []byte {
	binary.BigEndian.PutUint64(b[:], uint64(pos))
	binary.BigEndian.PutUint16(b[8:], uint16(piece))
	return b[:]
}

// parseLogKey is the inverse of logKey. ok is false for every other key.
func parseLogKey(key []byte) (pos storage.Position, piece int, ok bool) {
	if len(key) != logKeySize {
		return 0, 0, false
	}
	return storage.Position(binary.BigEndian.Uint64(key)), int(binary.BigEndian.Uint16(key[8:])), true
}

// assembly puts the pieces of one group together as they are read.
type assembly struct {
	pos  storage.Position
	next int // the piece that is due
	odd  bool
	buf  []byte
}

func (a *assembly) reset(pos storage.Position) { *a = assembly{pos: pos, buf: a.buf[:0]} }

// add takes the next piece. A piece that does not fit makes the group odd, but what is in it is kept, as long as the
// group does not become longer than groups can be.
func (a *assembly) add(piece int, value []byte) {
	a.odd = a.odd || piece != a.next || len(value) > logPieceSize || a.next > 0 && len(a.buf)%logPieceSize != 0
	if piece >= a.next && len(a.buf)+len(value) <= maxLogPieces*logPieceSize {
		a.buf = append(a.buf, value...)
	}
	a.next = piece + 1
}

// foundGroup is a group as it was found in a segment.
type foundGroup struct {
	pos  storage.Position
	prev link
	sum  uint32
	// group is a copy; of a damaged group it is what could be read.
	group   []byte
	damaged error
}

// finish checks the seal of what was put together. keep says whether a copy of the bytes is wanted.
func (a *assembly) finish(keep bool) foundGroup {
	h, err := openGroup(a.buf, a.pos)
	if err == nil && a.odd {
		err = corruptf("group %d: its pieces do not fit", a.pos)
	}
	f := foundGroup{pos: a.pos, prev: h.prev, sum: h.sum, damaged: err}
	if keep && len(a.buf) > groupHeaderSize {
		f.group = append(make([]byte, 0, len(a.buf)-groupHeaderSize), a.buf[groupHeaderSize:]...)
	}
	return f
}

// segmentName returns the name of the segment whose first group has, or will have, the position.
func segmentName(first storage.Position) string { return fmt.Sprintf("%020d.bolt", uint64(first)) }

// parseSegmentName is the inverse of segmentName.
func parseSegmentName(name string) (first storage.Position, ok bool) {
	var n uint64
	if len(name) != 25 || name[20:] != ".bolt" {
		return 0, false
	}
	for _, c := range []byte(name[:20]) {
		if c < '0' || c > '9' || n > (1<<64-1)/10-1 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	return storage.Position(n), n > 0
}
