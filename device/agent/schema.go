package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// declared is a schema in use.
type declared struct {
	index *wire.Index
	birth []byte // the frame, CBOR; it is the context of the spool's entries
}

// declare checks a copy of s, names it by its content if it has no name, and makes its birth.
func declare(s *device.Schema) (*declared, error) {
	c := *s
	c.Metrics, c.Commands = slices.Clone(s.Metrics), slices.Clone(s.Commands)
	c.Sets = slices.Clone(s.Sets)
	for i := range c.Sets {
		c.Sets[i].Metrics = slices.Clone(c.Sets[i].Metrics)
	}
	if c.ID == "" {
		c.ID = "x"
		if err := wire.CheckSchema(&c); err != nil {
			return nil, fmt.Errorf("declare: %w", err)
		}
		sum := sha256.Sum256(wire.AppendBirth(nil, wire.CBOR, &c))
		c.ID = hex.EncodeToString(sum[:12])
	}
	index, err := wire.NewIndex(&c)
	if err != nil {
		return nil, fmt.Errorf("declare: %w", err)
	}
	d := &declared{index: index, birth: wire.AppendBirth(nil, wire.CBOR, &c)}
	if len(d.birth) > wire.MaxFrame {
		return nil, fmt.Errorf("declare: a birth of %d bytes: %w", len(d.birth), wire.ErrTooBig)
	}
	return d, nil
}

// measure returns how many readings the row has and the most bytes that it takes in a frame, or why it cannot be sent.
func (d *declared) measure(r *device.Row) (readings, bytes int, err error) {
	schema := d.index.Schema()
	width := schema.Width(r.Ref)
	if width == 0 || width != len(r.Values) {
		return 0, 0, fmt.Errorf("%w: %d values where the schema has %d", ErrRow, len(r.Values), width)
	}
	if r.TimeMS < 1 || r.TimeMS > wire.MaxTimeMS {
		return 0, 0, fmt.Errorf("%w: time %d is not in Unix milliseconds", ErrRow, r.TimeMS)
	}
	bytes = 16 // array, set or alias, time, quality
	for i, v := range r.Values {
		if v.Type != device.Absent {
			readings++
		}
		if bytes += 9; v.Type == device.String {
			bytes += len(v.Text())
		}
		if why := unfit(schema.Column(r.Ref, i), v); why != "" {
			return 0, 0, fmt.Errorf("%w: %s: %s", ErrRow, schema.Column(r.Ref, i).Name, why)
		}
	}
	return readings, bytes, nil
}

// unfit says why v cannot be a value of m (PROTOCOL.md section 5.4), or nothing if it can.
func unfit(m *device.Metric, v device.Value) string {
	switch v.Type {
	case device.Absent:
		return ""
	case device.Number:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return "not a finite number"
		}
		if m.Kind == device.Text {
			return "a number where the schema declares text"
		}
		return ""
	case device.String:
		if t := v.Text(); len(t) > device.MaxTextLen || !utf8.ValidString(t) {
			return fmt.Sprintf("a text of %d bytes, or not UTF-8", len(t))
		}
	}
	if m.Kind == device.Gauge || m.Kind == device.Counter || (m.Kind == device.Text && v.Type != device.String) {
		return "the type of the value does not fit " + m.Kind.String()
	}
	return ""
}
