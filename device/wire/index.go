package wire

import (
	"fmt"
	"math"
	"slices"

	"telemetryhub/device"
)

// directAliases bounds the tables that are indexed by alias, so that a schema with one alias of 65535 does not cost
// 128 KiB. Larger aliases take a map.
const directAliases = 1024

// column is what the codec must know of one metric, kept close together.
type column struct {
	lo, hi float64
	pow    float64 // 10^|exp|
	exp    int8
	kind   device.Kind
}

type setIndex struct {
	metrics []int
	// print is the sum of the prints of its metrics: a run of JSON rows can only fill the set if its sum is the same.
	print uint64
}

// Index is a schema made ready for the codec. It is immutable and may be shared by many goroutines.
type Index struct {
	schema  *device.Schema
	columns []column
	sets    []setIndex
	metric  lookup
	set     lookup
	// member lists for each metric the sets that it belongs to, those with most metrics first.
	member [][]int
}

// NewIndex checks the schema as [CheckSchema] does and returns its index. The schema must not change afterwards.
func NewIndex(s *device.Schema) (*Index, error) {
	if err := CheckSchema(s); err != nil {
		return nil, err
	}
	x := &Index{
		schema:  s,
		columns: make([]column, len(s.Metrics)),
		sets:    make([]setIndex, len(s.Sets)),
		member:  make([][]int, len(s.Metrics)),
	}
	for i := range s.Metrics {
		m := &s.Metrics[i]
		x.columns[i] = column{lo: m.Lo, hi: m.Hi, pow: pow10(m.Exp), exp: m.Exp, kind: m.Kind}
		x.metric.put(m.Alias, i)
	}
	for i := range s.Sets {
		set := setIndex{metrics: s.Sets[i].Metrics}
		for _, m := range set.metrics {
			set.print += metricPrint(m)
			x.member[m] = append(x.member[m], i)
		}
		x.sets[i] = set
		x.set.put(s.Sets[i].Index, i)
	}
	for _, sets := range x.member {
		slices.SortStableFunc(sets, func(a, b int) int { return len(x.sets[b].metrics) - len(x.sets[a].metrics) })
	}
	return x, nil
}

// Schema returns the schema that the index was made of.
func (x *Index) Schema() *device.Schema { return x.schema }

// pow10 returns 10^|e|, which is exact for |e| up to 22.
func pow10(e int8) float64 {
	p := 1.0
	for range max(e, -e) {
		p *= 10
	}
	return p
}

// metricPrint spreads the position of a metric over 64 bits (the finalizer of splitmix64), so that sums of different
// groups of metrics differ.
func metricPrint(i int) uint64 {
	z := (uint64(i) + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// lookup finds positions by the numbers that devices use.
type lookup struct {
	direct []int16 // by number, position + 1
	large  map[uint16]int16
}

func (l *lookup) put(number uint16, position int) {
	if number >= directAliases {
		if l.large == nil {
			l.large = map[uint16]int16{}
		}
		l.large[number] = int16(position)
		return
	}
	for int(number) >= len(l.direct) {
		l.direct = append(l.direct, 0)
	}
	l.direct[number] = int16(position + 1)
}

// at returns the position of the number, or a negative number.
func (l *lookup) at(number uint64) int {
	if number < uint64(len(l.direct)) {
		return int(l.direct[number]) - 1
	}
	return l.far(number)
}

func (l *lookup) far(number uint64) int {
	if number > math.MaxUint16 {
		return -1
	}
	if i, ok := l.large[uint16(number)]; ok {
		return int(i)
	}
	return -1
}

// checkRef returns an error if the schema has no set or metric with the Ref, or if a row of it does not have n values.
func (x *Index) checkRef(r device.Ref, n int) error {
	w := x.schema.Width(r)
	if w == 0 {
		return fmt.Errorf("the schema %q has no set or metric %d", x.schema.ID, r)
	}
	if w != n {
		return fmt.Errorf("a row of %d values where the schema %q has %d", n, x.schema.ID, w)
	}
	return nil
}
