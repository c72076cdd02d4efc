package bolt

import (
	"encoding/binary"
	"hash/crc32"

	"telemetryhub/storage"
)

// The kinds of record in the items bucket. They are stored: never renumber them.
const (
	recordInline = 1 // the value follows the head
	recordPieces = 2 // the value is in the pieces bucket
	recordLost   = 3 // the value was damaged and could not be rescued; key and revision are known
)

// Sizes in the catalog file.
const (
	recordHead = 21
	// inlineMax is the largest value beside its key. A larger one would make bbolt rewrite its neighbours with it on
	// every change of any of them.
	inlineMax = 1024
	// pieceMax is the size of the parts of a larger value. Two of them fill two pages, and bbolt puts at least two keys
	// in a node.
	pieceMax = 4000
)

// record is the head of an item: everything but its key and its value.
type record struct {
	kind     byte
	revision storage.Revision
	size     uint32 // of the value
	sum      uint32 // CRC32C of the value
	check    uint32 // CRC32C of the head before it and the key
}

// newRecord returns the record for a value.
func newRecord(key string, value []byte, rev storage.Revision) record {
	r := record{kind: recordInline, revision: rev, size: uint32(len(value)), sum: crc32.Checksum(value, castagnoli)}
	if len(value) > inlineMax {
		r.kind = recordPieces
	}
	return r.sealed(key)
}

// lost returns the record that stands for a value that is gone.
func (r record) lost(key string) record {
	r.kind = recordLost
	return r.sealed(key)
}

func (r record) sealed(key string) record {
	var head [recordHead]byte
	r.check = headCheck(r.put(head[:0]), key)
	return r
}

// put appends the head.
func (r *record) put(b []byte) []byte {
	b = append(b, r.kind)
	b = binary.BigEndian.AppendUint64(b, uint64(r.revision))
	b = binary.BigEndian.AppendUint32(b, r.size)
	b = binary.BigEndian.AppendUint32(b, r.sum)
	return binary.BigEndian.AppendUint32(b, r.check)
}

func headCheck[K string | []byte](head []byte, key K) uint32 {
	return crc32.Update(crc32.Checksum(head[:recordHead-4], castagnoli), castagnoli, []byte(key))
}

// decodeRecord reads the value of a key in the items bucket: the head, and the item's value if it follows. It fails if
// the head does not belong to the key. Whether the value is intact, intact tells.
func decodeRecord(key, b []byte) (record, []byte, error) {
	if len(b) < recordHead {
		return record{}, nil, corruptf("the record of %q is too short", key)
	}
	r := record{
		kind:     b[0],
		revision: storage.Revision(binary.BigEndian.Uint64(b[1:])),
		size:     binary.BigEndian.Uint32(b[9:]),
		sum:      binary.BigEndian.Uint32(b[13:]),
		check:    binary.BigEndian.Uint32(b[17:]),
	}
	if headCheck(b[:recordHead], key) != r.check {
		return r, nil, corruptf("the record of %q fails its checksum", key)
	}
	if body := b[recordHead:]; r.kind == recordInline {
		return r, body, nil
	}
	return r, nil, nil
}

// intact returns nil if value is what was stored.
func (r *record) intact(key string, value []byte) error {
	if r.kind == recordLost {
		return corruptf("the value of %q was lost to an earlier damage", key)
	}
	if uint64(len(value)) != uint64(r.size) || crc32.Checksum(value, castagnoli) != r.sum {
		return corruptf("the value of %q fails its checksum", key)
	}
	return nil
}

// pieces returns how many keys of the pieces bucket hold the value.
func (r *record) pieces() int {
	if r.kind != recordPieces || r.size > storage.MaxValue {
		return 0
	}
	return int(r.size+pieceMax-1) / pieceMax
}

// pieceKey is the key of one part of the value with that revision, which no two values share.
func pieceKey(rev storage.Revision, part int) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, 12), uint64(rev))
	return binary.BigEndian.AppendUint32(b, uint32(part))
}

// summary says what the items bucket must hold, so that no item can vanish or come back unnoticed. It is kept in
// another bucket and changes in every transaction.
type summary struct {
	tx    uint64           // the number of the transaction that wrote it
	last  storage.Revision // the greatest revision ever given
	count uint64           // of items
	set   uint64           // sum of mark over all items, modulo 2^64
}

// Names in the catalog file.
const (
	itemsBucket   = "items"
	piecesBucket  = "pieces"
	summaryBucket = "summary"
	summaryKey    = "summary"

	summarySize = 37
)

// mark is what an item adds to the set: a number that depends on key, revision and value in all its bits.
func (r *record) mark() uint64 {
	return mix(mix(uint64(r.revision)) + uint64(r.check))
}

// mix is the finalizer of SplitMix64: every bit of x moves half of the bits of the result.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (s *summary) add(r *record) {
	s.count++
	s.set += r.mark()
	s.last = max(s.last, r.revision)
}

func (s *summary) remove(r *record) {
	s.count--
	s.set -= r.mark()
}

// same reports whether s and o describe the same set of items.
func (s *summary) same(o *summary) bool { return s.count == o.count && s.set == o.set }

func (s *summary) encode() []byte {
	b := append(make([]byte, 0, summarySize), 1)
	b = binary.BigEndian.AppendUint64(b, s.tx)
	b = binary.BigEndian.AppendUint64(b, uint64(s.last))
	b = binary.BigEndian.AppendUint64(b, s.count)
	b = binary.BigEndian.AppendUint64(b, s.set)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeSummary(b []byte) (summary, error) {
	if len(b) != summarySize || b[0] != 1 ||
		crc32.Checksum(b[:summarySize-4], castagnoli) != binary.BigEndian.Uint32(b[summarySize-4:]) {
		return summary{}, corruptf("the summary fails its checksum")
	}
	return summary{
		tx:    binary.BigEndian.Uint64(b[1:]),
		last:  storage.Revision(binary.BigEndian.Uint64(b[9:])),
		count: binary.BigEndian.Uint64(b[17:]),
		set:   binary.BigEndian.Uint64(b[25:]),
	}, nil
}
