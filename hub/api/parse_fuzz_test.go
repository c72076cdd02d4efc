package api

import (
	"testing"
	"time"
)

// FuzzTimes reads any text as a time and as a step: what is taken must be usable.
func FuzzTimes(f *testing.F) {
	for _, s := range []string{"1766000000123", "2026-01-31T08:00:00Z", "2026-01-31T09:00:00 01:00", "2026-01-31", "5m", "1w", "-1", "9999-12-31T23:59:59.999999999Z"} {
		f.Add(s)
	}
	zone, err := parseZone("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ms, err := parseTime(s, zone); err == nil {
			appendISO(nil, ms, zone)
		}
		width, err := parseStep(s)
		if err != nil {
			return
		}
		if width < minStep || width > maxStep {
			t.Fatalf("%q is a step of %s", s, width)
		}
		st := steps{width: width, zone: zone}
		at := time.Now().UnixMilli()
		if start := st.start(at); start > at || st.end <= at {
			t.Fatalf("%d lies in [%d, %d)", at, st.begin, st.end)
		}
	})
}
