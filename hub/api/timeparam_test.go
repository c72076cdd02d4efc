package api

import (
	"math"
	"testing"
	"time"
)

func TestTimesAreRead(t *testing.T) {
	berlin := mustZone(t, "Europe/Berlin")
	for _, c := range []struct {
		in   string
		want int64
	}{
		{"1766000000123", 1766000000123}, {"0", 0}, {"-5", -5},
		{"2026-01-31T08:00:00Z", 1769846400000}, {"2026-01-31T09:00:00+01:00", 1769846400000},
		{"2026-01-31T09:00:00 01:00", 1769846400000}, // a plus sign that a URL has turned into a space
		{"2026-01-31T08:00:00.123Z", 1769846400123},
		{"2026-01-31T08:00:00.1230001Z", 1769846400124}, // half-open ranges round up
		{"2026-01-31T09:00:00", 1769846400000}, {"2026-01-31T09:00", 1769846400000}, {"2026-01-31", 1769814000000},
	} {
		got, err := parseTime(c.in, berlin)
		if err != nil || got != c.want {
			t.Errorf("parseTime(%q) = %d, %v, want %d", c.in, got, err, c.want)
		}
	}
	for _, s := range []string{"", "yesterday", "2026-13-01", "2026-01-31T25:00:00Z", "1.5", "99999999999999999999"} {
		if got, err := parseTime(s, berlin); err == nil {
			t.Errorf("parseTime(%q) = %d, want an error", s, got)
		}
	}
}

func TestRangesAreHalfOpenAndOrdered(t *testing.T) {
	from, to, err := parseRange("", "", time.UTC)
	if from != math.MinInt64 || to != math.MaxInt64 || err != nil {
		t.Errorf("an open range is [%d, %d), %v", from, to, err)
	}
	if _, _, err := parseRange("2", "1", time.UTC); err == nil {
		t.Error("a range that ends before it begins is taken")
	}
	for _, name := range []string{"Local", "../etc/passwd", "Mars/Phobos", "/etc/localtime"} {
		if zone, err := parseZone(name); err == nil {
			t.Errorf("the zone %q is taken as %v", name, zone)
		}
	}
}

func mustZone(t *testing.T, name string) *time.Location {
	t.Helper()
	zone, err := parseZone(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}
