package api

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// lostPlus finds an offset whose plus sign has become a space, as it does in a URL where it was not escaped.
var lostPlus = regexp.MustCompile(` (\d\d:\d\d)$`)

// zoneLayouts are the accepted times without an offset; they are read in the zone of the request.
var zoneLayouts = []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02"}

// parseTime reads a bound of a time range as Unix milliseconds: an integer is taken as such, RFC 3339 is converted, and a
// date or a time without an offset is read in zone. A fraction of a millisecond is rounded up, so that a half-open range
// keeps its meaning.
func parseTime(s string, zone *time.Location) (int64, error) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		return ms, nil
	}
	t, err := time.Parse(time.RFC3339Nano, lostPlus.ReplaceAllString(s, "+$1"))
	for _, layout := range zoneLayouts {
		if err == nil {
			break
		}
		t, err = time.ParseInLocation(layout, s, zone)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a time: use Unix milliseconds (1766000000123) or RFC 3339 (2026-01-31T08:00:00Z); "+
			"a date or a time without an offset is read in tz", s)
	}
	ms := t.UnixMilli()
	if t.Nanosecond()%int(time.Millisecond) != 0 {
		ms++
	}
	return ms, nil
}

// parseZone returns the time zone of that name of the IANA database; "" is UTC.
func parseZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || strings.EqualFold(name, "local") {
		return nil, fmt.Errorf("%q is not a time zone: use a name of the IANA database, as Europe/Berlin or UTC", name)
	}
	return zone, nil
}

// parseRange reads a half-open range. An empty bound is open.
func parseRange(from, to string, zone *time.Location) (fromMS, toMS int64, err error) {
	fromMS, toMS = math.MinInt64, math.MaxInt64
	if from != "" {
		if fromMS, err = parseTime(from, zone); err != nil {
			return 0, 0, fmt.Errorf("from: %w", err)
		}
	}
	if to != "" {
		if toMS, err = parseTime(to, zone); err != nil {
			return 0, 0, fmt.Errorf("to: %w", err)
		}
	}
	if fromMS > toMS {
		return 0, 0, fmt.Errorf("from (%s) is after to (%s): swap them", from, to)
	}
	return fromMS, toMS, nil
}

// appendISO writes a time as ISO 8601 with milliseconds and the offset of zone.
func appendISO(dst []byte, ms int64, zone *time.Location) []byte {
	return time.UnixMilli(ms).In(zone).AppendFormat(dst, "2006-01-02T15:04:05.000Z07:00")
}
