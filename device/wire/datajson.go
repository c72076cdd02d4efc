package wire

import (
	"math"
	"unicode/utf8"

	"telemetryhub/device"
)

// jsonRow is a row as it stands in a JSON message: one value of one metric.
type jsonRow struct {
	metric int
	dt     int64
	value  device.Value
	q      device.Quality
}

// dataJSON reads {"m":…,"s":…,"t":…,"tq":…,"r":[[alias, dt, v(, q)]…]}, in whatever order the keys come.
func (d *Decoder) dataJSON(b []byte, x *Index, batch *device.Batch, t Type) (Flags, error) {
	if !utf8.Valid(b) {
		return 0, malformed(JSON)
	}
	var flags Flags
	var seen, null keySet
	d.rows = d.rows[:0]
	p := jsonOpen(b, 0, '{')
	for first := true; p >= 0; first = false {
		raw, next, more := jsonMember(b, p, first)
		if p = next; p < 0 || !more {
			break
		}
		var buf [16]byte
		key, _ := jsonUnescape(buf[:0], raw)
		known := keyOf(key)
		if known != 0 && !seen.add(known) {
			return 0, protocolError("%s stands twice", string(key))
		}
		if known != 0 && jsonByte(b, p) == 'n' {
			null |= known
			p = jsonLiteral(b, p, "null")
			continue
		}
		var whole int64
		switch known {
		case keyM:
			name, next := jsonString(b, p)
			if next < 0 || typeOf(name) != t {
				return 0, protocolError("not a message of type %s", t)
			}
			p = next
		case keyS:
			if whole, p = jsonInt(b, p, MaxSeq); p < 0 || whole < 0 {
				return 0, protocolError("s is not a whole number from 0 to 2^53-1")
			}
			batch.Seq = uint64(whole)
		case keyT:
			if batch.BaseMS, p = jsonInt(b, p, MaxTimeMS); p < 0 {
				return 0, protocolError("t is not a whole number of milliseconds")
			}
		case keyQ:
			if whole, p = jsonInt(b, p, int64(device.ClockNTP)); p < 0 || whole < 0 {
				return 0, protocolError("tq is not 0, 1 or 2")
			}
			flags = ClockFlag(device.TimeQuality(whole))
		case keyR:
			if jsonByte(b, p) != '[' {
				return 0, protocolError("r is not an array")
			}
			var rows int
			if rows, p = d.jsonRows(b, p+1, x); rows > device.MaxRows {
				return 0, protocolError("%d rows, the limit is %d", rows, device.MaxRows)
			}
		default:
			p = jsonSkip(b, p, MaxNesting-1)
		}
	}
	seen &^= null
	switch {
	case p < 0 || !jsonEnd(b, p):
		return 0, malformed(JSON)
	case !seen.has(keyM):
		return 0, protocolError("not a message of type %s", t)
	case !seen.has(keyR):
		return 0, protocolError("r is missing")
	}
	d.group(x, batch)
	return flags, nil
}

// keySet remembers which of the keys of a data message have been seen.
type keySet uint8

const (
	keyM keySet = 1 << iota
	keyS
	keyT
	keyQ
	keyR
)

// keyOf returns zero for a key that is unknown, and therefore ignored.
func keyOf(key []byte) keySet {
	switch string(key) {
	case "m":
		return keyM
	case "s":
		return keyS
	case "t":
		return keyT
	case "tq":
		return keyQ
	case "r":
		return keyR
	}
	return 0
}

func (s keySet) has(k keySet) bool { return s&k != 0 }

func (s *keySet) add(k keySet) bool {
	if s.has(k) {
		return false
	}
	*s |= k
	return true
}

// typeOf returns the type of the message whose name is written as raw.
func typeOf(raw []byte) Type {
	var buf [16]byte
	name, _ := jsonUnescape(buf[:0], raw)
	return typeNamed(name)
}

// jsonRows reads the rows after the opening bracket into d.rows and returns how many there are, good and bad.
func (d *Decoder) jsonRows(b []byte, p int, x *Index) (rows, next int) {
	for row := 0; ; row++ {
		next, more := jsonElement(b, p, row == 0)
		if next < 0 || !more {
			return row, next
		}
		var r jsonRow
		var code BadCode
		if p, code = d.jsonRow(b, next, x, &r); code == 0 && !d.span(r.dt) {
			code = BadTime
		}
		if code != 0 {
			d.bad.add(Bad{Row: row, Count: 1, Code: code})
			p = jsonSkip(b, next, MaxNesting-2)
		} else {
			d.rows = append(d.rows, r)
		}
		if p < 0 {
			return row, -1
		}
	}
}

