package chunk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"telemetryhub/device"
	"telemetryhub/storage"
)

var (
	errRows   = errors.New("the rows are not in order, not in the slice or not of one length")
	errFormat = fmt.Errorf("%w: it does not follow the format", storage.ErrCorrupt)
)

// Chunk is a chunk whose checksum holds. It aliases the bytes that it was read from.
type Chunk struct {
	Header
	flags byte
	body  []byte
}

// Read checks a chunk that lies in the slice and reads its header. The key in the header is covered by the checksum, but
// it is for the caller to compare it with what was looked for. Errors: storage.ErrCorrupt, storage.ErrNewerFormat.
func Read(p []byte, slice storage.Slice) (*Chunk, error) {
	if len(p) < prefixLen || p[0] == 0 {
		return nil, fmt.Errorf("chunk of %d bytes: %w", len(p), errFormat)
	}
	if p[0] > Version {
		return nil, fmt.Errorf("chunk has format version %d, this program reads up to %d: %w", p[0], Version,
			storage.ErrNewerFormat)
	}
	r := NewFields(p[prefixLen:])
	c := &Chunk{Header: Header{Key: Key{Slice: slice, Device: r.Uint32(), Series: Series(r.Max(1<<33 - 1))}}}
	if !r.OK() || binary.LittleEndian.Uint32(p[1:]) != checksum(c.Key, p[prefixLen:]) {
		return nil, fmt.Errorf("chunk of device %d, %s: %w: the checksum does not hold", c.Device, c.Series, storage.ErrCorrupt)
	}
	if !c.readHeader(&r) {
		return nil, fmt.Errorf("chunk of device %d, %s: header: %w", c.Device, c.Series, errFormat)
	}
	return c, nil
}

func (c *Chunk) readHeader(r *Fields) bool {
	c.Rows = int(r.Max(MaxRows))
	first := r.Max(SliceMS - 1)
	last := first + r.Max(SliceMS-1)
	c.FirstMS, c.LastMS = StartMS(c.Slice)+int64(first), StartMS(c.Slice)+int64(last)
	c.FirstArrivalMS = c.FirstMS + r.Varint()
	c.LastArrivalMS = c.FirstArrivalMS + int64(r.Uvarint())
	c.First = storage.Position(r.Uvarint())
	c.Last = c.First + storage.Position(r.Uvarint())
	columns := r.Max(min(MaxColumns, uint64(r.Len())))
	if !r.OK() || c.Rows == 0 || last >= SliceMS || columns == 0 || c.LastArrivalMS < c.FirstArrivalMS || c.Last < c.First {
		return false
	}
	c.Metrics = make([]uint32, columns)
	before := int64(0)
	for i := range c.Metrics {
		before += r.Varint()
		if before < 0 || before > 1<<32-1 {
			return false
		}
		c.Metrics[i] = uint32(before)
	}
	c.flags = r.Byte()
	c.TimeQuality = device.TimeQuality(c.flags & flagQualityMask)
	c.body = r.Rest()
	return r.OK() && c.flags&^flagsKnown == 0
}

// Decoder decodes the rows of chunks. It is safe for use by many goroutines at once.
type Decoder struct {
	// mu is held for reading while z works, as z must not be closed meanwhile: what uses it would panic.
	mu     sync.RWMutex
	z      *zstd.Decoder
	closed bool
}

// decoders is how many chunks are decompressed at a time.
const decoders = 2

// NewDecoder returns a decoder, to be closed.
func NewDecoder() (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(decoders), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(MaxRaw), zstd.WithDecoderMaxWindow(MaxRaw), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return nil, fmt.Errorf("make a zstd decoder: %w", err)
	}
	return &Decoder{z: z}, nil
}

// Close waits for calls of Rows and releases the memory of d.
func (d *Decoder) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed {
		d.closed = true
		d.z.Close()
	}
}

// Rows decodes the rows of c with those columns whose metric want returns true for; nil means all of them. It fails with
// storage.ErrCorrupt if c does not follow the format, and with storage.ErrClosed after Close.
func (d *Decoder) Rows(c *Chunk, want func(metric uint32) bool) (*Rows, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil, storage.ErrClosed
	}
	s := sections{d: d, left: MaxRaw, r: NewFields(c.body)}
	rows, err := s.rows(c, want)
	if err != nil {
		return nil, fmt.Errorf("chunk of device %d, %s: %w", c.Device, c.Series, err)
	}
	return rows, nil
}

