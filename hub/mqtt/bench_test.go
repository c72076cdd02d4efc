package mqtt_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// discard is a broker that does no more than acknowledge.
func discard(conn net.Conn) {
	defer conn.Close()
	r, w := bufio.NewReaderSize(conn, 64<<10), bufio.NewWriterSize(conn, 64<<10)
	for {
		head, err := r.ReadByte()
		if err != nil {
			return
		}
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return
		}
		switch head >> 4 {
		case 1:
			_, _ = w.Write([]byte{0x20, 2, 0, 0})
		case 3:
			var n [2]byte
			_, _ = io.ReadFull(r, n[:])
			topic := binary.BigEndian.Uint16(n[:])
			_, _ = r.Discard(int(topic))
			_, _ = io.ReadFull(r, n[:])
			_, _ = w.Write([]byte{0x40, 2, n[0], n[1]})
			size -= 4 + uint64(topic)
		}
		if _, err := r.Discard(int(size)); err != nil {
			return
		}
		if r.Buffered() == 0 && w.Flush() != nil {
			return
		}
	}
}

// BenchmarkPublish is what one reading costs from the log to the acknowledgement, in this process, with a broker that does
// nothing. The readings are in the log already.
func BenchmarkPublish(b *testing.B) {
	r := newRig(b)
	r.add("a")
	c, err := r.hub.OpenCursor(b.Context(), "mqtt") // from here on
	if err != nil {
		b.Fatal(err)
	}
	c.Close()
	const batch = 100
	for n := 0; n < b.N; n += batch {
		now := time.Now().UnixMilli()
		body := []byte("[")
		for i := range batch {
			body = fmt.Appendf(body, `{"n":"temperature","u":"Cel","v":%d.5,"t":%d.%03d},`, i, now/1000, now%1000)
		}
		body[len(body)-1] = ']'
		if _, err := r.hub.Ingest(b.Context(), device.ID("a"), wire.JSON, body); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	r.bridge(func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		go discard(far)
		return near, nil
	})
	for r.metrics.Published.Load() < uint64(b.N) {
		time.Sleep(time.Millisecond) // back-off
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "readings/s")
}
