package chunk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/klauspost/compress/zstd"

	"telemetryhub/storage"
)

const (
	flagQualityMask = 3 // worst time quality
	flagWhole       = 1 << 2
	flagOrder       = 1 << 3
	flagQuality     = 1 << 4
	flagOriginal    = 1 << 5
	flagsKnown      = 1<<6 - 1

	prefixLen = 1 + 4 // version and checksum
)

// MaxRaw limits the size of the body of a chunk before compression. A decoder refuses more.
const MaxRaw = 4 << 20

// wholeBelow is the size of a body from which on each section is compressed by itself: its symbols then have a code of
// their own, and readers decompress only the columns that they want. Below that the cost of the headers outweighs it.
const wholeBelow = 1024

// zstdMagic begins every zstd frame. It is left out in chunks.
var zstdMagic = [4]byte{0x28, 0xb5, 0x2f, 0xfd}

// Encoder makes chunks. It keeps its memory from one chunk to the next and is not safe for concurrent use.
type Encoder struct {
	z        *zstd.Encoder
	section  []byte
	packed   []byte
	sections []span
	body     []byte
	ints     []int64
	bits     []uint64
	places   map[string]uint64
}

type span struct{ from, to int }

// NewEncoder returns an encoder.
func NewEncoder() (*Encoder, error) {
	// Deltas of readings are noise: the slower levels find hardly any more in them, but need more memory and time.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithAllLitEntropyCompression(true),
		zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(128<<10))
	if err != nil {
		return nil, fmt.Errorf("make a zstd encoder: %w", err)
	}
	return &Encoder{z: z, places: make(map[string]uint64)}, nil
}

// Append appends the chunk of rows to dst. It fails with storage.ErrTooLarge if there are more than [MaxRows],
// [MaxColumns] or [MaxRaw]: the caller then divides the rows, or the columns. All other errors mean that rows is not as
// its comments say.
func (e *Encoder) Append(dst []byte, key Key, rows *Rows, origin Origin) ([]byte, error) {
	if err := rows.check(key.Slice); err != nil {
		return dst, fmt.Errorf("encode chunk of device %d, %s: %w", key.Device, key.Series, err)
	}
	e.body, e.sections = e.body[:0], e.sections[:0]
	e.fixedSections(rows)
	for i := range rows.Columns {
		from := len(e.body)
		e.appendColumn(&rows.Columns[i])
		e.sections = append(e.sections, span{from, len(e.body)})
		if len(e.body) > MaxRaw {
			return dst, fmt.Errorf("encode chunk of device %d, %s: %w: more than %d bytes", key.Device, key.Series,
				storage.ErrTooLarge, MaxRaw)
		}
	}
	start := len(dst)
	dst = append(dst, Version, 0, 0, 0, 0)
	dst = e.appendHeader(dst, key, rows, origin)
	flags := len(dst) - 1
	dst = e.appendBody(dst, flags)
	binary.LittleEndian.PutUint32(dst[start+1:], checksum(key, dst[start+prefixLen:]))
	return dst, nil
}

func (r *Rows) check(slice storage.Slice) error {
	n, start := len(r.Times), StartMS(slice)
	if n > MaxRows || len(r.Columns) > MaxColumns {
		return fmt.Errorf("%w: %d rows of %d columns", storage.ErrTooLarge, n, len(r.Columns))
	}
	ok := n > 0 && len(r.Columns) > 0 && slices.IsSorted(r.Times) && r.Times[0] >= start && r.Times[n-1] < start+SliceMS &&
		(r.Order == nil || len(r.Order) == n) && (r.Quality == nil || len(r.Quality) == n) &&
		(r.Original == nil || len(r.Original) == n)
	for i := range r.Columns {
		c := &r.Columns[i]
		ok = ok && len(c.Bits) == n && (c.Types == nil || len(c.Types) == n)
	}
	if !ok {
		return errRows
	}
	return nil
}

