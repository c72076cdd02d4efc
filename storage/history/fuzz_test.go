package history

import (
	"encoding/binary"
	"hash/crc32"
	"reflect"
	"testing"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// The decoders are not exported, so this file is inside the package.

const fuzzDay = storage.Slice(20_000)

// FuzzValues hands every decoder of catalog values what a fuzzer would not guess the checksum of. What is decoded must
// come back from its own encoding.
func FuzzValues(f *testing.F) {
	f.Add(checkpoint{7, 1 << 40, 1_766_000_000_000}.encode()[5:])
	f.Add(intent{7, []storage.Slice{-3, 20_000, 20_001}}.encode()[5:])
	f.Add(encodeGaps(gapList{{FromMS: 5, ToMS: 9, Cause: device.CauseJump, Count: 3, Stream: 1, FromSeq: 2, ToSeq: 3, Anybody: true}})[5:])
	f.Add(encodeLatest([]newest{
		{Point: Point{TimeMS: 5, OriginalMS: 1, Replaced: true, Value: device.NumberValue(21.37), Metric: 3, Quality: 2}, device: 1, pos: 9},
		{Point: Point{TimeMS: 5, OriginalMS: 5, Value: device.TextValue("on"), Metric: 4}, device: 1, arrivalMS: 7},
		{Point: Point{TimeMS: 5, OriginalMS: 5, Value: device.BoolValue(true), Metric: 4}, device: 2, elsewhere: false},
	})[5:])
	f.Fuzz(func(t *testing.T, body []byte) {
		p := sealValue(append(newValue(), body...))
		if v, err := decodeCheckpoint(p); err == nil {
			if again, err := decodeCheckpoint(v.encode()); err != nil || again != v {
				t.Errorf("checkpoint %+v came back as %+v, %v", v, again, err)
			}
		}
		if v, err := decodeIntent(p); err == nil {
			if again, err := decodeIntent(v.encode()); err != nil || !reflect.DeepEqual(again, v) {
				t.Errorf("intent %+v came back as %+v, %v", v, again, err)
			}
		}
		if v, err := decodeGaps(p); err == nil {
			if again, err := decodeGaps(encodeGaps(v)); err != nil || !reflect.DeepEqual(again, v) {
				t.Errorf("gaps %+v came back as %+v, %v", v, again, err)
			}
		}
		if v, err := decodeLatest(p); err == nil {
			for i := range v {
				_ = v[i].Value.Float()
			}
		}
	})
}

// FuzzBlocks does the same with directories and blocks of chunks.
func FuzzBlocks(f *testing.F) {
	enc, err := chunk.NewEncoder()
	if err != nil {
		f.Fatal(err)
	}
	var w blockWriter
	for dev := range uint32(40) {
		key := chunk.Key{Slice: fuzzDay, Device: dev, Series: chunk.SetSeries(1)}
		rows := &chunk.Rows{Times: []int64{chunk.StartMS(fuzzDay)}, Columns: []chunk.Column{{Metric: 1, Bits: []uint64{1}}}}
		p, err := enc.Append(nil, key, rows, chunk.Origin{})
		if err != nil {
			f.Fatal(err)
		}
		w.add(&chunk.Header{Key: key, FirstMS: rows.Times[0], LastMS: rows.Times[0]}, p)
	}
	for _, b := range w.finish(fuzzDay, checkpoint{1, 2, 3}) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		walkBlock(p, fuzzDay, func(offset int, c *chunk.Chunk, length int) {
			if offset < blockHeader || offset+length > len(p) {
				t.Fatalf("a chunk at %d+%d in a block of %d bytes", offset, length, len(p))
			}
			if _, err := readEntry(p, fuzzDay, entry{series: c.Series, device: c.Device, offset: uint32(offset), length: uint32(length)}); err != nil {
				t.Fatalf("a chunk that a walk finds cannot be read: %v", err)
			}
		})
		if len(p) < dirHeader {
			return
		}
		p = append([]byte(nil), p...)
		p[0], p[1] = valueVersion, blockDirectory
		key := storage.BlockKey{Flush: 2}
		binary.LittleEndian.PutUint32(p[blockHeader:], dirChecksum(fuzzDay, key.Flush, 0, p[dirHeader:]))
		d := new(directory)
		if n, err := readDirectory(d, p, fuzzDay, key); err == nil && n <= 0 {
			t.Fatalf("a directory of %d blocks", n)
		}
		if len(d.entries) > len(p)/6+1 {
			t.Fatalf("%d entries from %d bytes", len(d.entries), len(p))
		}
		for i := range d.entries {
			_ = d.of(d.entries[i].device)
			_, _ = readEntry(p, fuzzDay, d.entries[i])
		}
	})
}

func TestValueWithAFlippedBitIsFound(t *testing.T) {
	p := checkpoint{7, 9, 11}.encode()
	for bit := range 8 * len(p) {
		bad := append([]byte(nil), p...)
		bad[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeCheckpoint(bad); err == nil {
			t.Errorf("flipped bit %d was not found", bit)
		}
	}
	if crc32.Checksum(p[5:], castagnoli) != binary.LittleEndian.Uint32(p[1:]) {
		t.Error("the checksum is not CRC-32C")
	}
}
