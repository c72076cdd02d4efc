package device_test

import (
	"testing"
	"time"

	"telemetryhub/device"
)

func TestTimesFrom2000ToFiveMinutesAheadAreKept(t *testing.T) {
	first := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	arrival := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC).UnixMilli()
	last := arrival + (5 * time.Minute).Milliseconds()
	for _, tc := range []struct {
		at   int64
		kept bool
	}{{first - 1, false}, {first, true}, {arrival, true}, {last, true}, {last + 1, false}, {0, false}, {-1 << 63, false}, {1<<63 - 1, false}} {
		want := tc.at
		if !tc.kept {
			want = arrival
		}
		if got, kept := device.Filed(tc.at, arrival); got != want || kept != tc.kept {
			t.Errorf("%d is filed under %d, %v; want %d, %v", tc.at, got, kept, want, tc.kept)
		}
	}
}
