package wire

import (
	"telemetryhub/device"
)

// gapBody is a gap as it goes over the wire.
type gapBody struct {
	Seq   uint64 `json:"s"`
	From  uint64 `json:"from,omitempty"`
	To    uint64 `json:"to,omitempty"`
	Count uint64 `json:"n,omitempty"`
	T0    int64  `json:"t0,omitempty"`
	T1    int64  `json:"t1,omitempty"`
	Why   string `json:"why"`
}

// AppendGap appends a gap. Its Seq must be at least 1.
func AppendGap(dst []byte, f Format, g *device.Gap) []byte {
	return appendControl(dst, f, TypeGap, &gapBody{
		Seq: g.Seq, From: g.FromSeq, To: g.ToSeq, Count: g.Count, T0: g.FromMS, T1: g.ToMS, Why: string(g.Cause),
	})
}

// DecodeGap decodes and checks a gap. A cause that this version does not know becomes device.CauseOther.
func DecodeGap(f Format, frame []byte) (device.Gap, error) {
	var b gapBody
	if err := decodeControl(f, frame, TypeGap, &b); err != nil {
		return device.Gap{}, err
	}
	switch {
	case b.Seq < 1 || b.Seq > MaxSeq:
		return device.Gap{}, protocolError("gap: s is not a sequence number")
	case b.From > b.To || b.To >= b.Seq || (b.From == 0) != (b.To == 0):
		return device.Gap{}, protocolError("gap: 1 ≤ from ≤ to < s is not true of %d, %d and %d", b.From, b.To, b.Seq)
	case b.Count > MaxSeq:
		return device.Gap{}, protocolError("gap: n is over 2^53-1")
	case b.T0 > b.T1 && b.T1 != 0:
		return device.Gap{}, protocolError("gap: t0 is after t1")
	}
	if err := firstError(checkTime("t0", b.T0), checkTime("t1", b.T1)); err != nil {
		return device.Gap{}, err
	}
	return device.Gap{
		Seq: b.Seq, FromSeq: b.From, ToSeq: b.To, Count: b.Count, FromMS: b.T0, ToMS: b.T1, Cause: cause(b.Why),
	}, nil
}

func cause(why string) device.Cause {
	switch c := device.Cause(why); c {
	case device.CauseSpoolFull, device.CauseDamaged, device.CauseJump, device.CauseRefused, device.CauseSensor,
		device.CauseSkipped:
		return c
	}
	return device.CauseOther
}
