package firmwaresim_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/firmware-sim"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// table is a recording as text and as it must arrive.
type table struct {
	text string
	want map[string][]row
}

// makeTable makes n rows of three devices, with equal times, times that go back, and values of all kinds.
func makeTable(n int) table {
	var b strings.Builder
	b.WriteString("time_ms,device,temperature,humidity,light1,odd,door\n")
	t := table{want: map[string][]row{}}
	for i := range n {
		id := fmt.Sprintf("room-%d", i%3)
		at := int64(1_458_031_648_545) + int64(i)*250
		switch {
		case i%50 >= 47:
			at = int64(1_458_031_648_545) + int64(i-i%50)*250 // three rows of one time, in the past
		case i%97 == 0:
			at -= 4000
		}
		fields := []string{
			fmt.Sprintf("%d.%02d", 20+i%7, i%100), fmt.Sprintf("%d.%03d", 40+i%9, i%1000), fmt.Sprintf("%d.50", i%700),
			[]string{"1e-7", "", "-0", "0.1", "123456789.123456789"}[i%5], strconv.Itoa(i % 2),
		}
		fmt.Fprintf(&b, "%d,%s,%s\n", at, id, strings.Join(fields, ","))
		r := row{at: at}
		for _, s := range fields {
			if s == "" {
				r.values = append(r.values, device.Value{})
				continue
			}
			f, err := strconv.ParseFloat(s, 64)
			if err != nil {
				panic(err)
			}
			r.values = append(r.values, device.NumberValue(f))
		}
		t.want[id] = append(t.want[id], r)
	}
	t.text = b.String()
	return t
}

func (t table) check(test *testing.T, h *fakeHub) {
	test.Helper()
	for id, want := range t.want {
		got := h.rows(id)
		if len(got) != len(want) {
			test.Fatalf("%s: %d rows, want %d", id, len(got), len(want))
		}
		for i := range want {
			if got[i].at != want[i].at {
				test.Fatalf("%s row %d: time %d, want %d", id, i, got[i].at, want[i].at)
			}
			for j := range want[i].values {
				if !got[i].values[j].Equal(want[i].values[j]) {
					test.Fatalf("%s row %d value %d: %v, want %v", id, i, j, got[i].values[j], want[i].values[j])
				}
			}
		}
	}
}

func inspect(t *testing.T, text string) *firmwaresim.Recording {
	t.Helper()
	path := filepath.Join(t.TempDir(), "recording.csv")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	rec, err := firmwaresim.Inspect(path)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func options(h *fakeHub) firmwaresim.ReplayOptions {
	return firmwaresim.ReplayOptions{Hub: agent.Endpoint{URL: h.URL}, Token: "admin", Patience: 2 * time.Second}
}

func TestReplayDeliversEveryRowExactlyAndInOrder(t *testing.T) {
	tab := makeTable(20_000)
	rec := inspect(t, tab.text)
	h := newFakeHub(t)
	var last firmwaresim.Progress
	o := options(h)
	o.Every = time.Millisecond
	o.Progress = func(p firmwaresim.Progress) { last = p }
	if err := firmwaresim.Replay(t.Context(), rec, o); err != nil {
		t.Fatal(err)
	}
	tab.check(t, h)
	if !last.Done || last.Acked != uint64(rec.Readings) || last.Total != rec.Readings || last.Devices != 3 {
		t.Errorf("the last progress was %+v, want all of %d readings", last, rec.Readings)
	}
}

func TestReplayGoesOnWhenTheHubIsRestarted(t *testing.T) {
	tab := makeTable(20_000)
	for name, dir := range map[string]string{"in memory": "", "on disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub(t)
			h.cutEvery = 5
			o := options(h)
			o.SpoolDir = dir
			if err := firmwaresim.Replay(t.Context(), inspect(t, tab.text), o); err != nil {
				t.Fatal(err)
			}
			tab.check(t, h)
		})
	}
}

