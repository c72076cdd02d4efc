package history

import (
	"encoding/binary"
	"fmt"
	"math"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/chunk"
)

// The first byte of a newest reading.
const (
	latestType     = 3 // device.Type
	latestQuality  = 1 << 2
	latestReplaced = 1 << 3
	latestScaled   = 1 << 4 // a number is a scaled integer
	latestLong     = 1 << 5 // a text is read from the chunks
	latestKnown    = 1<<6 - 1
)

// longText is the length in bytes from which on a newest text is not kept in the catalog.
const longText = 33

// scaleDigits is how many decimals a newest number may have to be kept as an integer.
const scaleDigits = 6

func encodeLatest(list []newest) []byte {
	p := binary.AppendUvarint(newValue(), uint64(len(list)))
	before := newest{}
	for i := range list {
		n := &list[i]
		if n.device != before.device {
			before.Metric = 0
		}
		p = appendNewest(p, n, &before)
		before = *n
	}
	return sealValue(p)
}

func appendNewest(p []byte, n, before *newest) []byte {
	head := byte(n.Value.Type) & latestType
	number, exp, scaled := scale(n.Value)
	if scaled {
		head |= latestScaled
	}
	if n.Quality != 0 {
		head |= latestQuality
	}
	if n.Replaced {
		head |= latestReplaced
	}
	if n.elsewhere || len(n.Value.Text()) >= longText {
		head |= latestLong
	}
	p = append(p, head)
	p = binary.AppendUvarint(p, uint64(n.device-before.device))
	p = binary.AppendUvarint(p, uint64(n.Metric-before.Metric))
	p = binary.AppendVarint(p, n.TimeMS-before.TimeMS)
	p = binary.AppendVarint(p, n.arrivalMS-before.arrivalMS)
	p = binary.AppendVarint(p, int64(n.pos-before.pos))
	if n.Quality != 0 {
		p = append(p, byte(n.Quality))
	}
	if n.Replaced {
		p = binary.AppendVarint(p, n.OriginalMS-n.TimeMS)
	}
	switch {
	case head&latestLong != 0:
	case head&latestScaled != 0:
		p = append(p, byte(exp))
		p = binary.AppendVarint(p, number)
	case n.Value.Type == device.Number:
		p = binary.LittleEndian.AppendUint64(p, math.Float64bits(n.Value.Float()))
	case n.Value.Type == device.Bool:
		p = append(p, byte(n.Value.Float()))
	case n.Value.Type == device.String:
		p = binary.AppendUvarint(p, uint64(len(n.Value.Text())))
		p = append(p, n.Value.Text()...)
	}
	return p
}

// scale returns the integer that times ten to the exponent is the number, if there is one.
func scale(v device.Value) (number int64, exp int8, ok bool) {
	for exp = 0; exp >= -scaleDigits && v.Type == device.Number; exp-- {
		if number, ok = device.Scale(v.Float(), exp); ok {
			return number, exp, true
		}
	}
	return 0, 0, false
}

func decodeLatest(p []byte) ([]newest, error) {
	f, err := openValue(p)
	if err != nil {
		return nil, fmt.Errorf("newest readings: %w", err)
	}
	var list []newest
	before := newest{}
	for range f.Max(uint64(f.Len())) {
		n := readNewest(&f, &before)
		list = append(list, n)
		before = n
	}
	if !f.Done() {
		return nil, fmt.Errorf("newest readings: %w", errValue)
	}
	return list, nil
}

func readNewest(f *chunk.Fields, before *newest) newest {
	head := f.Byte()
	if head&^latestKnown != 0 {
		f.Fail()
	}
	n := newest{elsewhere: head&latestLong != 0}
	diff := f.Uint32()
	if n.device = before.device + diff; diff > 0 {
		before.Metric = 0
	}
	n.Metric = before.Metric + f.Uint32()
	n.TimeMS = before.TimeMS + f.Varint()
	n.arrivalMS = before.arrivalMS + f.Varint()
	n.pos = before.pos + storage.Position(f.Varint())
	if head&latestQuality != 0 {
		n.Quality = device.Quality(f.Byte())
	}
	n.OriginalMS = n.TimeMS
	if n.Replaced = head&latestReplaced != 0; n.Replaced {
		n.OriginalMS += f.Varint()
	}
	if !n.elsewhere {
		n.Value = readValue(f, head)
	}
	return n
}

func readValue(f *chunk.Fields, head byte) device.Value {
	switch device.Type(head & latestType) {
	case device.Number:
		if head&latestScaled != 0 {
			exp := int8(f.Byte())
			v, ok := device.Unscale(f.Varint(), exp)
			if !ok {
				f.Fail()
			}
			return device.NumberValue(v)
		}
		if b := f.Bytes(8); len(b) == 8 {
			return device.NumberValue(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
	case device.Bool:
		return device.BoolValue(f.Byte() != 0)
	case device.String:
		return device.TextValue(string(f.Section()))
	default:
		f.Fail()
	}
	return device.Value{}
}
