package mqtt_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub/mqtt"
)

// audience is somebody who may want what is published.
type audience struct {
	mu      sync.Mutex
	here    bool
	changed chan struct{}
	asked   int
}

func (a *audience) wanted() (bool, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	return a.here, a.changed
}

func (a *audience) comes() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.here = true
	close(a.changed)
}

func (a *audience) times() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

func TestWhatNobodyWantsIsPassedOver(t *testing.T) {
	t.Parallel()
	r, b, a := newRig(t), newBroker(t), &audience{changed: make(chan struct{})}
	r.add("a")
	r.bridge(b.dial, func(o *mqtt.Options) { o.Wanted, o.Patience = a.wanted, time.Nanosecond })
	r.ingest("a", `{"n":1}`)
	asked := a.times()
	r.until("it has been passed over", func() bool { return a.times() > asked+1 }) // takes a second or two
	a.comes()
	r.ingest("a", `{"n":2}`)
	r.until("the next is published", func() bool { return len(b.readings()) > 0 })
	if got := b.readings()[0]; !strings.Contains(got, `"v":2`) {
		t.Errorf("published first: %s", got)
	}
}

// TestNothingIsPassedOverThatCameAfterWhoWantsIt has somebody come, and then a reading, right after the bridge has asked.
func TestNothingIsPassedOverThatCameAfterWhoWantsIt(t *testing.T) {
	t.Parallel()
	r, b, a := newRig(t), newBroker(t), &audience{changed: make(chan struct{})}
	r.add("a")
	ready := make(chan struct{})
	var once sync.Once
	r.bridge(b.dial, func(o *mqtt.Options) {
		o.Patience = time.Nanosecond
		o.Wanted = func() (bool, <-chan struct{}) {
			wanted, changed := a.wanted()
			select {
			case <-ready:
				once.Do(func() {
					a.comes()
					if _, err := r.hub.Ingest(context.Background(), "a", wire.JSON, []byte(`{"n":1}`)); err != nil {
						t.Error(err)
					}
				})
			default:
			}
			return wanted, changed
		}
	})
	close(ready)
	r.until("it is published", func() bool { return len(b.readings()) > 0 })
}

// TestWhoComesBackAfterARestartGetsTheRest is about those whose session the embedded broker has forgotten.
func TestWhoComesBackAfterARestartGetsTheRest(t *testing.T) {
	t.Parallel()
	r, b, a := newRig(t), newBroker(t), &audience{changed: make(chan struct{})}
	r.add("a")
	r.bridge(b.dial, func(o *mqtt.Options) { o.Wanted = a.wanted })
	r.ingest("a", `{"n":1}`)
	r.until("it has asked", func() bool { return a.times() > 0 })
	a.comes()
	r.until("it is published", func() bool { return len(b.readings()) > 0 })
	if got := b.readings()[0]; !strings.Contains(got, `"v":1`) {
		t.Errorf("published first: %s", got)
	}
}
