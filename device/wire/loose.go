package wire

import (
	"unicode/utf8"

	"telemetryhub/device"
)

// Reading is one reading of a frame by hand.
type Reading struct {
	Name string
	// Unit is the unit of a SenML record, empty if it has none and in the other forms.
	Unit string
	// TimeMS is in Unix milliseconds. Zero means: when the frame arrived.
	TimeMS int64
	Value  device.Value
	// Bad is why the reading is refused; Value is then absent, and Name is cut to device.MaxNameLen. Zero means that the
	// reading stands.
	Bad BadCode
}

// Loose decodes the forms that people send by hand: a plain object, an envelope, a SenML pack (see [Peek]). nowMS is the
// arrival of the frame in Unix milliseconds; times relative to it are resolved.
//
// Faults of single readings are marked in them. An error means that nothing of the frame can be taken; it wraps
// [ErrProtocol] or [ErrTooBig]. The slice is valid until the next call of a method of the decoder; its texts are copies.
func (d *Decoder) Loose(f Format, frame []byte, nowMS int64) ([]Reading, error) {
	t, err := Peek(f, frame)
	if err != nil {
		return nil, err
	}
	if !t.Loose() {
		return nil, protocolError("a message (%s) where readings by hand are expected", t)
	}
	doc := frame
	if f == JSON {
		if !utf8.Valid(frame) {
			return nil, malformed(JSON)
		}
		var p int
		if doc, p = transcode(d.scratch[:0], frame, jsonSpace(frame, 0), MaxNesting); p < 0 || !jsonEnd(frame, p) {
			return nil, malformed(JSON)
		}
		d.scratch = doc
	}
	d.readings = d.readings[:0]
	switch t {
	case SenML:
		err = d.senml(doc, nowMS)
	case Envelope:
		err = d.envelope(doc, nowMS)
	default:
		var p int
		if p, err = d.byHand(doc, 0, 0); err == nil && p != len(doc) {
			err = protocolError("something follows the map")
		}
	}
	if err != nil {
		return nil, err
	}
	return d.readings, nil
}

// envelope reads {"t":…,"v":{…}}. Other keys are ignored.
func (d *Decoder) envelope(b []byte, nowMS int64) error {
	_, n, p := cborHead(b, 0) // Peek saw a map
	var at int64
	values := -1
	seen, timed := false, false
	for range n {
		key, next := cborText(b, p)
		if next < 0 {
			return malformed(CBOR)
		}
		end := cborSkip(b, next, MaxNesting-1)
		if end < 0 {
			return malformed(CBOR)
		}
		switch string(key) {
		case "t":
			if seen {
				return protocolError("t stands twice")
			}
			seen = true
			if timed = b[next] != cborNull; !timed {
				break
			}
			if at, p = cborInt(b, next, MaxTimeMS); p < 0 {
				return protocolError("t is not a whole number of milliseconds")
			}
		case "v":
			if values >= 0 {
				return protocolError("v stands twice")
			}
			values = next
		}
		p = end
	}
	if p != len(b) || values < 0 {
		return protocolError("something follows the map")
	}
	if timed && Relative(at) {
		at += nowMS
	}
	_, err := d.byHand(b, values, at)
	return err
}

// byHand reads a map from names to values at p. A value of null is no reading.
func (d *Decoder) byHand(b []byte, p int, at int64) (next int, err error) {
	ib, n, p := cborHead(b, p)
	if p < 0 || ib>>5 != majorMap || n > uint64(len(b)) {
		return -1, malformed(CBOR)
	}
	if n > device.MaxMetrics {
		return -1, protocolError("%d metrics, the limit is %d", n, device.MaxMetrics)
	}
	seen := make(map[string]bool, n)
	for range n {
		key, next := cborText(b, p)
		if next < 0 || !utf8.Valid(key) {
			return -1, protocolError("the keys of a map are metric names")
		}
		r := Reading{TimeMS: at}
		if r.Value, p, r.Bad = cborScalar(b, next); p < 0 {
			return -1, malformed(CBOR)
		}
		if seen[string(key)] {
			return -1, protocolError("a metric stands twice")
		}
		r.name(string(key))
		seen[string(key)] = true
		if r.Value.Type != device.Absent || r.Bad != 0 {
			d.readings = append(d.readings, r)
		}
	}
	return p, nil
}

// name sets the name of the reading, or refuses the reading because of it.
func (r *Reading) name(name string) {
	r.Name = name
	if device.CheckName(name) == nil {
		return
	}
	if r.Bad == 0 {
		r.Bad = BadName
	}
	r.Value = device.Value{}
	if len(name) > device.MaxNameLen {
		n := device.MaxNameLen
		for !utf8.RuneStart(name[n]) {
			n--
		}
		r.Name = name[:n]
	}
}
