package hub_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
)

// presence returns what the hub says of a device after so long.
func (r *rig) presence(id device.ID, after time.Duration) hub.DeviceInfo {
	r.t.Helper()
	time.Sleep(after)
	synctest.Wait()
	info, err := r.hub.Device(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return info
}

// wantPresence checks the presence of a device after so long.
func (r *rig) wantPresence(id device.ID, after time.Duration, want hub.Presence) {
	r.t.Helper()
	if got := r.presence(id, after).Presence; got != want {
		r.t.Errorf("%v later %s is %v, want %v", after, id, got, want)
	}
}

func (r *rig) ingest(id device.ID, body string) {
	r.t.Helper()
	if _, err := r.hub.Ingest(r.t.Context(), id, wire.JSON, []byte(body)); err != nil {
		r.t.Fatal(err)
	}
}

// inBubble runs a test of a hub in fake time. The clock of a bubble begins where the earliest acceptable time is.
func inBubble(t *testing.T, test func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(24 * time.Hour)
		r := newRig(t, hub.Options{})
		test(r)
		synctest.Wait()
	})
}

func TestDeviceWithADeclaredIntervalIsStaleWhenOverdue(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.add("a")
		r.wantPresence("a", time.Hour, hub.NeverSeen)
		c := r.connect("a")
		c.send(`{"m":"hello","st":"st","next":1,"have":1,"schema":"s","tq":2}`)
		c.next()
		c.send(`{"m":"birth","id":"s","metrics":[{"a":1,"n":"x","k":"gauge","iv":10000},{"a":2,"n":"slow","k":"gauge","iv":3600000}]}`)
		r.wantPresence("a", time.Hour, hub.NeverSeen) // it is connected, but has said nothing
		c.send(`{"m":"data","s":1,"t":%d,"r":[[2,0,1],[1,0,1]]}`, time.Now().UnixMilli())
		c.ack(1)
		r.wantPresence("a", 24*time.Second, hub.Live)
		r.wantPresence("a", 3*time.Second, hub.Stale)
		r.wantPresence("a", 24*time.Hour, hub.Stale) // but not gone: it is connected
		c.send(`{"m":"data","s":2,"t":%d,"r":[[1,0,1]]}`, time.Now().UnixMilli())
		c.ack(2)
		r.wantPresence("a", 0, hub.Live)

		c.Close(1000, "test")
		r.wantPresence("a", 14*time.Second, hub.Live) // it may come back in a moment
		r.wantPresence("a", 3*time.Second, hub.Offline)
		r.connect("a")
		r.wantPresence("a", 0, hub.Live)
	})
}

func TestDeviceWithoutAnIntervalIsJudgedByTheMedianOfTwenty(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.add("a")
		for i := range 20 { // with 19 steps between them
			r.ingest("a", fmt.Sprintf(`{"x":%d}`, i))
			time.Sleep(10 * time.Second)
		}
		r.wantPresence("a", 24*time.Hour, hub.Live) // it is not known yet how often it sends
		r.ingest("a", `{"x":1}`)                    // after the 20th step, which is an outlier
		if got := r.presence("a", 0).Interval; got != 10*time.Second {
			r.t.Errorf("the interval is %v, want the median, 10 s", got)
		}
		r.wantPresence("a", 24*time.Second, hub.Live)
		r.wantPresence("a", 3*time.Second, hub.Stale)
		r.wantPresence("a", 70*time.Second, hub.Stale)
		r.wantPresence("a", 5*time.Second, hub.Offline) // it keeps no connection, and ten intervals have passed
		r.ingest("a", `{"x":1}`)
		r.wantPresence("a", 0, hub.Live)
	})
}

func TestLastSeenIsNotLastChanged(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.add("a")
		r.ingest("a", `{"x":1}`)
		changed := time.Now()
		time.Sleep(time.Minute)
		r.ingest("a", `{"x":1}`)
		seen := time.Now()
		info := r.presence("a", time.Minute)
		if !info.LastSeen.Equal(seen) || !info.LastChanged.Equal(changed) {
			r.t.Errorf("last seen %v and changed %v, want %v and %v", info.LastSeen, info.LastChanged, seen, changed)
		}
	})
}

func TestNobodyIsLiveAfterARestartWhoHasNotBeenHeard(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.add("a")
		r.ingest("a", `{"x":1}`)
		r.wantPresence("a", time.Second, hub.Live)
		r.restart()
		r.wantPresence("a", 0, hub.Offline)
		r.ingest("a", `{"x":1}`)
		r.wantPresence("a", time.Second, hub.Live)
	})
}