// sections reads the sections of one body.
type sections struct {
	d       *Decoder
	r       Fields
	left    uint64 // bytes that may still be decompressed
	scratch []byte
}

func (s *sections) rows(c *Chunk, want func(metric uint32) bool) (*Rows, error) {
	if c.flags&flagWhole != 0 {
		raw, err := s.inflate(s.r.Uvarint(), s.r.Rest())
		if err != nil {
			return nil, err
		}
		s.r = NewFields(raw)
	}
	rows := new(Rows)
	if err := s.shared(c, rows); err != nil {
		return nil, err
	}
	for _, metric := range c.Metrics {
		if want != nil && !want(metric) {
			s.skip()
			continue
		}
		p, err := s.next()
		if err != nil {
			return nil, err
		}
		col, ok := readColumn(p, c.Rows)
		if !ok {
			return nil, fmt.Errorf("column of metric %d: %w", metric, errFormat)
		}
		col.Metric = metric
		rows.Columns = append(rows.Columns, col)
	}
	if !s.r.Done() {
		return nil, errFormat
	}
	return rows, nil
}

// shared reads what the columns share.
func (s *sections) shared(c *Chunk, rows *Rows) error {
	p, err := s.next()
	if err != nil {
		return err
	}
	ok := readTimes(p, c, rows)
	if c.flags&flagOrder != 0 && ok {
		if p, err = s.next(); err != nil {
			return err
		}
		ok = readOrder(p, c, rows)
	}
	if c.flags&flagQuality != 0 && ok {
		if p, err = s.next(); err != nil {
			return err
		}
		ok = len(p) == c.Rows
		for _, q := range p {
			rows.Quality = append(rows.Quality, device.Quality(q))
		}
	}
	if c.flags&flagOriginal != 0 && ok {
		if p, err = s.next(); err != nil {
			return err
		}
		ok = readOriginal(p, c, rows)
	}
	if !ok {
		return errFormat
	}
	return nil
}

func readTimes(p []byte, c *Chunk, rows *Rows) bool {
	r := NewFields(p)
	rows.Times = make([]int64, c.Rows)
	t := c.FirstMS
	for i := range rows.Times {
		if i > 0 {
			t += int64(r.Max(SliceMS))
		}
		rows.Times[i] = t
	}
	return r.Done() && t == c.LastMS
}

func readOrder(p []byte, c *Chunk, rows *Rows) bool {
	r := NewFields(p)
	rows.Order = make([]uint32, c.Rows)
	o := int64(0)
	for i := range rows.Order {
		o += r.Varint()
		if o < 0 || o > 1<<32-1 {
			return false
		}
		rows.Order[i] = uint32(o)
	}
	return r.Done()
}

func readOriginal(p []byte, c *Chunk, rows *Rows) bool {
	r := NewFields(p)
	rows.Original = make([]int64, c.Rows)
	for i := range rows.Original {
		rows.Original[i] = rows.Times[i] + r.Varint()
	}
	return r.Done()
}

// next returns the bytes of the next section, valid until the next call.
func (s *sections) next() ([]byte, error) {
	head := s.r.Uvarint()
	if head&1 == 0 {
		p := s.r.Bytes(head >> 1)
		if !s.r.OK() {
			return nil, errFormat
		}
		return p, nil
	}
	size := s.r.Uvarint()
	return s.inflate(size, s.r.Bytes(head>>1))
}

func (s *sections) skip() {
	head := s.r.Uvarint()
	if head&1 == 1 {
		s.r.Uvarint()
	}
	s.r.Bytes(head >> 1)
}

// inflate decompresses a section of the given size.
func (s *sections) inflate(size uint64, packed []byte) ([]byte, error) {
	if !s.r.OK() || size == 0 || size > s.left {
		return nil, errFormat
	}
	s.left -= size
	s.scratch = append(append(s.scratch[:0], zstdMagic[:]...), packed...)
	raw, err := s.d.z.DecodeAll(s.scratch, make([]byte, 0, size))
	if err != nil || uint64(len(raw)) != size {
		return nil, fmt.Errorf("%w: decompress: %v", storage.ErrCorrupt, err)
	}
	return raw, nil
}
