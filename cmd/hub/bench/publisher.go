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

// publisher is the one device whose readings others follow.
type publisher struct {
	conn   net.Conn
	device device.ID
	floor  bool
	index  *wire.Index
	fill   string // of appendReading
	frame  []byte

	start  time.Time
	sentAt [1024]atomic.Int64 // by number, in nanoseconds since start
}

// newPublisher connects the device, or at a floor somebody who sends what viewers are to get.
func newPublisher(addr, token string, id device.ID, floor bool, schema *device.Schema) (*publisher, error) {
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
	if p.index, err = wire.NewIndex(schema); err != nil {
		return nil, err
	}
	hello := wire.AppendHello(nil, wire.CBOR, &wire.Hello{Stream: "feed", Next: 1, Have: 1, Clock: device.ClockNTP})
	buf := appendMasked(nil, 0x82, hello)
	buf = appendMasked(buf, 0x82, wire.AppendBirth(nil, wire.CBOR, schema))
	_, err = conn.Write(buf)
	return p, err
}

// notes is the schema of a device whose readings are texts that hold their number.
func notes() *device.Schema {
	note := device.NewMetric("note")
	note.Alias, note.Kind = 1, device.Text
	return &device.Schema{ID: "feed-1", Metrics: []device.Metric{note}}
}

// appendReading appends the WebSocket frame of reading n, which is sent now. As the hub writes it it is 180 bytes long:
// ["bench-feed","note",1766000000123,"#…"],
func (p *publisher) appendReading(dst []byte, n uint64) ([]byte, error) {
	now := p.sent(n)
	text := fmt.Sprintf("#%0*d%s", feedDigits, n, p.fill)
	if p.floor {
		p.frame = fmt.Appendf(p.frame[:0], `["%s","note",%d,"%s"]`, p.device, now, text)
		return appendMasked(dst, 0x81, p.frame), nil
	}
	return p.appendRow(dst, n, device.Row{Ref: device.SingleRef(0), TimeMS: now, Values: []device.Value{device.TextValue(text)}})
}

// sent notes that number n is sent now, and returns the time of day.
func (p *publisher) sent(n uint64) (ms int64) {
	p.sentAt[n%uint64(len(p.sentAt))].Store(int64(time.Since(p.start)))
	return time.Now().UnixMilli()
}

// appendRow appends the WebSocket frame of the batch n of one row.
func (p *publisher) appendRow(dst []byte, n uint64, row device.Row) ([]byte, error) {
	b := device.Batch{Seq: n, BaseMS: row.TimeMS, Rows: []device.Row{row}}
	var err error
	if p.frame, err = wire.AppendData(p.frame[:0], wire.CBOR, p.index, &b, 0); err != nil {
		return dst, err
	}
	return appendMasked(dst, 0x82, p.frame), nil
}
