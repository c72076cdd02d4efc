package hub_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
)

func TestFloodOfNewMetricsIsRefusedAndHurtsNobodyElse(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("flood")
	r.add("other")
	refused := 0
	for i := range 1000 {
		_, err := r.hub.Ingest(t.Context(), "flood", wire.JSON, fmt.Appendf(nil, `{"m%d":1}`, i))
		var bad *hub.BadInput
		if errors.As(err, &bad) && bad.Code == "rate" {
			refused++
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := r.hub.Ingest(t.Context(), "other", wire.JSON, []byte(`{"temperature":1}`)); err != nil {
			t.Fatalf("another device: %v", err)
		}
	}
	info, err := r.hub.Device(t.Context(), "flood")
	if err != nil || refused < 900 || len(info.Metrics) > 100 {
		t.Fatalf("%d of 1000 refused, %d metrics kept, %v", refused, len(info.Metrics), err)
	}
}

func TestFloodOfStreamsEndsTheSession(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("flood")
	for i := range 1000 {
		c := r.connect("flood")
		err := c.try(`{"m":"hello","st":"s%d","next":1,"have":1}`, i)
		if err == nil {
			c.next()
			continue
		}
		if code, _ := hub.CloseCodeOf(err); code != wire.CloseTooFast || i < 32 {
			t.Fatalf("stream %d ends with %d (%v), want %d after some dozens", i, code, err, wire.CloseTooFast)
		}
		return
	}
	t.Fatal("1000 new streams were taken")
}

func TestMoreThanTheWindowEndsTheSession(t *testing.T) {
	r := newRig(t, hub.Options{CommitInterval: time.Hour, Window: 4})
	r.add("a")
	c := r.connect("a")
	c.hello("st", 1, 1)
	c.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,1]]}`, t0) // committed at once: the hub was idle
	c.ack(1)
	for seq := 2; ; seq++ {
		err := c.try(`{"m":"data","s":%d,"t":%d,"r":[[1,0,1]]}`, seq, t0)
		if err == nil && seq < 100 {
			continue
		}
		if code, _ := hub.CloseCodeOf(err); code != wire.CloseTooFast || seq != 6 {
			t.Fatalf("batch %d: %v closes with %d, want batch 6 and %d", seq, err, code, wire.CloseTooFast)
		}
		return
	}
}

func TestTimesThatCannotBeAreFiledUnderArrivalAndKept(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	before := time.Now().UnixMilli()
	times := []int64{1, 1000, 946_684_799_999, 1_766_000_000, before + 10*60*1000, 4_000_000_000_000, 1<<53 - 1}
	for i, at := range times {
		if _, err := r.hub.Ingest(t.Context(), "a", wire.JSON, fmt.Appendf(nil, `{"t":%d,"v":{"x":%d}}`, at, i)); err != nil {
			t.Fatalf("time %d: %v", at, err)
		}
	}
	r.restart()
	var info hub.HistoryInfo
	seen := map[int64]bool{}
	err := r.hub.Readings(t.Context(), hub.HistoryQuery{Device: "a", FromMS: math.MinInt64, ToMS: math.MaxInt64}, &info, func(x hub.Reading) bool {
		if x.TimeMS < before || x.TimeMS > time.Now().UnixMilli() {
			t.Errorf("filed under %d, want the arrival", x.TimeMS)
		}
		seen[x.OriginalMS] = true
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	if !seen[1<<53-1] { // several may have arrived in one millisecond: the last one wins
		t.Errorf("the original times kept are %v", seen)
	}
}

// TestLargeFramesByHandWaitForTheirTurn sends more bytes without a number than may be undecided, in few frames.
func TestLargeFramesByHandWaitForTheirTurn(t *testing.T) {
	r := newRig(t, hub.Options{CommitInterval: 200 * time.Millisecond})
	r.add("a")
	c := r.connect("a")
	text := strings.Repeat("x", 4000)
	var frame []byte
	for i := range 15 {
		frame = fmt.Appendf(append(frame, ','), `"m%d":%q`, i, text)
	}
	frame[0] = '{'
	frame = append(frame, '}')
	for range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if err := c.s.Receive(ctx, wire.JSON, frame); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
}

func TestHelloComesOnceAndFirst(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	for name, begin := range map[string]func(c *client){
		"second":     func(c *client) { c.hello("st", 1, 1) },
		"after data": func(c *client) { c.send(birth); c.send(`{"m":"data","t":%d,"r":[[1,0,1]]}`, t0) },
	} {
		c := r.connect("a")
		begin(c)
		err := c.try(`{"m":"hello","st":"st","next":1,"have":1}`)
		if code, _ := hub.CloseCodeOf(err); err == nil || code != wire.CloseProtocol {
			t.Errorf("%s: %v, want close code %d", name, err, wire.CloseProtocol)
		}
	}
}

func TestMoreBytesThanTheWindowEndTheSession(t *testing.T) {
	r := newRig(t, hub.Options{CommitInterval: time.Hour, WindowBytes: 100})
	r.add("a")
	c := r.connect("a")
	c.hello("st", 1, 1)
	c.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,1]]}`, t0) // committed at once: the hub was idle
	c.ack(1)
	c.send(`{"m":"data","s":2,"t":%d,"r":[[1,0,1],[1,1,1],[1,2,1],[1,3,1],[1,4,1],[1,5,1],[1,6,1],[1,7,1]]}`, t0) // one may always be in flight
	err := c.try(`{"m":"data","s":3,"t":%d,"r":[[1,0,1]]}`, t0)
	if code, _ := hub.CloseCodeOf(err); code != wire.CloseTooFast {
		t.Fatalf("%v closes with %d, want %d", err, code, wire.CloseTooFast)
	}
}

func TestRefusedRowsAreAGap(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	c := r.connect("a")
	c.hello("st", 1, 1)
	c.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,1],[9,5,2],[1,10,"x"],[1,20,3]]}`, t0)
	c.ack(1)
	c.send(`{"m":"data","s":2,"t":%d,"r":[[9,0,2]]}`, t0+1000) // nothing of it stands
	c.ack(2)
	for range 2 {
		gaps, err := r.hub.Gaps(t.Context(), "a", math.MinInt64, math.MaxInt64)
		if err != nil {
			t.Fatal(err)
		}
		var count uint64
		for _, g := range gaps {
			if g.Cause != device.CauseRefused || g.FromMS < t0 || g.ToMS > t0+1000 {
				t.Errorf("the gap is %+v", g)
			}
			count += g.Count
		}
		if count != 3 {
			t.Errorf("%d readings are in the gaps %+v, want 3", count, gaps)
		}
		r.restart()
	}
}
