package eio

import (
	"testing"
	"time"
)

func TestPingsShareTheirMoments(t *testing.T) {
	for _, ping := range []time.Duration{25 * time.Second, time.Millisecond, 1} {
		s := &Server{Options: Options{PingInterval: ping}}
		moments := map[time.Duration]bool{}
		for at := time.Duration(0); at < ping; at += max(ping/1000, 1) {
			got := s.together(at)
			if got > at || at-got > ping/25 {
				t.Fatalf("every %v: a ping that is due at %v is sent at %v", ping, at, got)
			}
			moments[got] = true
		}
		if len(moments) > 26 {
			t.Errorf("every %v: pings are sent at %d moments", ping, len(moments))
		}
	}
}
