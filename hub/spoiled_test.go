package hub_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	dev "telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/storage"
)

// spoiled is a catalog in which one value is damaged until it is put again.
type spoiled struct {
	storage.Catalog
	key string
}

func (s *spoiled) Get(ctx context.Context, key string) ([]byte, storage.Revision, error) {
	if key == s.key {
		return nil, 0, storage.ErrCorrupt
	}
	return s.Catalog.Get(ctx, key)
}

func (s *spoiled) Put(ctx context.Context, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
	if key == s.key {
		if expect != storage.Any {
			return 0, storage.ErrConflict
		}
		s.key = ""
	}
	return s.Catalog.Put(ctx, key, value, expect)
}

func (s *spoiled) List(ctx context.Context, prefix string, yield func(storage.Item) bool) error {
	err := s.Catalog.List(ctx, prefix, func(it storage.Item) bool { return it.Key == s.key || yield(it) })
	if err == nil && s.key != "" && strings.HasPrefix(s.key, prefix) {
		err = storage.ErrCorrupt
	}
	return err
}

// past makes a hub with two devices whose readings are partly in history and partly in the log.
func past(t *testing.T) *rig {
	r := newRig(t, hub.Options{})
	for _, id := range []string{"a", "b"} {
		r.add(dev.ID(id))
		c := r.connect(dev.ID(id))
		c.hello("st1", 1, 1)
		c.send(`{"m":"data","s":1,"t":%d,"r":[[1,0,1],[3,0,true]]}`, t0)
		c.send(`{"m":"data","s":2,"t":%d,"r":[[1,1000,2]]}`, t0)
		c.ack(2)
	}
	if err := r.hub.FlushHistory(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := r.connect("b")
	c.hello("st1", 3, 3)
	c.send(`{"m":"data","s":3,"t":%d,"r":[[1,2000,3]]}`, t0)
	c.ack(3)
	return r
}

// TestNoSingleDamagedRecordKeepsAnybodyOut damages each value of the catalog in turn. The hub starts, everything that was
// acked comes back, and every device goes on.
func TestNoSingleDamagedRecordKeepsAnybodyOut(t *testing.T) {
	var keys []string
	r := past(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	err := r.stores.Catalog.List(t.Context(), "", func(it storage.Item) bool {
		keys = append(keys, it.Key)
		return true
	})
	if err != nil || len(keys) < 10 {
		t.Fatalf("%q, %v", keys, err)
	}
	want := map[string][]string{
		"a": {"1766000000000 temperature 1", "1766000000000 door true", "1766000001000 temperature 2", "1766000009000 temperature 9"},
		"b": {"1766000000000 temperature 1", "1766000000000 door true", "1766000001000 temperature 2", "1766000002000 temperature 3", "1766000009000 temperature 9"},
	}
	for _, key := range keys {
		t.Run(strings.ReplaceAll(key, "/", "_"), func(t *testing.T) {
			r := past(t)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			r.stores.Catalog = &spoiled{r.stores.Catalog, key}
			for range 2 {
				r.start()
				for i, id := range []string{"a", "b"} {
					c := r.connect(dev.ID(id))
					next := uint64(3 + i)
					w := c.hello("st1", next+1, next)
					if w.Ack >= next {
						next = w.Ack + 1 // the second time
					} else if w.Ack != next-1 {
						t.Errorf("%s: the hub acknowledges %d, want %d", id, w.Ack, next-1)
					}
					if w.Schema == wire.SchemaNeed {
						t.Errorf("%s: the schema is lost", id)
					}
					c.send(`{"m":"data","s":%d,"t":%d,"r":[[1,9000,9]]}`, next, t0)
					c.ack(next)
					if got := r.readings(dev.ID(id)); !slices.Equal(got, want[id]) {
						t.Errorf("%s: got %q, want %q", id, got, want[id])
					}
					if fresh := r.connect(dev.ID(id)).hello("st2-"+time.Now().String(), 1, 1); fresh.Ack != 0 {
						t.Errorf("%s: a new stream begins at %d", id, fresh.Ack)
					}
				}
				if err := r.stop(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
