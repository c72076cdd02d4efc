package chunk_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"runtime"
	"testing"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// reseal gives p the checksum that it would have as a chunk of its own key, which a fuzzer would not guess.
func reseal(p []byte) {
	if len(p) < 5 {
		return
	}
	dev, n := binary.Uvarint(p[5:])
	if n <= 0 {
		return
	}
	series, m := binary.Uvarint(p[5+n:])
	if m <= 0 {
		return
	}
	var key [16]byte
	binary.LittleEndian.PutUint32(key[:], uint32(day))
	binary.LittleEndian.PutUint32(key[4:], uint32(dev))
	binary.LittleEndian.PutUint64(key[8:], series)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(p[1:], crc32.Update(crc32.Update(0, table, key[:]), table, p[5:]))
	p[0] = chunk.Version
}

func seeds(f *testing.F) [][]byte {
	enc, _ := newCodec(f)
	mixed := plainRows(20, 3)
	mixed.Order = make([]uint32, 20)
	mixed.Quality = make([]device.Quality, 20)
	mixed.Original = append([]int64(nil), mixed.Times...)
	for i := range 20 {
		mixed.Order[i] = uint32(i * i)
		setValue(&mixed.Columns[0], i, []device.Value{device.BoolValue(true), device.TextValue("on"), {}}[i%3])
		setValue(&mixed.Columns[1], i, device.NumberValue(math.Sqrt(float64(i))))
		setValue(&mixed.Columns[2], i, device.NumberValue(float64(float32(math.Sqrt(float64(i))))))
	}
	list := []*chunk.Rows{plainRows(1, 1), plainRows(3, 2), plainRows(3000, 2), mixed}
	var out [][]byte
	for _, rows := range list {
		p, err := enc.Append(nil, chunk.Key{Slice: day, Device: 1, Series: chunk.SetSeries(2)}, rows, chunk.Origin{})
		if err != nil {
			f.Fatal(err)
		}
		out = append(out, p)
	}
	return out
}

// FuzzDecode checks that no bytes make the decoder panic, use more memory than its limits allow, or give back rows that
// are not as their comments say.
func FuzzDecode(f *testing.F) {
	for _, p := range seeds(f) {
		f.Add(p)
	}
	_, dec := newCodec(f)
	f.Fuzz(func(t *testing.T, p []byte) {
		p = append([]byte(nil), p...)
		reseal(p)
		c, err := chunk.Read(p, day)
		if err != nil {
			return
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		rows, err := dec.Rows(c, nil)
		runtime.ReadMemStats(&after)
		// What columns share, one column of bits, types and texts for each metric, the raw body with its texts copied out,
		// and what zstd keeps.
		limit := uint64(c.Rows*(8+4+1+8)+c.Rows*len(c.Metrics)*(8+1+16)+len(c.Metrics)*128) + 3*chunk.MaxRaw + 24*uint64(len(p)) + 4<<20
		if used := after.TotalAlloc - before.TotalAlloc; used > limit {
			t.Fatalf("%d bytes made the decoder take %d bytes, more than %d", len(p), used, limit)
		}
		if err != nil {
			return
		}
		if len(rows.Times) != c.Rows || len(rows.Columns) != len(c.Metrics) {
			t.Fatalf("%d rows of %d columns, want %d of %d", len(rows.Times), len(rows.Columns), c.Rows, len(c.Metrics))
		}
		for i := range rows.Columns {
			for row := range rows.Times {
				rows.Columns[i].Value(row)
			}
		}
	})
}

// FuzzFields checks that reading fields stays within the value.
func FuzzFields(f *testing.F) {
	f.Add([]byte{1, 2, 3}, []byte{0x80, 1, 2})
	f.Fuzz(func(t *testing.T, ops, p []byte) {
		r := chunk.NewFields(p)
		for _, op := range ops {
			left := r.Len()
			switch op % 6 {
			case 0:
				r.Uvarint()
			case 1:
				r.Varint()
			case 2:
				r.Uint32()
			case 3:
				r.Byte()
			case 4:
				r.Bytes(uint64(op))
			case 5:
				r.Section()
			}
			if r.Len() > left || !r.OK() && r.Len() != 0 {
				t.Fatalf("%d bytes left after %d, ok %v", r.Len(), left, r.OK())
			}
		}
	})
}

// TestClaimedSizesCostNothing hands the decoder valid checksums over sizes that nothing stands behind.
func TestClaimedSizesCostNothing(t *testing.T) {
	_, dec := newCodec(t)
	// Device 1, set 1, one row at the start of the slice, no arrival and position, one column of metric 1.
	header := []byte{chunk.Version, 0, 0, 0, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 1, 2}
	const whole = 1 << 2
	for name, body := range map[string][]byte{
		"whole body":             append([]byte{whole}, binary.AppendUvarint(nil, 1<<40)...),
		"whole body, over int64": append([]byte{whole}, binary.AppendUvarint(nil, 1<<63+1)...),
		"whole body, one more":   append([]byte{whole}, binary.AppendUvarint(nil, chunk.MaxRaw+1)...),
		"section":                append([]byte{0, 1}, binary.AppendUvarint(nil, 1<<40)...),
		"section length":         append([]byte{0}, binary.AppendUvarint(nil, 1<<62)...),
		"texts":                  {0, 0, 6, 3, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"planes":                 {0, 0, 4, 1, 4},
	} {
		p := append(append([]byte(nil), header...), body...)
		reseal(p)
		c, err := chunk.Read(p, day)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = dec.Rows(c, nil)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%s: %d bytes made the decoder take %d", name, len(p), used)
		}
	}
	for _, rows := range []uint64{0, chunk.MaxRows + 1, 1 << 40} {
		p := append(binary.AppendUvarint(append([]byte(nil), header[:7]...), rows), header[8:]...)
		p = append(p, 0)
		reseal(p)
		if _, err := chunk.Read(p, day); !errors.Is(err, storage.ErrCorrupt) {
			t.Errorf("%d rows: got %v, want ErrCorrupt", rows, err)
		}
	}
}