// jsonRow reads one row. If there is a fault, the position it returns is of no use: the row may also not be
// well-formed, which the caller finds out by skipping it.
func (d *Decoder) jsonRow(b []byte, p int, x *Index, r *jsonRow) (next int, code BadCode) {
	if p = jsonOpen(b, p, '['); p < 0 {
		return -1, BadShape
	}
	alias, p := jsonInt(b, jsonSpace(b, p), math.MaxUint16)
	if p < 0 || alias < 0 {
		return -1, BadShape
	}
	if r.metric = x.metric.at(uint64(alias)); r.metric < 0 {
		return -1, BadAlias
	}
	p, more := jsonElement(b, p, false)
	if !more {
		return -1, BadShape
	}
	if r.dt, p = jsonInt(b, p, 2*device.MaxSpanMS); p < 0 {
		return -1, BadTime
	}
	if p, more = jsonElement(b, p, false); !more {
		return -1, BadShape
	}
	if p, code = d.jsonValue(b, p, x.columns[r.metric].kind, &r.value); code != 0 {
		return -1, code
	}
	if p, more = jsonElement(b, p, false); more {
		var q int64
		if q, p = jsonInt(b, p, math.MaxUint8); p < 0 || q < 0 {
			return -1, BadShape
		}
		r.q = device.Quality(q) & device.FromDevice
		p, more = jsonElement(b, p, false)
	}
	if p < 0 || more {
		return -1, BadShape
	}
	return p, 0
}

// jsonValue reads one value of a metric of the given kind.
func (d *Decoder) jsonValue(b []byte, p int, kind device.Kind, out *device.Value) (next int, code BadCode) {
	switch jsonByte(b, p) {
	case '"':
		raw, p := jsonString(b, p)
		if p < 0 {
			return -1, BadShape
		}
		if !takesText(kind) {
			return p, BadType
		}
		text, ok := jsonUnescape(d.scratch[:0], raw)
		if !ok {
			return p, BadText
		}
		if len(text) < len(raw) { // not raw itself: every escape is longer than what it stands for
			d.scratch = text
		}
		s, code := d.text(text)
		if code == 0 {
			*out = device.TextValue(s)
		}
		return p, code
	case 'n':
		*out = device.Value{}
		return jsonWord(b, p, "null", true)
	case 't':
		*out = device.BoolValue(true)
		return jsonWord(b, p, "true", takesBool(kind))
	case 'f':
		*out = device.BoolValue(false)
		return jsonWord(b, p, "false", takesBool(kind))
	case '[', '{':
		return -1, BadType
	}
	v, p := jsonNumber(b, p)
	switch {
	case p < 0:
		return -1, BadShape
	case v-v != 0: // beyond the range of a float64
		return p, BadNumber
	case !takesNumber(kind):
		return p, BadType
	}
	*out = device.NumberValue(v)
	return p, 0
}

func jsonWord(b []byte, p int, word string, fits bool) (next int, code BadCode) {
	if p = jsonLiteral(b, p, word); p < 0 {
		return -1, BadShape
	}
	if !fits {
		return p, BadType
	}
	return p, 0
}

// group turns the single values of d.rows into rows of the batch. At each row, the largest set that the next rows fill
// is taken, the first declared among equals: n adjacent rows with one time and one quality that name each of the n
// metrics of the set once, in any order. What fills no set stays a single.
func (d *Decoder) group(x *Index, batch *device.Batch) {
	n := len(d.rows)
	d.reserve(n)
	d.prints = append(d.prints[:0], 0)
	for i := range d.rows {
		d.prints = append(d.prints, d.prints[i]+metricPrint(d.rows[i].metric))
	}
	run := 0 // the end of the rows that have the time and the quality of row i
	for i := 0; i < n; {
		r := &d.rows[i]
		for ; run < n && (run <= i || d.rows[run].dt == r.dt && d.rows[run].q == r.q); run++ {
		}
		ref, rows, values := device.SingleRef(r.metric), d.rows[i:i+1], d.values[len(d.values):len(d.values)+1]
		values[0] = r.value
		for _, s := range x.member[r.metric] {
			set := &x.sets[s]
			w := len(set.metrics)
			if i+w > run || d.prints[i+w]-d.prints[i] != set.print {
				continue
			}
			if v := values[:w]; fill(d.rows[i:i+w], set, v) {
				ref, rows, values = device.SetRef(s), d.rows[i:i+w], v
				break
			}
			values[0] = r.value
		}
		q := r.q
		for j := range rows {
			row := &rows[j]
			if row.value.Type == device.Number && x.columns[row.metric].implausible(row.value.Float()) {
				q |= device.OutOfRange
			}
		}
		d.values = d.values[:len(d.values)+len(values)]
		addRow(batch, ref, r.dt, values, q)
		i += len(rows)
	}
}

// fill puts the values of the rows into the order of the set. It returns false if the rows are not those of the set,
// although their prints are, which does not happen by chance.
func fill(rows []jsonRow, set *setIndex, values []device.Value) bool {
	for i, m := range set.metrics {
		found := i
		if rows[i].metric != m { // not in the order of the set
			for found = 0; found < len(rows) && rows[found].metric != m; found++ {
			}
			if found == len(rows) {
				return false
			}
		}
		values[i] = rows[found].value
	}
	return true
}
