package hub_test

import (
	"context"
	"fmt"
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/storage/mem"
)

// BenchmarkIngest is what one batch of ten readings costs the hub itself: decode, check, group, live state and history,
// without a network and without a disk.
func BenchmarkIngest(b *testing.B) {
	h, err := hub.Open(context.Background(), hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}, hub.Options{Window: 1 << 20, WindowBytes: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()

	schema := &device.Schema{ID: "s"}
	for i := range 5 {
		m := device.NewMetric(fmt.Sprint("m", i))
		m.Alias, m.Exp = uint16(i+1), -2
		schema.Metrics = append(schema.Metrics, m)
	}
	schema.Sets = []device.Set{{Index: 1, Metrics: []int{0, 1, 2, 3, 4}}}
	index, err := wire.NewIndex(schema)
	if err != nil {
		b.Fatal(err)
	}
	const devices = 100
	var sessions [devices]*hub.Session
	for i := range sessions {
		id := device.ID(fmt.Sprint("d", i))
		if _, err := h.AddDevice(ctx, id, hub.DeviceAttrs{}); err != nil {
			b.Fatal(err)
		}
		if sessions[i], err = h.Connect(ctx, id, newPeer(), hub.ConnectOptions{Format: wire.CBOR}); err != nil {
			b.Fatal(err)
		}
		for _, f := range [][]byte{
			wire.AppendHello(nil, wire.CBOR, &wire.Hello{Stream: "x", Next: 1, Have: 1, Schema: "s", Clock: device.ClockNTP}),
			wire.AppendBirth(nil, wire.CBOR, schema),
		} {
			if err := sessions[i].Receive(ctx, wire.CBOR, f); err != nil {
				b.Fatal(err)
			}
		}
	}
	batch := device.Batch{Rows: make([]device.Row, 2)}
	for i := range batch.Rows {
		batch.Rows[i] = device.Row{Ref: device.SetRef(0), Values: make([]device.Value, 5)}
	}
	var frame, ack []byte
	seq := uint64(0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s := sessions[i%devices]
		if i%devices == 0 {
			seq++
		}
		batch.Seq, batch.BaseMS = seq, t0+int64(i)
		for r := range batch.Rows {
			batch.Rows[r].TimeMS = batch.BaseMS + int64(r)
			for v := range batch.Rows[r].Values {
				batch.Rows[r].Values[v] = device.NumberValue(float64(2000+(i+v)%50) / 100)
			}
		}
		if frame, err = wire.AppendData(frame[:0], wire.CBOR, index, &batch, 0); err != nil {
			b.Fatal(err)
		}
		if err := s.Receive(ctx, wire.CBOR, frame); err != nil {
			cancel()
			b.Fatal(err, <-done)
		}
		ack, _, _ = s.Next(ack[:0])
	}
	b.StopTimer()
	for _, s := range sessions {
		s.End()
	}
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}
