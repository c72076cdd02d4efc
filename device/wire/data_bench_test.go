package wire_test

import (
	"testing"

	"telemetryhub/device"
	"telemetryhub/device/wire"

	"github.com/fxamacker/cbor/v2"
)

const readingsPerBatch = 10

func perReading(b *testing.B) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/readingsPerBatch, "ns/reading")
}

// BenchmarkData decodes batches of ten readings. The floor is what the general decoder needs to turn the same frame into
// values of any type.
func BenchmarkData(b *testing.B) {
	x := index(b, station())
	for _, sets := range []bool{false, true} {
		name := map[bool]string{false: "singles", true: "sets"}[sets]
		for _, f := range []wire.Format{wire.CBOR, wire.JSON} {
			frame, err := wire.AppendData(nil, f, x, stationBatch(sets), 0)
			if err != nil {
				b.Fatal(err)
			}
			b.Run(f.String()+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				var d wire.Decoder
				var batch device.Batch
				for b.Loop() {
					if _, bad, err := d.Data(f, frame, x, &batch); err != nil || len(bad) > 0 {
						b.Fatal(err, bad)
					}
				}
				perReading(b)
			})
			if f == wire.CBOR {
				b.Run("floor/"+name, func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						var v []any
						if err := cbor.Unmarshal(frame, &v); err != nil {
							b.Fatal(err)
						}
					}
					perReading(b)
				})
			}
		}
	}
}

func BenchmarkAppendData(b *testing.B) {
	x := index(b, station())
	for _, sets := range []bool{false, true} {
		name := map[bool]string{false: "singles", true: "sets"}[sets]
		batch := stationBatch(sets)
		for _, f := range []wire.Format{wire.CBOR, wire.JSON} {
			b.Run(f.String()+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				var dst []byte
				var err error
				for b.Loop() {
					if dst, err = wire.AppendData(dst[:0], f, x, batch, 0); err != nil {
						b.Fatal(err)
					}
				}
				perReading(b)
			})
		}
	}
}

func BenchmarkAppendAck(b *testing.B) {
	a := &wire.Ack{Seq: 4213, Win: 32, Bad: []wire.Bad{{Seq: 4210, Row: 3, Count: 1, Code: wire.BadType}}}
	for _, f := range []wire.Format{wire.CBOR, wire.JSON} {
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			var dst []byte
			for b.Loop() {
				dst = wire.AppendAck(dst[:0], f, a)
			}
		})
	}
}
