package bolt

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"telemetryhub/storage"
)

// Names in a slice file.
const (
	sliceFormat  = "slice"
	sliceVersion = 1

	blocksBucket  = "blocks"
	flushesBucket = "flushes"
	tailBucket    = "tail"
	tailKey       = "tail"
)

// A block is stored as a head and its bytes, cut into parts of pieceMax.
const (
	blockHead = 13
	partKey   = 14
	tailSize  = 37
)

// lostBit in the length of a directory's entry marks a block that could not be rescued from an earlier damage.
const lostBit = 1 << 31

// blockHeader stands before the bytes of a block. It says what the directory says too, so that a directory can be made
// again from the blocks.
type blockHeader struct {
	size  uint32 // of the block
	count uint32 // of the blocks in the flush
	sum   uint32 // blockSum
}

func (h *blockHeader) put(b []byte) []byte {
	b = append(b, 1)
	b = binary.BigEndian.AppendUint32(b, h.size)
	b = binary.BigEndian.AppendUint32(b, h.count)
	return binary.BigEndian.AppendUint32(b, h.sum)
}

// splitBlock returns the header and the bytes of a block whose parts have been joined.
func splitBlock(b []byte) (blockHeader, []byte, error) {
	if len(b) < blockHead || b[0] != 1 {
		return blockHeader{}, nil, corruptf("a block without a head")
	}
	h := blockHeader{size: binary.BigEndian.Uint32(b[1:]), count: binary.BigEndian.Uint32(b[5:]), sum: binary.BigEndian.Uint32(b[9:])}
	return h, b[blockHead:], nil
}

// intact returns nil if the block is what was stored under the key.
func (h *blockHeader) intact(slice storage.Slice, key storage.BlockKey, block []byte) error {
	if uint64(len(block)) != uint64(h.size) || blockSum(slice, key, h.count, block) != h.sum {
		return corruptf("block %d of flush %d fails its checksum", key.Index, key.Flush)
	}
	return nil
}

// blockSum is the checksum of a block at its place.
func blockSum(slice storage.Slice, key storage.BlockKey, count uint32, block []byte) uint32 {
	var b [24]byte
	binary.BigEndian.PutUint32(b[0:], uint32(slice))
	binary.BigEndian.PutUint64(b[4:], key.Flush)
	binary.BigEndian.PutUint32(b[12:], key.Index)
	binary.BigEndian.PutUint32(b[16:], count)
	binary.BigEndian.PutUint32(b[20:], uint32(len(block)))
	return crc32.Update(crc32.Checksum(b[:], castagnoli), castagnoli, block)
}

// blockPart is the key of one part of a block.
func blockPart(key storage.BlockKey, part uint16) []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, partKey), key.Flush)
	b = binary.BigEndian.AppendUint32(b, key.Index)
	return binary.BigEndian.AppendUint16(b, part)
}

func flushKey(flush uint64) []byte { return binary.BigEndian.AppendUint64(nil, flush) }

// The kinds of directory. They are stored: never renumber them.
const (
	directoryKept = 1
	directoryLost = 2 // the flush was damaged and nothing of it could be rescued
)

// directory lists the blocks of one flush.
type directory struct {
	kind byte
	// place counts the flushes before this one in the slice. Where it is not zero prev and prevCheck are the number and
	// the check of the flush before.
	place     uint64
	prev      uint64
	prevCheck uint32
	// lost is the number of flushes that are lost: this one, if it is a directoryLost, and others beside it whose numbers
	// are not known.
	lost    uint32
	entries []blockEntry
	check   uint32 // CRC32C of slice, flush and all the above
}

// blockEntry is what a directory says about one block.
type blockEntry struct {
	size uint32 // may have lostBit
	sum  uint32
}

const directoryHead = 33

func (d *directory) encode(slice storage.Slice, flush uint64) []byte {
	b := make([]byte, 0, directoryHead+8*len(d.entries))
	b = append(b, d.kind)
	b = binary.BigEndian.AppendUint64(b, d.place)
	b = binary.BigEndian.AppendUint64(b, d.prev)
	b = binary.BigEndian.AppendUint32(b, d.prevCheck)
	b = binary.BigEndian.AppendUint32(b, d.lost)
	b = binary.BigEndian.AppendUint32(b, uint32(len(d.entries)))
	for _, e := range d.entries {
		b = binary.BigEndian.AppendUint32(b, e.size)
		b = binary.BigEndian.AppendUint32(b, e.sum)
	}
	d.check = directorySum(slice, flush, b)
	return binary.BigEndian.AppendUint32(b, d.check)
}

func directorySum(slice storage.Slice, flush uint64, b []byte) uint32 {
	var at [12]byte
	binary.BigEndian.PutUint32(at[0:], uint32(slice))
	binary.BigEndian.PutUint64(at[4:], flush)
	return crc32.Update(crc32.Checksum(at[:], castagnoli), castagnoli, b)
}

func decodeDirectory(slice storage.Slice, flush uint64, b []byte) (directory, error) {
	if len(b) < directoryHead {
		return directory{}, corruptf("the directory of flush %d is too short", flush)
	}
	d := directory{
		kind:      b[0],
		place:     binary.BigEndian.Uint64(b[1:]),
		prev:      binary.BigEndian.Uint64(b[9:]),
		prevCheck: binary.BigEndian.Uint32(b[17:]),
		lost:      binary.BigEndian.Uint32(b[21:]),
		check:     binary.BigEndian.Uint32(b[len(b)-4:]),
	}
	count := binary.BigEndian.Uint32(b[25:])
	if directorySum(slice, flush, b[:len(b)-4]) != d.check || uint64(len(b)) != directoryHead+8*uint64(count) {
		return directory{}, corruptf("the directory of flush %d fails its checksum", flush)
	}
	d.entries = make([]blockEntry, count)
	for i := range d.entries {
		d.entries[i] = blockEntry{size: binary.BigEndian.Uint32(b[29+8*i:]), sum: binary.BigEndian.Uint32(b[33+8*i:])}
	}
	return d, nil
}

// tail says which flush is the last, so that none can vanish at the end, nor an earlier state of the whole file come back.
type tail struct {
	tx    uint64 // the number of the transaction that wrote it
	count uint64 // of flushes: the place of the next one
	flush uint64 // the last one, and its check; zero if there is none
	check uint32
}

func (t *tail) encode(slice storage.Slice) []byte {
	b := append(make([]byte, 0, tailSize), 1)
	b = binary.BigEndian.AppendUint32(b, uint32(slice))
	b = binary.BigEndian.AppendUint64(b, t.tx)
	b = binary.BigEndian.AppendUint64(b, t.count)
	b = binary.BigEndian.AppendUint64(b, t.flush)
	b = binary.BigEndian.AppendUint32(b, t.check)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeTail(slice storage.Slice, b []byte) (tail, error) {
	if len(b) != tailSize || b[0] != 1 || crc32.Checksum(b[:tailSize-4], castagnoli) != binary.BigEndian.Uint32(b[tailSize-4:]) {
		return tail{}, corruptf("the tail fails its checksum")
	}
	if got := storage.Slice(int32(binary.BigEndian.Uint32(b[1:]))); got != slice {
		return tail{}, fmt.Errorf("%w of slice %d: it is slice %d, under a wrong name", errNotBolt, slice, got)
	}
	return tail{
		tx:    binary.BigEndian.Uint64(b[5:]),
		count: binary.BigEndian.Uint64(b[13:]),
		flush: binary.BigEndian.Uint64(b[21:]),
		check: binary.BigEndian.Uint32(b[29:]),
	}, nil
}
