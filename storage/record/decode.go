package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// Record is one record of a group. It aliases the group.
type Record struct {
	Header
	body []byte
}

// Reader walks the records of one group.
//
//	r, err := record.Read(group)
//	for r.Next() {
//		rec := r.Record()
//	}
//	err = r.Err()
type Reader struct {
	base    int64
	crc     uint32
	rest    []byte
	salvage bool
	skipped int
	rec     Record
	err     error
}

// Read returns a reader for a group. It fails with storage.ErrNewerFormat if the group has another version, and with
// storage.ErrCorrupt if it is too short.
func Read(group []byte) (Reader, error) {
	if len(group) < groupHeader {
		return Reader{}, fmt.Errorf("log group of %d bytes: %w", len(group), storage.ErrCorrupt)
	}
	if group[0] != Version {
		return Reader{}, fmt.Errorf("log group has format version %d, this program reads %d: %w", group[0], Version, storage.ErrNewerFormat)
	}
	return Reader{
		base: int64(binary.LittleEndian.Uint64(group[1:])),
		crc:  crc32.Update(0, castagnoli, group[1:groupHeader]),
		rest: group[groupHeader:],
	}, nil
}

// Salvage returns a reader for a damaged group. It yields every record whose checksum holds and passes over all else.
func Salvage(group []byte) Reader {
	r, err := Read(group)
	if err != nil {
		return Reader{}
	}
	r.salvage = true
	return r
}

// Next goes to the next record and reports whether there is one.
func (r *Reader) Next() bool {
	for len(r.rest) > 0 && r.err == nil {
		n, err := r.parse(r.rest)
		if err == nil {
			r.rest = r.rest[n:]
			return true
		}
		if !r.salvage {
			r.err = err
			return false
		}
		r.rest = r.rest[1:]
		r.skipped++
	}
	return false
}

// Record returns the record that Next went to. It is valid as long as the group's bytes are not changed, and until the
// next call of Next.
func (r *Reader) Record() *Record { return &r.rec }

// Err returns the error that ended the walk, if any: storage.ErrCorrupt for a record whose checksum does not hold,
// ErrBad for one that does not follow the format. A salvaging reader has no error.
func (r *Reader) Err() error { return r.err }

// Skipped returns how many bytes a salvaging reader passed over.
func (r *Reader) Skipped() int { return r.skipped }

// parse reads one record at the start of p and returns its size.
func (r *Reader) parse(p []byte) (int, error) {
	size, n := binary.Uvarint(p)
	if n <= 0 || size == 0 || size > uint64(len(p)-n) || len(p)-n-int(size) < crcLen {
		return 0, fmt.Errorf("record length: %w", storage.ErrCorrupt)
	}
	want := binary.LittleEndian.Uint32(p[n:])
	b := p[n+crcLen:][:size]
	if crc32.Update(r.crc, castagnoli, b) != want {
		return 0, fmt.Errorf("record checksum: %w", storage.ErrCorrupt)
	}
	if len(b) < 2 {
		return 0, fmt.Errorf("%w: %d bytes", ErrBad, len(b))
	}
	d := decoder{b: b[2:]}
	r.rec = Record{Header: Header{
		Kind:         Kind(b[0]),
		TimeQuality:  device.TimeQuality(b[1] & 3),
		TimeReplaced: b[1]&flagTimeReplaced != 0,
		Device:       d.uint32(),
		Stream:       d.uint32(),
		Seq:          d.uvarint(),
		ArrivalMS:    r.base + d.varint(),
	}}
	r.rec.body = d.b
	if d.bad {
		return 0, fmt.Errorf("%w: header", ErrBad)
	}
	return n + crcLen + int(size), nil
}

// Gap returns the gap of a record of kind Gap.
func (r *Record) Gap() (device.Gap, error) {
	d := decoder{b: r.body}
	g := device.Gap{
		Seq:     r.Seq,
		FromSeq: d.uvarint(),
		ToSeq:   d.uvarint(),
		Count:   d.uvarint(),
		FromMS:  d.varint(),
		ToMS:    d.varint(),
		Cause:   device.Cause(d.bytes(d.uvarint())),
	}
	if d.bad || len(d.b) != 0 {
		return device.Gap{}, fmt.Errorf("%w: gap of device %d", ErrBad, r.Device)
	}
	return g, nil
}

// Schema returns the number of the schema that a record of kind Data was written with.
func (r *Record) Schema() uint32 {
	d := decoder{b: r.body}
	return d.uint32()
}

// decoder reads numbers and remembers that one was bad.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	if len(d.b) > 0 && d.b[0] < 0x80 {
		u := uint64(d.b[0])
		d.b = d.b[1:]
		return u
	}
	u, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return u
}

func (d *decoder) varint() int64 { return unzigzag(d.uvarint()) }

func (d *decoder) uint32() uint32 {
	u := d.uvarint()
	if u > 1<<32-1 {
		d.bad = true
	}
	return uint32(u)
}

func (d *decoder) bytes(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

var errSchema = errors.New("the row does not fit the schema")
