package hub

import (
	"fmt"
	"slices"
	"time"

	"telemetryhub/device"
)

// Presence says whether what a device last sent can still be believed.
type Presence uint8

// The states of presence.
const (
	NeverSeen Presence = iota // no reading has ever arrived
	Live                      // readings arrive as expected
	Stale                     // the device is there, but its readings are overdue
	Offline                   // the device is gone
)

var presenceNames = [...]string{NeverSeen: "never", Live: "live", Stale: "stale", Offline: "offline"}

// String returns never, live, stale or offline.
func (p Presence) String() string {
	if int(p) >= len(presenceNames) {
		return fmt.Sprintf("presence(%d)", uint8(p))
	}
	return presenceNames[p]
}

// Rules of presence.
const (
	// overdue is how many intervals without a reading make a device stale.
	overdue = 2.5
	// gone is how many intervals without a reading put a device offline that does not keep a connection.
	gone = 10
	// graceMS is how long a device that lost its connection may take to come back before it is offline.
	graceMS = 15_000
	// leastMS is the least time after which a device can be overdue: networks hiccup, devices batch.
	leastMS = 5_000
)

// intervalMS returns the time expected between two readings of the device: the least that its metrics declare, in the
// schema that it used last if that is known and as far as they ever sent one, else the median of the last 20, else zero.
func (s *liveState) intervalMS() int64 {
	var declared int64
	least := func(m *device.Metric) {
		if m != nil && m.IntervalMS > 0 && (declared == 0 || m.IntervalMS < declared) {
			declared = m.IntervalMS
		}
	}
	if s.schema == nil {
		for i := range s.cells {
			least(s.cells[i].metric)
		}
	} else {
		for i := range s.schema.Metrics {
			if m := &s.schema.Metrics[i]; m.Num <= uint32(len(s.cells)) && s.cells[m.Num-1].metric != nil {
				least(m)
			}
		}
	}
	if declared > 0 {
		return declared
	}
	if s.stepCount < len(s.steps) {
		return 0
	}
	sorted := s.steps
	slices.Sort(sorted[:])
	return sorted[len(sorted)/2]
}

// presenceAt returns the presence at a time in Unix milliseconds.
//
// A device that has had a connection is offline when the connection has been gone for the grace time. While it is
// connected, and for devices that send without one (HTTP, MQTT), silence decides: stale after 2.5 intervals, and offline
// after 10 if there is no connection. Without a known interval a device is never stale.
func (s *liveState) presenceAt(nowMS int64) Presence {
	if s.seenMS == 0 {
		return NeverSeen
	}
	connected := s.sessions > 0
	if s.socket && !connected && s.seenMS <= s.closedMS && nowMS-s.closedMS > graceMS {
		return Offline
	}
	interval := s.intervalMS()
	if interval == 0 {
		if !s.heard && !connected {
			return Offline // nothing since the start of the hub says that it is there
		}
		return Live
	}
	silent := nowMS - s.seenMS
	switch {
	case !connected && silent > max(leastMS, gone*interval):
		return Offline
	case silent > max(leastMS, int64(overdue*float64(interval))):
		return Stale
	}
	return Live
}

func unixMilli(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
