package hub_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/storage"
)

// brimful is a log without room as long as full is set.
type brimful struct {
	storage.Log
	full  atomic.Bool
	tries atomic.Int64
}

func (l *brimful) Append(ctx context.Context, group []byte, last storage.Position) (storage.Position, error) {
	l.tries.Add(1)
	if l.full.Load() {
		return 0, fmt.Errorf("append: %w", storage.ErrFull)
	}
	return l.Log.Append(ctx, group, last)
}

// newFullRig is a rig with a log that has no room.
func newFullRig(t *testing.T) (*rig, *brimful) {
	r := newRig(t, hub.Options{})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	log := &brimful{Log: r.stores.Log}
	log.full.Store(true)
	r.stores.Log = log
	r.start()
	r.add("a")
	r.add("b")
	return r, log
}

func (c *client) slow() wire.Slow {
	c.t.Helper()
	frame := c.next()
	s, err := wire.DecodeSlow(wire.JSON, []byte(frame))
	if err != nil {
		c.t.Fatalf("got %s, want a slow", frame)
	}
	return s
}

func (c *client) nothing() {
	c.t.Helper()
	synctest.Wait()
	if frame, _, ok := c.s.Next(nil); ok {
		c.t.Fatalf("got %s, want nothing", frame)
	}
}

func TestFullDiskIsToldToDevicesAndSoIsItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newFullRig(t)
		a, b := r.connect("a"), r.connect("b")
		a.hello("st1", 1, 1)
		b.send(`{"level":1}`) // by hand: it does not know the protocol, so it must not be spoken to in it
		a.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,1]]}`, t0)
		want := wire.Slow{ForMS: 10_000, Why: wire.SlowFull}
		for range 3 { // said anew before it is over
			began := time.Now()
			if s := a.slow(); s != want {
				t.Fatalf("got %+v, want %+v", s, want)
			}
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("said anew only after %v", took)
			}
		}
		late := r.connect("b") // replaces the one by hand
		late.hello("st1", 1, 1)
		if s := late.slow(); s != want {
			t.Fatalf("who comes meanwhile is told %+v, want %+v", s, want)
		}
		log.full.Store(false)
		for _, c := range []*client{a, late} {
			if s := c.slow(); s.ForMS != 0 || s.Win == 0 {
				t.Fatalf("got %+v, want the end", s)
			}
		}
		a.ack(1)
		a.nothing()
		b.nothing()
		after := r.connect("b")
		after.hello("st1", 1, 1)
		after.nothing()
	})
}

func TestReadingsByHTTPProbeAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newFullRig(t)
		post := func() error {
			_, err := r.hub.Ingest(t.Context(), "a", wire.JSON, []byte(`{"level":1}`))
			return err
		}
		for range 100 { // over 10 s
			if err := post(); !errors.Is(err, storage.ErrFull) {
				t.Fatalf("got %v, want ErrFull", err)
			}
			if status := r.hub.Status(); !status.Full || status.Ready() == nil {
				t.Fatal("the hub says that it is ready")
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := log.tries.Load(); n < 5 || n > 20 {
			t.Errorf("%d tries in 10 s, want about one a second", n)
		}
		log.full.Store(false)
		time.Sleep(time.Second)
		if err := post(); err != nil {
			t.Fatal(err)
		}
		if r.hub.Status().Full {
			t.Error("the hub still says that it is full")
		}
	})
}

func TestStoppingHubTellsDevicesWhenToComeBack(t *testing.T) {
	r := newRig(t, hub.Options{})
	r.add("a")
	r.add("b")
	a, b := r.connect("a"), r.connect("b")
	a.hello("st1", 1, 1)
	byes := make(chan string, 2)
	for _, c := range []*client{a, b} {
		p := c.peer
		p.last = func() {
			frame, _, _ := c.s.Next(nil)
			byes <- string(frame)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	first, second := <-byes, <-byes
	if first+second != first && first+second != second {
		t.Fatalf("got %q and %q: one of them never said hello", first, second)
	}
	bye, err := wire.DecodeBye(wire.JSON, []byte(first+second))
	if err != nil || bye.Code != wire.CloseDraining || bye.RetryMS < 500 || bye.RetryMS > 5_000 || !strings.Contains(bye.Why, "going away") {
		t.Fatalf("got %+v, %v", bye, err)
	}
}
