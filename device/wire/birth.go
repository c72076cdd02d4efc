package wire

import (
	"math"

	"telemetryhub/device"
)

// birthBody is a birth as it goes over the wire. Sets name metrics by alias.
type birthBody struct {
	ID      string         `json:"id"`
	Metrics []birthMetric  `json:"metrics,omitempty"`
	Sets    []birthSet     `json:"sets,omitempty"`
	Cmds    []birthCommand `json:"cmds,omitempty"`
}

type birthMetric struct {
	Alias    uint16   `json:"a"`
	Name     string   `json:"n"`
	Unit     string   `json:"u,omitempty"`
	Exp      int8     `json:"x,omitempty"`
	Kind     string   `json:"k,omitempty"`
	Lo       *float64 `json:"lo,omitempty"`
	Hi       *float64 `json:"hi,omitempty"`
	Interval int64    `json:"iv,omitempty"`
	Class    string   `json:"cls,omitempty"`
	Source   string   `json:"src,omitempty"`
}

type birthSet struct {
	Index   uint16   `json:"i"`
	Aliases []uint16 `json:"a"`
}

type birthCommand struct {
	Name string `json:"n"`
}

// AppendBirth appends a birth that declares the schema, which must be one that [CheckSchema] accepts.
func AppendBirth(dst []byte, f Format, s *device.Schema) []byte {
	body := birthBody{ID: s.ID}
	for i := range s.Metrics {
		m := &s.Metrics[i]
		bm := birthMetric{
			Alias: m.Alias, Name: m.Name, Unit: m.Unit, Exp: m.Exp, Interval: m.IntervalMS, Class: m.Class,
			Source: m.Source, Lo: limit(m.Lo), Hi: limit(m.Hi),
		}
		if m.Kind != device.Gauge {
			bm.Kind = m.Kind.String()
		}
		body.Metrics = append(body.Metrics, bm)
	}
	for i := range s.Sets {
		bs := birthSet{Index: s.Sets[i].Index}
		for _, m := range s.Sets[i].Metrics {
			bs.Aliases = append(bs.Aliases, s.Metrics[m].Alias)
		}
		body.Sets = append(body.Sets, bs)
	}
	for _, c := range s.Commands {
		body.Cmds = append(body.Cmds, birthCommand{Name: c})
	}
	return appendControl(dst, f, TypeBirth, &body)
}

// limit returns nil for NaN, which means that there is no limit.
func limit(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}

func fromLimit(v *float64) float64 {
	if v == nil {
		return math.NaN()
	}
	return *v
}

// DecodeBirth decodes a birth and checks its schema with [CheckSchema]. The numbers that the hub gives (Num) are zero.
func DecodeBirth(f Format, frame []byte) (*device.Schema, error) {
	var body birthBody
	if err := decodeControl(f, frame, TypeBirth, &body); err != nil {
		return nil, err
	}
	if len(body.Metrics) > device.MaxMetrics || len(body.Sets) > device.MaxSets {
		return nil, protocolError("birth: more than %d metrics or %d sets", device.MaxMetrics, device.MaxSets)
	}
	s := &device.Schema{ID: body.ID}
	position := make(map[uint16]int, len(body.Metrics))
	for i := range body.Metrics {
		bm := &body.Metrics[i]
		kind := device.Gauge
		if bm.Kind != "" {
			var err error
			if kind, err = device.ParseKind(bm.Kind); err != nil {
				return nil, protocolError("birth: metric %d: %v", i, err)
			}
		}
		s.Metrics = append(s.Metrics, device.Metric{
			Alias: bm.Alias, Name: bm.Name, Unit: bm.Unit, Kind: kind, Exp: bm.Exp, Lo: fromLimit(bm.Lo),
			Hi: fromLimit(bm.Hi), IntervalMS: bm.Interval, Class: bm.Class, Source: bm.Source,
		})
		position[bm.Alias] = i
	}
	for i, bs := range body.Sets {
		set := device.Set{Index: bs.Index}
		if len(bs.Aliases) > len(s.Metrics) {
			return nil, protocolError("birth: set %d: more aliases than there are metrics", i)
		}
		for _, a := range bs.Aliases {
			m, ok := position[a]
			if !ok {
				return nil, protocolError("birth: set %d: no metric has the alias %d", i, a)
			}
			set.Metrics = append(set.Metrics, m)
		}
		s.Sets = append(s.Sets, set)
	}
	for _, c := range body.Cmds {
		s.Commands = append(s.Commands, c.Name)
	}
	if err := CheckSchema(s); err != nil {
		return nil, err
	}
	return s, nil
}
