package history

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// Kinds of block. The numbers are stored: never renumber them.
const (
	blockDirectory = 1
	blockChunks    = 2

	blockHeader = 2         // version and kind
	dirHeader   = 2 + 4     // and the checksum
	maxDir      = 192 << 10 // from here on a directory goes on in the next block
	fullBlock   = 128 << 10 // from here on a block takes no more chunks
	maxDevices  = 32        // of one block
	maxChunk    = storage.MaxBlock - 64
)

// entry says where a chunk is. Entries are sorted by device, series and time.
type entry struct {
	series      chunk.Series
	device      uint32
	first, last uint32 // ms from the start of the slice
	block       uint32 // index in the flush
	offset      uint32 // in the block
	length      uint32
}

const entryBytes = 32

// directory lists the chunks of one flush in one slice.
type directory struct {
	before  checkpoint // of the flush before
	entries []entry
	// damaged lists what could not be read: the entries are what was found in the blocks instead.
	damaged []Gap
}

// blockWriter collects the chunks of one flush in one slice.
type blockWriter struct {
	blocks  [][]byte
	entries [][]entry // by block
	devices int       // in the last block
	last    uint32    // device
}

// add adds a chunk. Chunks come sorted by device, series and time.
func (w *blockWriter) add(h *chunk.Header, p []byte) {
	n := len(w.blocks) - 1
	if n >= 0 && h.Device != w.last {
		w.devices++
		w.last = h.Device
	}
	if n < 0 || w.devices > maxDevices || len(w.blocks[n])+len(p) > fullBlock {
		w.blocks = append(w.blocks, []byte{valueVersion, blockChunks})
		w.entries = append(w.entries, nil)
		w.devices, w.last = 1, h.Device
		n++
	}
	b := binary.AppendUvarint(w.blocks[n], uint64(len(p)))
	start := chunk.StartMS(h.Slice)
	w.entries[n] = append(w.entries[n], entry{
		series: h.Series, device: h.Device, first: uint32(h.FirstMS - start), last: uint32(h.LastMS - start),
		offset: uint32(len(b)), length: uint32(len(p)),
	})
	w.blocks[n] = append(b, p...)
}

// finish returns the blocks with their directory before them.
func (w *blockWriter) finish(slice storage.Slice, before checkpoint) [][]byte {
	var parts [][]byte // of the directory, without what stands before the entries
	var firsts []int   // the first block that each part speaks of
	for i, list := range w.entries {
		var section []byte
		device, offset := uint32(0), uint32(blockHeader)
		for _, e := range list {
			section = binary.AppendUvarint(section, uint64(e.device-device))
			section = binary.AppendUvarint(section, uint64(e.series))
			section = binary.AppendUvarint(section, uint64(e.first))
			section = binary.AppendUvarint(section, uint64(e.last-e.first))
			section = binary.AppendUvarint(section, uint64(e.offset-offset))
			section = binary.AppendUvarint(section, uint64(e.length))
			device, offset = e.device, e.offset+e.length
		}
		if n := len(parts) - 1; n < 0 || len(parts[n])+len(section) > maxDir {
			parts, firsts = append(parts, nil), append(firsts, i)
		}
		n := len(parts) - 1
		parts[n] = binary.AppendUvarint(parts[n], uint64(len(section)))
		parts[n] = append(parts[n], section...)
	}
	out := make([][]byte, 0, len(parts)+len(w.blocks))
	for i, part := range parts {
		p := []byte{valueVersion, blockDirectory, 0, 0, 0, 0}
		p = binary.AppendUvarint(p, uint64(before.pos))
		p = binary.AppendVarint(p, before.arrivalMS)
		p = binary.AppendUvarint(p, uint64(len(parts)))
		p = binary.AppendUvarint(p, uint64(len(parts)+firsts[i]))
		p = append(p, part...)
		binary.LittleEndian.PutUint32(p[blockHeader:], dirChecksum(slice, before.flush+1, i, p[dirHeader:]))
		out = append(out, p)
	}
	return append(out, w.blocks...)
}

// dirChecksum covers the place of a directory besides its content.
func dirChecksum(slice storage.Slice, flush uint64, index int, p []byte) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint32(b[:], uint32(slice))
	binary.LittleEndian.PutUint64(b[4:], flush)
	binary.LittleEndian.PutUint32(b[12:], uint32(index))
	return crc32.Update(crc32.Update(0, castagnoli, b[:]), castagnoli, p)
}

// readDirectory adds the entries of one block of a directory to d and returns how many blocks the directory has.
// Errors: storage.ErrCorrupt, storage.ErrNewerFormat.
func readDirectory(d *directory, p []byte, slice storage.Slice, key storage.BlockKey) (int, error) {
	if len(p) < dirHeader || p[0] == 0 || p[0] <= valueVersion && p[1] != blockDirectory {
		return 0, fmt.Errorf("directory: %w", errValue)
	}
	if p[0] > valueVersion {
		return 0, fmt.Errorf("directory has format version %d, this program reads up to %d: %w", p[0], valueVersion,
			storage.ErrNewerFormat)
	}
	if binary.LittleEndian.Uint32(p[blockHeader:]) != dirChecksum(slice, key.Flush, int(key.Index), p[dirHeader:]) {
		return 0, fmt.Errorf("directory: %w: the checksum does not hold", storage.ErrCorrupt)
	}
	f := chunk.NewFields(p[dirHeader:])
	d.before = checkpoint{flush: key.Flush - 1, pos: storage.Position(f.Uvarint()), arrivalMS: f.Varint()}
	count := f.Uint32()
	block := f.Uint32()
	for ; f.Len() > 0; block++ {
		section := chunk.NewFields(f.Section())
		e := entry{block: block, offset: blockHeader}
		for section.Len() > 0 {
			e.device += section.Uint32()
			e.series = chunk.Series(section.Max(1<<33 - 1))
			e.first = uint32(section.Max(chunk.SliceMS - 1))
			e.last = e.first + uint32(section.Max(chunk.SliceMS-1))
			e.offset += e.length + uint32(section.Max(storage.MaxBlock))
			e.length = uint32(section.Max(storage.MaxBlock))
			d.entries = append(d.entries, e)
		}
		if !section.OK() {
			f.Fail()
		}
	}
	if !f.OK() || count == 0 {
		return 0, fmt.Errorf("directory: %w", errValue)
	}
	return int(count), nil
}

// of returns the entries of a device.
func (d *directory) of(device uint32) []entry {
	from, ok := slices.BinarySearchFunc(d.entries, device, func(e entry, num uint32) int {
		return int(int64(e.device) - int64(num))
	})
	if !ok {
		return nil
	}
	to := from
	for to < len(d.entries) && d.entries[to].device == device {
		to++
	}
	return d.entries[from:to]
}

// walkBlock calls yield with every chunk in a block of chunks whose checksum holds. It returns false if not all of the
// block is such chunks.
func walkBlock(p []byte, slice storage.Slice, yield func(offset int, c *chunk.Chunk, length int)) bool {
	if len(p) < blockHeader || p[0] != valueVersion || p[1] != blockChunks {
		return false
	}
	whole := true
	f := chunk.NewFields(p[blockHeader:])
	for f.Len() > 0 {
		b := f.Section()
		if !f.OK() {
			return false
		}
		c, err := chunk.Read(b, slice)
		if err != nil {
			whole = false
			continue
		}
		yield(len(p)-f.Len()-len(b), c, len(b))
	}
	return whole
}
