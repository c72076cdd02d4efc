package api

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	day     = 24 * time.Hour
	minStep = time.Millisecond
	maxStep = 3660 * day
)

// parseStep reads the width of a step: a Go duration (90s, 5m, 1h30m), or whole days (1d) or weeks (1w).
func parseStep(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if n, unit, ok := wholeDays(s); ok {
		d, err = time.Duration(n)*unit, nil
	}
	if err != nil || d < minStep || d > maxStep || d%time.Millisecond != 0 {
		return 0, fmt.Errorf("%q is not a step: use a duration of whole milliseconds up to ten years, as 10s, 5m, 1h, 1d or 1w", s)
	}
	return d, nil
}

func wholeDays(s string) (n int, unit time.Duration, ok bool) {
	unit = day
	num, ok := strings.CutSuffix(s, "d")
	if !ok {
		unit = 7 * day
		num, ok = strings.CutSuffix(s, "w")
	}
	if !ok {
		return 0, 0, false
	}
	n, err := strconv.Atoi(num)
	return n, unit, err == nil && n > 0 && n <= 3660
}

// steps cuts the time line into steps. Where a step divides a day, or is whole days, the cuts follow the calendar of the zone:
// steps begin anew at each local midnight, and a day on which the clock changes has 23 or 25 hours. Weeks begin on
// Monday. All other steps count from the Unix epoch.
type steps struct {
	width time.Duration
	zone  *time.Location

	begin, end int64 // the step that was asked for last, in Unix ms: times mostly come in order
}

// start returns the first millisecond of the step that contains t.
func (s *steps) start(t int64) int64 {
	if t >= s.begin && t < s.end {
		return s.begin
	}
	switch {
	case s.width%day == 0:
		s.begin, s.end = s.days(t)
	case day%s.width == 0:
		s.begin, s.end = s.partOfDay(t)
	default:
		w := s.width.Milliseconds()
		s.begin = floorDiv(t, w) * w
		s.end = s.begin + w
	}
	return s.begin
}

func (s *steps) days(t int64) (begin, end int64) {
	local := time.UnixMilli(t).In(s.zone)
	y, m, d := local.Date()
	number := floorDiv(time.Date(y, m, d, 0, 0, 0, 0, time.UTC).Unix(), int64(day/time.Second))
	n := int64(s.width / day)
	into := floorMod(number+s.weekShift(n), n)
	first := int(int64(d) - into)
	begin = time.Date(y, m, first, 0, 0, 0, 0, s.zone).UnixMilli()
	end = time.Date(y, m, first+int(n), 0, 0, 0, 0, s.zone).UnixMilli()
	return begin, end
}

// weekShift moves the cuts of whole weeks to Mondays: 1970-01-01 was a Thursday.
func (s *steps) weekShift(days int64) int64 {
	if days%7 == 0 {
		return 3
	}
	return 0
}

func (s *steps) partOfDay(t int64) (begin, end int64) {
	y, m, d := time.UnixMilli(t).In(s.zone).Date()
	midnight := time.Date(y, m, d, 0, 0, 0, 0, s.zone).UnixMilli()
	next := time.Date(y, m, d+1, 0, 0, 0, 0, s.zone).UnixMilli()
	w := s.width.Milliseconds()
	begin = midnight + floorDiv(t-midnight, w)*w
	return begin, min(begin+w, next)
}

func floorDiv(a, b int64) int64 { return (a - floorMod(a, b)) / b }

func floorMod(a, b int64) int64 {
	m := a % b
	if m < 0 {
		m += b
	}
	return m
}
