package wire_test

import (
	"encoding/json"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// recoders decode a message and encode it again, in another format if need be.
var recoders = map[wire.Type]func(in wire.Format, frame []byte, out wire.Format) ([]byte, error){
	wire.TypeHello:   recode(wire.DecodeHello, wire.AppendHello),
	wire.TypeWelcome: recode(wire.DecodeWelcome, wire.AppendWelcome),
	wire.TypeBirth: func(in wire.Format, frame []byte, out wire.Format) ([]byte, error) {
		s, err := wire.DecodeBirth(in, frame)
		if err != nil {
			return nil, err
		}
		return wire.AppendBirth(nil, out, s), nil
	},
	wire.TypeGap:    recode(wire.DecodeGap, wire.AppendGap),
	wire.TypeAck:    recode(wire.DecodeAck, wire.AppendAck),
	wire.TypeSlow:   recode(wire.DecodeSlow, wire.AppendSlow),
	wire.TypeCmd:    recode(wire.DecodeCmd, wire.AppendCmd),
	wire.TypeResult: recode(wire.DecodeResult, wire.AppendResult),
	wire.TypeCfg:    recode(wire.DecodeCfg, wire.AppendCfg),
	wire.TypeCfgr:   recode(wire.DecodeCfgResult, wire.AppendCfgResult),
	wire.TypeOTA:    recode(wire.DecodeOTA, wire.AppendOTA),
	wire.TypeTime:   recode(wire.DecodeTime, wire.AppendTime),
	wire.TypeEvent:  recode(wire.DecodeEvent, wire.AppendEvent),
	wire.TypeErr:    recode(wire.DecodeErr, wire.AppendErr),
	wire.TypeBye:    recode(wire.DecodeBye, wire.AppendBye),
}

func recode[T any](
	decode func(wire.Format, []byte) (T, error), encode func([]byte, wire.Format, *T) []byte,
) func(in wire.Format, frame []byte, out wire.Format) ([]byte, error) {
	return func(in wire.Format, frame []byte, out wire.Format) ([]byte, error) {
		v, err := decode(in, frame)
		if err != nil {
			return nil, err
		}
		return encode(nil, out, &v), nil
	}
}

func recodeRows(t *testing.T, all map[string]*vector, v *vector, typ wire.Type) ([]byte, error) {
	t.Helper()
	var d wire.Decoder
	var b device.Batch
	x := vectorIndex(t, all, v.Schema)
	decode, encode := d.Data, wire.AppendData
	if typ == wire.TypeState {
		decode, encode = d.State, wire.AppendState
	}
	flags, _, err := decode(v.format(), v.frame(t), x, &b)
	if err != nil {
		return nil, err
	}
	return encode(nil, v.format(), x, &b, flags)
}

func vectorIndex(t testing.TB, all map[string]*vector, birth string) *wire.Index {
	t.Helper()
	if all[birth] == nil {
		t.Fatalf("no birth %q", birth)
	}
	s, err := wire.DecodeBirth(all[birth].format(), all[birth].frame(t))
	if err != nil {
		t.Fatal(err)
	}
	return index(t, s)
}

// The neutral form of decoded rows and readings in the vectors.
type (
	neutralBatch struct {
		Seq   uint64       `json:"s"`
		T     int64        `json:"t"`
		Clock *uint8       `json:"tq,omitempty"` // absent: as the hello said
		Rows  []neutralRow `json:"rows"`
		Bad   []neutralBad `json:"bad,omitempty"`
	}
	neutralRow struct {
		Set     uint16 `json:"set,omitempty"`
		Alias   uint16 `json:"alias,omitempty"`
		T       int64  `json:"t"`
		Quality uint8  `json:"q,omitempty"`
		Values  []any  `json:"values"`
	}
	neutralBad struct {
		Row   int    `json:"i"`
		Value int    `json:"v,omitempty"`
		Count int    `json:"n"`
		Code  string `json:"code"`
	}
	neutralReading struct {
		Name  string `json:"n"`
		Unit  string `json:"u,omitempty"`
		T     int64  `json:"t"` // 0: arrival
		Value any    `json:"v"`
		Bad   string `json:"bad,omitempty"`
	}
)

func neutralValue(v device.Value) any {
	switch v.Type {
	case device.Number:
		return v.Float()
	case device.Bool:
		return v.Float() != 0
	case device.String:
		return v.Text()
	}
	return nil
}

func neutralRows(t testing.TB, x *wire.Index, b *device.Batch, flags wire.Flags, bad []wire.Bad) json.RawMessage {
	t.Helper()
	n := neutralBatch{Seq: b.Seq, T: b.BaseMS, Rows: []neutralRow{}}
	const asHello = 99
	if q := uint8(flags.Clock(asHello)); q != asHello {
		n.Clock = &q
	}
	for _, r := range b.Rows {
		row := neutralRow{T: r.TimeMS, Quality: uint8(r.Quality)}
		if m, ok := r.Ref.Single(); ok {
			row.Alias = x.Schema().Metrics[m].Alias
		} else {
			row.Set = x.Schema().Sets[r.Ref.Set()].Index
		}
		for _, v := range r.Values {
			row.Values = append(row.Values, neutralValue(v))
		}
		n.Rows = append(n.Rows, row)
	}
	for _, e := range bad {
		n.Bad = append(n.Bad, neutralBad{e.Row, e.Value, e.Count, e.Code.String()})
	}
	return marshal(t, n)
}

func neutralReadings(t testing.TB, readings []wire.Reading) json.RawMessage {
	t.Helper()
	list := []neutralReading{}
	for _, r := range readings {
		n := neutralReading{Name: r.Name, Unit: r.Unit, T: r.TimeMS, Value: neutralValue(r.Value)}
		if r.Bad != 0 {
			n.Bad = r.Bad.String()
		}
		list = append(list, n)
	}
	return marshal(t, list)
}

func marshal(t testing.TB, v any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
