package agent

import (
	"bytes"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

func TestRenumberEqualsEncodingWithTheNumber(t *testing.T) {
	d, err := declare(&device.Schema{Metrics: []device.Metric{{Alias: 1, Name: "a", Kind: device.Gauge}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, flags := range []wire.Flags{0, wire.ClockFlag(device.ClockNTP)} {
		b := device.Batch{BaseMS: 1_700_000_000_000, Rows: []device.Row{
			{Ref: device.SingleRef(0), TimeMS: 1_700_000_000_000, Values: []device.Value{device.NumberValue(21.5)}},
		}}
		body, err := wire.AppendData(nil, wire.CBOR, d.index, &b, flags)
		if err != nil {
			t.Fatal(err)
		}
		for _, seq := range []uint64{1, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, wire.MaxSeq} {
			b.Seq = seq
			want, err := wire.AppendData(nil, wire.CBOR, d.index, &b, flags)
			if err != nil {
				t.Fatal(err)
			}
			got, err := renumber([]byte{}, body, seq)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("number %d: %x, %v, want %x", seq, got, err, want)
			}
			if len(got)-len(body) > frameRoom {
				t.Errorf("number %d adds %d bytes", seq, len(got)-len(body))
			}
		}
		b.Seq = 0
	}
}

func FuzzRenumber(f *testing.F) {
	f.Add([]byte{0x85, 4, 0, 1, 0x80, 0x80}, uint64(7))
	f.Add([]byte{}, uint64(1<<53))
	f.Fuzz(func(t *testing.T, body []byte, seq uint64) {
		got, err := renumber([]byte("x"), body, seq)
		if err != nil && string(got) != "x" {
			t.Errorf("an error, and dst is %q", got)
		}
		if err == nil && !bytes.HasSuffix(got, body[3:]) {
			t.Errorf("%x does not end like %x", got, body)
		}
	})
}

// TestRestateLeavesTheSpooledBatchAlone: a batch that is held in memory is sent again from the same bytes.
func TestRestateLeavesTheSpooledBatchAlone(t *testing.T) {
	d, err := declare(&device.Schema{Metrics: []device.Metric{{Alias: 1, Name: "a", Kind: device.Gauge}}})
	if err != nil {
		t.Fatal(err)
	}
	up := time.Hour
	c := NewClock(ClockOptions{Boot: 7, Uptime: func() time.Duration { return up }})
	for _, base := range []int64{1, 23, 24, 1_700_000_000_000} {
		b := device.Batch{BaseMS: base, Rows: []device.Row{
			{Ref: device.SingleRef(0), TimeMS: base, Values: []device.Value{device.NumberValue(21.5)}},
		}}
		plain, err := wire.AppendData(nil, wire.CBOR, d.index, &b, wire.ClockFlag(device.ClockNone))
		if err != nil {
			t.Fatal(err)
		}
		body := appendMark(bytes.Clone(plain), 7<<48|uint64((30*time.Minute).Milliseconds()))
		before := bytes.Clone(body)
		got := restate(body, c, time.Now())
		if !bytes.Equal(body, before) {
			t.Fatal("the spooled batch was changed")
		}
		var dec wire.Decoder
		var back device.Batch
		if _, _, err := dec.Data(wire.CBOR, got, d.index, &back); err != nil || back.BaseMS != -(30*time.Minute).Milliseconds() {
			t.Errorf("base %d was restated as %d, %v", base, back.BaseMS, err)
		}
		other := appendMark(bytes.Clone(plain), 8<<48)
		if got := restate(other, c, time.Now()); !bytes.Equal(got, plain) {
			t.Errorf("a batch of another boot became % x, want % x", got, plain)
		}
		if got := restate(plain, c, time.Now()); !bytes.Equal(got, plain) {
			t.Errorf("a batch without a mark became % x", got)
		}
	}
}
