package firmwaresim

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestPaceFollowsTheRecording(t *testing.T) {
	rows := []int64{1000, 1500, 1500, 1200, 3200, 63200}
	for name, c := range map[string]struct {
		p    pacer
		want []time.Duration // when each row is played
	}{
		"as recorded": {pacer{speed: 1}, []time.Duration{0, 500, 500, 500, 2500, 62500}},
		"ten times":   {pacer{speed: 10}, []time.Duration{0, 50, 50, 50, 250, 6250}},
		"short gaps":  {pacer{speed: 1, maxGap: time.Second}, []time.Duration{0, 500, 500, 500, 1500, 2500}},
		"max":         {pacer{}, []time.Duration{0, 0, 0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				for i, at := range rows {
					got, err := c.p.next(t.Context(), at)
					if err != nil || got != at {
						t.Fatalf("row %d: time %d, %v", i, got, err)
					}
					if d := time.Since(begin); d != c.want[i]*time.Millisecond {
						t.Errorf("row %d was played at %v, want %v ms", i, d, int64(c.want[i]))
					}
				}
			})
		})
	}
}

func TestPaceStampsAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{speed: 1, stamp: true}
		for i, at := range []int64{1000, 2000} {
			got, err := p.next(t.Context(), at)
			if err != nil || got != time.Now().UnixMilli() {
				t.Errorf("row %d: time %d, %v, want now", i, got, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.next(ctx, 1_000_000_000); err == nil {
			t.Error("it waited longer than its context")
		}
	})
}
