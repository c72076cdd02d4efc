package chunk

import (
	"encoding/binary"

	"telemetryhub/device"
)

// The first byte of a column.
const (
	columnAbsent  = 0 // no row has a value
	columnNumbers = 1
	columnBools   = 2
	columnTexts   = 3
	columnMixed   = 4 // two bits for each row say the type
	columnKinds   = 7
	columnPresent = 1 << 3 // one bit for each row says whether there is a value
	columnKnown   = 1<<4 - 1
)

// appendColumn appends the section of a column to e.body.
func (e *Encoder) appendColumn(c *Column) {
	kind, count := c.kind()
	head := kind
	if kind == columnMixed {
		e.body = append(e.body, head)
		e.body = appendTypes(e.body, c.Types)
	} else {
		if kind != columnAbsent && count < len(c.Bits) {
			head |= columnPresent
		}
		e.body = append(e.body, head)
		if head&columnPresent != 0 {
			e.body = appendBitmap(e.body, len(c.Types), func(i int) bool { return c.Types[i] != device.Absent })
		}
	}
	for _, t := range [...]device.Type{device.Number, device.Bool, device.String} {
		if bits := e.pick(c, t); len(bits) > 0 {
			switch t {
			case device.Number:
				e.appendNumbers(bits)
			case device.Bool:
				e.body = appendBitmap(e.body, len(bits), func(i int) bool { return bits[i] != 0 })
			case device.String:
				e.appendTexts(bits, c.Texts)
			}
		}
	}
}

// kind returns what begins the section, and how many rows have a value.
func (c *Column) kind() (byte, int) {
	if c.Types == nil {
		return columnNumbers, len(c.Bits)
	}
	var seen [4]int
	for _, t := range c.Types {
		seen[t&3]++
	}
	kind, kinds := byte(columnAbsent), 0
	for t := device.Number; t <= device.String; t++ {
		if seen[t] > 0 {
			kind, kinds = byte(t), kinds+1
		}
	}
	if kinds > 1 {
		kind = columnMixed
	}
	return kind, len(c.Types) - seen[device.Absent]
}

// pick returns the bits of the values of one type.
func (e *Encoder) pick(c *Column, t device.Type) []uint64 {
	if c.Types == nil {
		if t == device.Number {
			return c.Bits
		}
		return nil
	}
	e.bits = e.bits[:0]
	for i, have := range c.Types {
		if have == t {
			e.bits = append(e.bits, c.Bits[i])
		}
	}
	return e.bits
}

// appendTexts appends each different text once, in order of first use, then their places.
func (e *Encoder) appendTexts(bits []uint64, texts []string) {
	clear(e.places)
	count, lens := uint64(0), len(e.body)
	e.section = e.section[:0]
	for _, b := range bits {
		s := texts[b]
		if _, ok := e.places[s]; !ok {
			e.places[s] = count
			count++
			e.section = binary.AppendUvarint(e.section, uint64(len(s)))
			e.section = append(e.section, s...)
		}
	}
	e.body = binary.AppendUvarint(e.body[:lens], count)
	e.body = append(e.body, e.section...)
	if count == 1 {
		return
	}
	for _, b := range bits {
		e.body = binary.AppendUvarint(e.body, e.places[texts[b]])
	}
}

func appendTypes(dst []byte, types []device.Type) []byte {
	for i := 0; i < len(types); i += 4 {
		var b byte
		for j, t := range types[i:min(i+4, len(types))] {
			b |= byte(t&3) << (2 * j)
		}
		dst = append(dst, b)
	}
	return dst
}

func appendBitmap(dst []byte, n int, set func(i int) bool) []byte {
	for i := 0; i < n; i += 8 {
		var b byte
		for j := i; j < min(i+8, n); j++ {
			if set(j) {
				b |= 1 << (j - i)
			}
		}
		dst = append(dst, b)
	}
	return dst
}

// readColumn reads the section of a column of n rows. It puts its memory on top of what the section takes up only for
// the rows that the chunk has.
func readColumn(p []byte, n int) (Column, bool) {
	r := NewFields(p)
	c := Column{Bits: make([]uint64, n)}
	head := r.Byte()
	if head&^columnKnown != 0 {
		return c, false
	}
	var counts [4]int
	switch kind := head & columnKinds; {
	case kind == columnMixed && head&columnPresent == 0:
		c.Types = readTypes(&r, n, &counts)
	case kind > columnTexts:
		return c, false
	case kind == columnNumbers && head&columnPresent == 0:
		counts[device.Number] = n
	case kind == columnAbsent || head&columnPresent == 0:
		c.Types = make([]device.Type, n)
		for i := range c.Types {
			c.Types[i] = device.Type(kind)
		}
		counts[kind] = n
	default:
		c.Types = readPresent(&r, n, device.Type(kind), &counts)
	}
	ok := r.OK()
	if ok && counts[device.Number] > 0 {
		ok = readNumbers(&r, c.spread(device.Number, counts[device.Number]))
	}
	if ok && counts[device.Bool] > 0 {
		ok = readBools(&r, c.spread(device.Bool, counts[device.Bool]))
	}
	if ok && counts[device.String] > 0 {
		c.Texts, ok = readTexts(&r, c.spread(device.String, counts[device.String]))
	}
	return c, ok && r.Done()
}

// places are the rows that have a value of one type. all means every row.
type places struct {
	bits  []uint64
	types []device.Type
	typ   device.Type
	count int
}

func (c *Column) spread(t device.Type, count int) places {
	p := places{bits: c.Bits, typ: t, count: count}
	if count < len(c.Bits) {
		p.types = c.Types
	}
	return p
}

// fill stores values, which are in order and as many as p.count, in their rows.
func (p *places) fill(next func() uint64) {
	for i := range p.bits {
		if p.types == nil || p.types[i] == p.typ {
			p.bits[i] = next()
		}
	}
}

func readTypes(r *Fields, n int, counts *[4]int) []device.Type {
	p := r.Bytes(uint64(n+3) / 4)
	if p == nil {
		return nil
	}
	types := make([]device.Type, n)
	for i := range types {
		types[i] = device.Type(p[i/4] >> (2 * (i % 4)) & 3)
		counts[types[i]]++
	}
	return types
}

func readPresent(r *Fields, n int, t device.Type, counts *[4]int) []device.Type {
	p := r.Bytes(uint64(n+7) / 8)
	if p == nil {
		return nil
	}
	types := make([]device.Type, n)
	for i := range types {
		if p[i/8]>>(i%8)&1 == 1 {
			types[i] = t
			counts[t]++
		}
	}
	return types
}

func readBools(r *Fields, to places) bool {
	p := r.Bytes(uint64(to.count+7) / 8)
	if p == nil {
		return false
	}
	i := 0
	to.fill(func() uint64 {
		b := p[i/8] >> (i % 8) & 1
		i++
		return uint64(b)
	})
	return true
}

func readTexts(r *Fields, to places) ([]string, bool) {
	count := r.Max(uint64(to.count))
	if count == 0 || count > uint64(r.Len()) {
		return nil, false
	}
	texts := make([]string, count)
	for i := range texts {
		texts[i] = string(r.Section())
	}
	if count > 1 {
		to.fill(func() uint64 { return r.Max(count - 1) })
	}
	return texts, r.OK()
}
