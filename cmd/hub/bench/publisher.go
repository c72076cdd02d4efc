package bench

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// readingMark begins each reading in a frame, and after it stands its number in feedDigits digits.
const (
	readingMark = `"#`
	feedDigits  = 10
)

// publisher is the one device whose readings others follow: texts that hold their number.
type publisher struct {
	conn   net.Conn
	device device.ID
	floor  bool
	index  *wire.Index
	fill   string // makes a reading 180 bytes long as the hub writes it: ["bench-feed","note",1766000000123,"#…"],
	frame  []byte

	start  time.Time
	sentAt [1024]atomic.Int64 // by number, in nanoseconds since start
}

// newPublisher connects the device, or at a floor somebody who sends what viewers are to get.
func newPublisher(addr, token string, id device.ID, floor bool) (*publisher, error) {
	p := &publisher{device: id, floor: floor, start: time.Now()}
	p.fill = strings.Repeat("x", 180-len(`["","note",1766000000123,"#"],`)-len(id)-feedDigits)
	protocol := wire.SubprotocolCBOR
	if floor {
		protocol = ""
	}
	conn, in, err := upgrade(addr, "/device/v1", protocol, token, 4096)
	if err != nil {
		return nil, err
	}
	p.conn = conn
	go func() { _, _ = io.Copy(io.Discard, in) }() // acks; it ends with the connection
	if floor {
		return p, nil
	}
	note := device.NewMetric("note")
	note.Alias, note.Kind = 1, device.Text
	schema := &device.Schema{ID: "feed-1", Metrics: []device.Metric{note}}
	if p.index, err = wire.NewIndex(schema); err != nil {
		return nil, err
	}
	hello := wire.AppendHello(nil, wire.CBOR, &wire.Hello{Stream: "feed", Next: 1, Have: 1, Clock: device.ClockNTP})
	buf := appendMasked(nil, 0x82, hello)
	buf = appendMasked(buf, 0x82, wire.AppendBirth(nil, wire.CBOR, schema))
	_, err = conn.Write(buf)
	return p, err
}

// appendReading appends the WebSocket frame of reading n, which is sent now.
func (p *publisher) appendReading(dst []byte, n uint64) ([]byte, error) {
	p.sentAt[n%uint64(len(p.sentAt))].Store(int64(time.Since(p.start)))
	text := fmt.Sprintf("#%0*d%s", feedDigits, n, p.fill)
	now := time.Now().UnixMilli()
	if p.floor {
		p.frame = fmt.Appendf(p.frame[:0], `["%s","note",%d,"%s"]`, p.device, now, text)
		return appendMasked(dst, 0x81, p.frame), nil
	}
	b := device.Batch{Seq: n, BaseMS: now, Rows: []device.Row{{Ref: device.SingleRef(0), TimeMS: now, Values: []device.Value{device.TextValue(text)}}}}
	var err error
	if p.frame, err = wire.AppendData(p.frame[:0], wire.CBOR, p.index, &b, 0); err != nil {
		return dst, err
	}
	return appendMasked(dst, 0x82, p.frame), nil
}
