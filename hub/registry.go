package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// Keys in the catalog. Numbers are written in fixed-width hexadecimal, so that a prefix selects one device.
const (
	keyDevice = "device/" // device/<id>
	keySchema = "schema/" // schema/<device number>/<schema number>
	keyStream = "stream/" // stream/<device number>/<stream id> → number
	keySeq    = "seq/"    // seq/<device number>/<stream number> → greatest sequence number at a checkpoint
)

// recordVersion is the format of the JSON values below; a greater one is refused.
const recordVersion = 1

// deviceRecord is what the catalog holds about a device.
type deviceRecord struct {
	Version   int               `json:"v"`
	Num       uint32            `json:"num"`
	CreatedMS int64             `json:"created"`
	Name      string            `json:"name,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Position  *Place            `json:"position,omitempty"`
	Deleted   bool              `json:"deleted,omitempty"`
	Dropped   bool              `json:"dropped,omitempty"` // the history of a deleted device is gone
}

// registry is what the hub knows about devices. Devices stay in memory; their schemas are loaded when they are used.
type registry struct {
	catalog storage.Catalog
	schemas *schemaPool

	mu    sync.RWMutex // guards the fields below; the entities have locks of their own
	byID  map[device.ID]*entity
	byNum map[uint32]*entity
	last  uint32 // greatest number given
}

// openRegistry loads every device.
func openRegistry(ctx context.Context, c storage.Catalog) (*registry, error) {
	r := &registry{catalog: c, schemas: newSchemaPool(), byID: map[device.ID]*entity{}, byNum: map[uint32]*entity{}}
	var bad error
	err := c.List(ctx, keyDevice, func(it storage.Item) bool {
		var rec deviceRecord
		if bad = decodeRecord(it, &rec, func() int { return rec.Version }); bad != nil {
			return false
		}
		r.put(newEntity(device.ID(it.Key[len(keyDevice):]), rec, it.Revision))
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("load devices: %w", err)
	}
	return r, nil
}

func decodeRecord(it storage.Item, into any, version func() int) error {
	if err := json.Unmarshal(it.Value, into); err != nil {
		return fmt.Errorf("catalog key %s: %w: %w", it.Key, storage.ErrCorrupt, err)
	}
	if v := version(); v > recordVersion {
		return fmt.Errorf("catalog key %s has format %d: %w", it.Key, v, storage.ErrNewerFormat)
	}
	return nil
}

func (r *registry) put(e *entity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.byID[e.id] = e
	r.byNum[e.num] = e
	r.last = max(r.last, e.num)
}

// lookup returns the device, or nil if there is none. A deleted device is none.
func (r *registry) lookup(id device.ID) *entity {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.byID[id]; e != nil && !e.deleted.Load() {
		return e
	}
	return nil
}

// number returns the device of that number, deleted or not, or nil.
func (r *registry) number(num uint32) *entity {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byNum[num]
}

// all returns the devices that are not deleted, sorted by ID.
func (r *registry) all() []*entity {
	r.mu.RLock()
	list := make([]*entity, 0, len(r.byID))
	for _, e := range r.byID {
		if !e.deleted.Load() {
			list = append(list, e)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(a, b *entity) int { return cmp.Compare(a.id, b.id) })
	return list
}

// gone returns the devices that are deleted.
func (r *registry) gone() (list []*entity) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, e := range r.byID {
		if e.deleted.Load() {
			list = append(list, e)
		}
	}
	return list
}

// add creates a device. Its number is the next after the greatest: records of deleted devices are kept, so a number that
// anything durable may refer to is never given twice.
func (r *registry) add(ctx context.Context, id device.ID, attrs DeviceAttrs, now time.Time) (*entity, error) {
	r.mu.RLock()
	old := r.byID[id]
	r.mu.RUnlock()
	if old != nil {
		if old.deleted.Load() {
			return nil, ErrDeleted
		}
		return nil, ErrExists
	}
	r.mu.Lock()
	r.last++
	num := r.last
	r.mu.Unlock()

	rec := deviceRecord{
		Version: recordVersion, Num: num, CreatedMS: now.UnixMilli(),
		Name: attrs.Name, Labels: attrs.Labels, Position: attrs.Position,
	}
	v, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("add device %s: %w", id, err)
	}
	rev, err := r.catalog.Put(ctx, keyDevice+string(id), v, storage.Absent)
	if errors.Is(err, storage.ErrConflict) {
		return nil, ErrExists
	}
	if err != nil {
		return nil, fmt.Errorf("add device %s: %w", id, err)
	}
	e := newEntity(id, rec, rev)
	r.put(e)
	return e, nil
}