// fixedSections appends the sections of what the columns share.
func (e *Encoder) fixedSections(r *Rows) {
	end := func(from int) { e.sections = append(e.sections, span{from, len(e.body)}) }
	from := len(e.body)
	for i := 1; i < len(r.Times); i++ {
		e.body = binary.AppendUvarint(e.body, uint64(r.Times[i]-r.Times[i-1]))
	}
	end(from)
	if r.Order != nil {
		from, before := len(e.body), uint32(0)
		for _, o := range r.Order {
			e.body = binary.AppendVarint(e.body, int64(o)-int64(before))
			before = o
		}
		end(from)
	}
	if r.Quality != nil {
		from := len(e.body)
		for _, q := range r.Quality {
			e.body = append(e.body, byte(q))
		}
		end(from)
	}
	if r.Original != nil {
		from := len(e.body)
		for i, t := range r.Original {
			e.body = binary.AppendVarint(e.body, t-r.Times[i])
		}
		end(from)
	}
}

// appendHeader appends everything before the body. Its last byte is for the flags.
func (e *Encoder) appendHeader(dst []byte, key Key, r *Rows, o Origin) []byte {
	n := len(r.Times)
	dst = binary.AppendUvarint(dst, uint64(key.Device))
	dst = binary.AppendUvarint(dst, uint64(key.Series))
	dst = binary.AppendUvarint(dst, uint64(n))
	dst = binary.AppendUvarint(dst, uint64(r.Times[0]-StartMS(key.Slice)))
	dst = binary.AppendUvarint(dst, uint64(r.Times[n-1]-r.Times[0]))
	dst = binary.AppendVarint(dst, o.FirstArrivalMS-r.Times[0])
	dst = binary.AppendUvarint(dst, uint64(o.LastArrivalMS-o.FirstArrivalMS))
	dst = binary.AppendUvarint(dst, uint64(o.First))
	dst = binary.AppendUvarint(dst, uint64(o.Last-o.First))
	dst = binary.AppendUvarint(dst, uint64(len(r.Columns)))
	before := int64(0)
	for i := range r.Columns {
		m := int64(r.Columns[i].Metric)
		dst = binary.AppendVarint(dst, m-before)
		before = m
	}
	flags := byte(o.TimeQuality) & flagQualityMask
	if r.Order != nil {
		flags |= flagOrder
	}
	if r.Quality != nil {
		flags |= flagQuality
	}
	if r.Original != nil {
		flags |= flagOriginal
	}
	return append(dst, flags)
}

// appendBody appends the sections, together if they are small, and sets the flag that says so in dst[flags].
func (e *Encoder) appendBody(dst []byte, flags int) []byte {
	if len(e.body) >= wholeBelow {
		for _, s := range e.sections {
			dst = e.appendSection(dst, e.body[s.from:s.to], true)
		}
		return dst
	}
	start := len(dst)
	for _, s := range e.sections {
		dst = e.appendSection(dst, e.body[s.from:s.to], false)
	}
	raw := dst[start:]
	e.packed = e.z.EncodeAll(raw, e.packed[:0])
	packed := e.packed[len(zstdMagic):]
	if len(packed)+2 >= len(raw) {
		return dst
	}
	size := uint64(len(raw))
	dst[flags] |= flagWhole
	dst = binary.AppendUvarint(dst[:start], size)
	return append(dst, packed...)
}

// appendSection appends the length and the bytes of a section, compressed if that is allowed and makes it smaller.
func (e *Encoder) appendSection(dst, raw []byte, compress bool) []byte {
	if compress && len(raw) > 16 {
		e.packed = e.z.EncodeAll(raw, e.packed[:0])
		if packed := e.packed[len(zstdMagic):]; len(packed)+2 < len(raw) {
			dst = binary.AppendUvarint(dst, uint64(len(packed))<<1|1)
			dst = binary.AppendUvarint(dst, uint64(len(raw)))
			return append(dst, packed...)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(len(raw))<<1)
	return append(dst, raw...)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(k Key, p []byte) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint32(b[:], uint32(k.Slice))
	binary.LittleEndian.PutUint32(b[4:], k.Device)
	binary.LittleEndian.PutUint64(b[8:], uint64(k.Series))
	return crc32.Update(crc32.Update(0, castagnoli, b[:]), castagnoli, p)
}
