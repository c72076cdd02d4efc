package api

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"telemetryhub/device"
	"telemetryhub/hub"
)

func TestStepsFollowTheCalendar(t *testing.T) {
	for _, c := range []struct{ step, zone, at, want string }{
		{"5m", "UTC", "2026-03-29T10:07:31Z", "2026-03-29T10:05:00Z"},
		{"1h", "Asia/Kolkata", "2026-03-29T10:07:31+05:30", "2026-03-29T10:00:00+05:30"},
		{"6h", "Europe/Berlin", "2026-03-29T23:59:00+02:00", "2026-03-29T19:00:00+02:00"}, // 23 hours: 0, 7, 13, 19
		{"1d", "Europe/Berlin", "2026-03-29T23:59:00+02:00", "2026-03-29T00:00:00+01:00"},
		{"1d", "Europe/Berlin", "2026-10-25T23:59:00+01:00", "2026-10-25T00:00:00+02:00"},
		{"1w", "Europe/Berlin", "2026-10-25T23:59:00+01:00", "2026-10-19T00:00:00+02:00"}, // a Sunday belongs to the Monday before
		{"1w", "UTC", "2026-10-19T00:00:00Z", "2026-10-19T00:00:00Z"},
		{"7m", "UTC", "1970-01-01T00:08:00Z", "1970-01-01T00:07:00Z"},
		{"36h", "UTC", "1970-01-03T00:00:00Z", "1970-01-02T12:00:00Z"},
		{"1h", "UTC", "1969-12-31T23:30:00Z", "1969-12-31T23:00:00Z"},
	} {
		width, err := parseStep(c.step)
		if err != nil {
			t.Fatal(err)
		}
		s := steps{width: width, zone: mustZone(t, c.zone)}
		at, want := mustTime(t, c.at), mustTime(t, c.want)
		if got := s.start(at); got != want {
			t.Errorf("%s of %s in %s begins at %s, want %s", c.step, c.at, c.zone,
				time.UnixMilli(got).In(s.zone).Format(time.RFC3339), c.want)
		}
	}
	for _, s := range []string{"", "0s", "-1m", "5", "1y", "1ns", "99999d", "4000d", "0d", "1.5ms"} {
		if d, err := parseStep(s); err == nil {
			t.Errorf("parseStep(%q) = %s, want an error", s, d)
		}
	}
}

func TestEveryTimeLiesInItsStep(t *testing.T) {
	zones := []*time.Location{time.UTC, mustZone(t, "Europe/Berlin"), mustZone(t, "Asia/Kolkata"), mustZone(t, "America/St_Johns"),
		mustZone(t, "Pacific/Apia"), mustZone(t, "Australia/Lord_Howe"), mustZone(t, "America/Havana")}
	rapid.Check(t, func(t *rapid.T) {
		width, err := parseStep(rapid.SampledFrom([]string{"1ms", "10s", "5m", "7m", "1h", "12h", "1d", "3d", "1w", "25h"}).Draw(t, "step"))
		if err != nil {
			t.Fatal(err)
		}
		s := steps{width: width, zone: rapid.SampledFrom(zones).Draw(t, "zone")}
		at := rapid.Int64Range(0, lastMS/100).Draw(t, "at")
		start := s.start(at)
		if start > at || s.begin != start || s.end <= at {
			t.Fatalf("%d lies in [%d, %d)", at, s.begin, s.end)
		}
		if longest := width.Milliseconds() + 26*3600*1000; s.end-s.begin > longest {
			t.Fatalf("a step of %s takes %d ms", width, s.end-s.begin)
		}
		fresh := steps{width: width, zone: s.zone}
		if end := s.end; fresh.start(end) != end {
			t.Fatalf("after [%d, %d) the next step begins at %d", s.begin, end, fresh.begin)
		}
	})
}

func TestAggregates(t *testing.T) {
	num := device.NumberValue
	mixed := []device.Value{num(2), device.BoolValue(true), device.TextValue("off"), num(-4)}
	for _, c := range []struct {
		agg  string
		in   []device.Value
		want device.Value
		none bool
	}{
		{"avg", []device.Value{num(1), num(2), num(6)}, num(3), false},
		{"min", mixed, num(-4), false}, {"max", mixed, num(2), false}, {"sum", mixed, num(-1), false},
		{"count", mixed, num(4), false}, {"first", mixed, num(2), false}, {"last", mixed, num(-4), false},
		{"last", []device.Value{num(1), device.TextValue("off")}, device.TextValue("off"), false},
		{"avg", []device.Value{device.TextValue("off")}, device.Value{}, true},
		{"sum", []device.Value{num(1e100), num(1), num(-1e100)}, num(1), false},
		{"sum", []device.Value{num(0.1), num(0.2), num(0.3)}, num(0.6), false},
	} {
		got := new(rowList)
		q := &query{step: time.Minute, zone: time.UTC, agg: c.agg}
		table := newTable(q, oneMetric(), got)
		for i, v := range c.in {
			table.add(int64(i), 0, v)
		}
		table.finish()
		if c.none && len(got.values) == 0 {
			continue
		}
		if len(got.values) != 1 || !got.values[0].Equal(c.want) {
			t.Errorf("%s of %v is %v, want %v", c.agg, c.in, got.values, c.want)
		}
	}
}

func TestStepsWithoutReadingsGiveNoPoint(t *testing.T) {
	got := new(rowList)
	table := newTable(&query{step: time.Second, zone: time.UTC, agg: "count"}, oneMetric(), got)
	for _, at := range []int64{10, 999, 1000, 5500} {
		table.add(at, 0, device.NumberValue(1))
	}
	table.finish()
	starts := got.times
	if len(starts) != 3 || starts[0] != 0 || starts[1] != 1000 || starts[2] != 5000 {
		t.Errorf("points stand at %v", starts)
	}
}

// rowList is a sink that keeps the first column.
type rowList struct {
	times  []int64
	values []device.Value
}

func (*rowList) begin(*columns) {}

func (l *rowList) row(t int64, values []device.Value) bool {
	l.times, l.values = append(l.times, t), append(l.values, values[0])
	return true
}

func oneMetric() *hub.HistoryInfo {
	m := device.NewMetric("temperature")
	m.Num = 1
	return &hub.HistoryInfo{Versions: []device.Metric{m}}
}

func mustTime(t *testing.T, s string) int64 {
	t.Helper()
	ms, err := parseTime(s, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	return ms
}