func TestInterruptedReplayGoesOnWhereItWas(t *testing.T) {
	tab := makeTable(30_000)
	rec := inspect(t, tab.text)
	h := newFakeHub(t)
	o := options(h)
	o.SpoolDir = t.TempDir()
	for round := 1; ; round++ {
		ctx, cancel := context.WithCancel(t.Context())
		h.mu.Lock()
		stopAt := h.batches + 10
		h.onBatch = func(n int) {
			if n == stopAt && round < 4 {
				cancel()
			}
		}
		h.mu.Unlock()
		err := firmwaresim.Replay(ctx, rec, o)
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) || round > 4 {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	tab.check(t, h)
	if n := len(h.tokens); n != 3 {
		t.Errorf("%d tokens were made for 3 devices", n)
	}
}

func TestDeviceThatExistsGetsAFurtherToken(t *testing.T) {
	tab := makeTable(30)
	h := newFakeHub(t)
	h.existing["room-1"] = struct{}{}
	if err := firmwaresim.Replay(t.Context(), inspect(t, tab.text), options(h)); err != nil {
		t.Fatal(err)
	}
	tab.check(t, h)
}

func TestDeviceThatWasDeletedIsRefusedWithTheReason(t *testing.T) {
	h := newFakeHub(t)
	h.deleted = "room-1"
	err := firmwaresim.Replay(t.Context(), inspect(t, makeTable(3).text), options(h))
	if !errors.Is(err, firmwaresim.ErrRefused) || !strings.Contains(err.Error(), "409 Conflict: It was deleted.") {
		t.Errorf("got %v", err)
	}
}

func TestReplaySaysWhyItCannotBegin(t *testing.T) {
	rec := inspect(t, makeTable(3).text)
	for name, c := range map[string]struct {
		change func(*fakeHub, *firmwaresim.ReplayOptions)
		want   error
	}{
		"wrong token":  {func(_ *fakeHub, o *firmwaresim.ReplayOptions) { o.Token = "x" }, firmwaresim.ErrRefused},
		"not allowed":  {func(h *fakeHub, _ *firmwaresim.ReplayOptions) { h.deny = http.StatusForbidden }, firmwaresim.ErrRefused},
		"not ready":    {func(h *fakeHub, _ *firmwaresim.ReplayOptions) { h.deny = http.StatusServiceUnavailable }, firmwaresim.ErrUnreachable},
		"nobody there": {func(h *fakeHub, _ *firmwaresim.ReplayOptions) { h.Server.Close() }, firmwaresim.ErrUnreachable},
	} {
		h := newFakeHub(t)
		o := options(h)
		o.Patience = 200 * time.Millisecond
		c.change(h, &o)
		if err := firmwaresim.Replay(t.Context(), rec, o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestRevokedDeviceEndsTheReplay(t *testing.T) {
	h := newFakeHub(t)
	h.onBatch = func(n int) {
		if n == 2 {
			clear(h.tokens)
		}
	}
	h.cutEvery = 3
	err := firmwaresim.Replay(t.Context(), inspect(t, makeTable(20_000).text), options(h))
	var stop *agent.StopError
	if !errors.As(err, &stop) {
		t.Errorf("got %v, want a StopError", err)
	}
}

func TestRefusedReadingsAreAnError(t *testing.T) {
	h := newFakeHub(t)
	h.bad = true
	err := firmwaresim.Replay(t.Context(), inspect(t, makeTable(10).text), options(h))
	if !errors.Is(err, firmwaresim.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
}

func TestLoopStampsTheTimeOfPlaying(t *testing.T) {
	h := newFakeHub(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.onBatch = func(int) {
		if len(h.devices["room-0"]) > 40 { // the recording has ten rows of each device
			cancel()
		}
	}
	o := options(h)
	o.Loop, o.Speed, o.MaxGap = true, 1000, time.Second
	begin := time.Now().UnixMilli()
	if err := firmwaresim.Replay(ctx, inspect(t, makeTable(30).text), o); err != nil {
		t.Fatal(err)
	}
	rows := h.rows("room-0")
	last := begin
	for i, r := range rows {
		if r.at < last || r.at > time.Now().UnixMilli() {
			t.Fatalf("row %d has time %d, want one between %d and now", i, r.at, last)
		}
		last = r.at
	}
	if len(rows) <= 40 {
		t.Errorf("%d rows: it did not begin again", len(rows))
	}
}

func TestBadOptionsAreRefused(t *testing.T) {
	rec := inspect(t, makeTable(3).text)
	for name, o := range map[string]firmwaresim.ReplayOptions{
		"speed": {Speed: -1}, "gap": {MaxGap: -1}, "address": {Hub: agent.Endpoint{URL: "hub.local"}},
		"plain text": {Hub: agent.Endpoint{URL: "ftp://hub.local"}},
	} {
		if err := firmwaresim.Replay(t.Context(), rec, o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestSchemaSaysWhatTheColumnsAre(t *testing.T) {
	rec := inspect(t, makeTable(100).text)
	want := map[string]struct {
		unit string
		exp  int8
		kind device.Kind
	}{
		"temperature": {"Cel", -2, device.Gauge}, "humidity": {"%RH", -3, device.Gauge}, "light1": {"", -2, device.Gauge},
		"odd": {"", -9, device.Gauge}, "door": {"", 0, device.State},
	}
	s := rec.Schema(500)
	if len(s.Metrics) != len(want) || len(s.Sets) != 1 || len(s.Sets[0].Metrics) != len(want) {
		t.Fatalf("schema %+v", s)
	}
	for _, m := range s.Metrics {
		w := want[m.Name]
		if m.Unit != w.unit || m.Exp != w.exp || m.Kind != w.kind || m.IntervalMS != 500 || !math.IsNaN(m.Lo) {
			t.Errorf("%s: %+v, want %+v", m.Name, m, w)
		}
	}
}
