package agent_test

import (
	"context"
	"errors"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/spool"
	"telemetryhub/device/wire"
)

// BenchmarkAppend is what a row costs until it is in the spool; BenchmarkEncodeOnly is the floor: encoding it and no more.
func BenchmarkAppend(b *testing.B) {
	sp, err := spool.NewMemory(spool.Options{})
	if err != nil {
		b.Fatal(err)
	}
	a, err := agent.New(sp, func(context.Context) (agent.Conn, error) { return nil, errors.New("none") }, agent.Options{})
	if err != nil {
		b.Fatal(err)
	}
	if err := a.Declare(room()); err != nil {
		b.Fatal(err)
	}
	r := row(1)
	b.ReportAllocs()
	for b.Loop() {
		r.TimeMS++
		if err := a.Append(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeOnly(b *testing.B) {
	s := room()
	s.ID = "x"
	x, err := wire.NewIndex(s)
	if err != nil {
		b.Fatal(err)
	}
	const rows = 512
	batch := device.Batch{BaseMS: startMS}
	for i := range rows {
		batch.Rows = append(batch.Rows, row(i))
	}
	var frame []byte
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if n%rows == 0 {
			if frame, err = wire.AppendData(frame[:0], wire.CBOR, x, &batch, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
}
