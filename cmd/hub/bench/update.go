package bench

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"sync"

	"telemetryhub/device"
)

// updateMark stands in each update before the time and the number of the update, which begins at firstUpdate.
const (
	updateMark  = `"tick_count",`
	firstUpdate = 1_000_000
)

// climate is the schema of a device that measures the air of a room, and counts.
func climate() *device.Schema {
	s := &device.Schema{ID: "climate-1", Sets: []device.Set{{Index: 1, Metrics: []int{0, 1, 2, 3}}}}
	for i, name := range []string{"temperature", "humidity", "pressure", "tick_count"} {
		m := device.NewMetric(name)
		m.Alias, m.Exp = uint16(i+1), -2
		s.Metrics = append(s.Metrics, m)
	}
	return s
}

// appendUpdate appends the WebSocket frame of update n, which is sent now: four readings, whose values vary at random. As the hub writes
// them they are 180 bytes long, or a little less where a value has fewer digits:
// ["bench-0","temperature",1766000000123,21.37],["bench-0","humidity",…,48.92],["bench-0","pressure",…,1013.25],["bench-0","tick_count",…,1000001]
func (p *publisher) appendUpdate(dst []byte, n uint64) ([]byte, error) {
	now := p.sent(n)
	values := make([]device.Value, 4)
	for i, around := range []int64{2200, 5000, 101325} {
		v, ok := device.Unscale(around+rand.Int64N(1000)-500, -2)
		if !ok {
			return dst, fmt.Errorf("a value around %d has no decimals", around)
		}
		values[i] = device.NumberValue(v)
	}
	values[3] = device.NumberValue(float64(firstUpdate + n))
	if !p.floor {
		return p.appendRow(dst, n, device.Row{Ref: device.SetRef(0), TimeMS: now, Values: values})
	}
	p.frame = p.frame[:0]
	for i, m := range climate().Metrics {
		number := strconv.AppendFloat(nil, values[i].Float(), 'f', -1, 64)
		p.frame = fmt.Appendf(p.frame, `["%s","%s",%d,%s],`, p.device, m.Name, now, number)
	}
	return appendMasked(dst, 0x81, p.frame[:len(p.frame)-1]), nil
}

// nextUpdate returns the number of the first update in a text, and what comes after it; nil if there is none.
func nextUpdate(text []byte) (n uint64, rest []byte, err error) {
	_, after, found := bytes.Cut(text, []byte(updateMark))
	_, after, timed := bytes.Cut(after, []byte(","))
	digits, rest, ended := bytes.Cut(after, []byte("]"))
	if !found || !timed || !ended {
		return 0, nil, nil
	}
	n, err = strconv.ParseUint(string(digits), 10, 64)
	return n - firstUpdate, rest, err
}

// inflaters are few, as each takes 40 KB.
var inflaters = sync.Pool{New: func() any { return new(inflater) }}

type inflater struct {
	in  bytes.Reader
	out io.ReadCloser
	buf bytes.Buffer
}

// inflate gives the text of a message with permessage-deflate (RFC 7692) to take.
func inflate(payload []byte, take func([]byte) error) error {
	f := inflaters.Get().(*inflater)
	defer inflaters.Put(f)
	f.in.Reset(append(payload[:len(payload):len(payload)], "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...))
	if f.out == nil {
		f.out = flate.NewReader(&f.in)
	} else if err := f.out.(flate.Resetter).Reset(&f.in, nil); err != nil {
		return err
	}
	f.buf.Reset()
	if _, err := f.buf.ReadFrom(f.out); err != nil {
		return fmt.Errorf("a compressed message: %w", err)
	}
	return take(f.buf.Bytes())
}
