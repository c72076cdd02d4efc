package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
)

// Place is where a device stands, in degrees (WGS 84).
type Place struct {
	Lat float64 `json:"lat"`
	Lon float64 `json:"lon"`
}

// DeviceAttrs is what people say about a device.
type DeviceAttrs struct {
	Name     string
	Labels   map[string]string
	Position *Place
}

// DevicePatch changes attributes. A nil field stays as it is; a label with an empty value is removed.
type DevicePatch struct {
	Name     *string
	Labels   map[string]string
	Position **Place
}

// entity is one device: its record in the catalog, what it can measure, its session and its live state.
type entity struct {
	id      device.ID
	num     uint32
	deleted atomic.Bool

	book atomic.Pointer[schemaBook] // nil until the first use

	mu              sync.Mutex // guards the fields below, also while the catalog is written
	rec             deviceRecord
	rev             storage.Revision
	session         *Session
	firmware, model string
	events          []DeviceEvent // the newest last

	newStreams, newEvents *rate.Limiter // nil until the first

	live liveState // guarded by live.mu
}

// connected returns the session of the device, nil if it has none.
func (e *entity) connected() *Session {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.session
}

func newEntity(id device.ID, rec deviceRecord, rev storage.Revision) *entity {
	e := &entity{id: id, num: rec.Num, rec: rec, rev: rev}
	e.deleted.Store(rec.Deleted)
	e.live.name = rec.Name
	return e
}

// maxEvents is how many events of a device are kept to be shown, and how many may come at once.
const maxEvents = 16

// DeviceEvent is something that a device said happened, or that the hub noticed about it. It is kept until the hub stops.
type DeviceEvent struct {
	TimeMS            int64
	Level, Code, Text string
}

// noteEvent keeps an event, and reports whether it did: events that come too fast are dropped.
func (e *entity) noteEvent(ev wire.Event, nowMS int64) bool {
	at := ev.TimeMS
	if wire.Relative(at) {
		at += nowMS
	}
	at, _ = device.Filed(at, nowMS)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.noteLocked(DeviceEvent{TimeMS: at, Level: ev.Level, Code: ev.Code, Text: ev.Msg})
}

// noteLocked keeps an event, and reports whether it did.
func (e *entity) noteLocked(ev DeviceEvent) bool {
	if e.newEvents == nil {
		e.newEvents = rate.NewLimiter(1, maxEvents)
	}
	if !e.newEvents.Allow() {
		return false
	}
	if len(e.events) == maxEvents {
		e.events = slices.Delete(e.events, 0, 1)
	}
	e.events = append(e.events, ev)
	return true
}

// eventChanged is the code of the event that a metric has got a new version.
const eventChanged = "metric_changed"

// changeText says how a metric has changed.
func changeText(old, now *device.Metric) string {
	if old.Kind != now.Kind {
		return fmt.Sprintf("%s was %s in %q, it is %s in %q now: a new line begins", now.Name, old.Kind, old.Unit, now.Kind, now.Unit)
	}
	return fmt.Sprintf("%s was in %q, it is in %q now: a new line begins", now.Name, old.Unit, now.Unit)
}

// mayAddStream reports whether the device may begin another stream now. The caller holds e.mu.
func (e *entity) mayAddStream() bool {
	if e.newStreams == nil {
		e.newStreams = rate.NewLimiter(rate.Every(streamInterval), streamBurst)
	}
	return e.newStreams.Allow()
}

// describe notes what a device says about itself.
func (e *entity) describe(firmware, model string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.firmware, e.model = firmware, model
}

// record returns what the catalog holds about the device.
func (e *entity) record() deviceRecord {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rec
}

// change edits the record and makes the change durable.
func (e *entity) change(ctx context.Context, c storage.Catalog, edit func(*deviceRecord)) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	rec := e.rec
	rec.Labels = maps.Clone(rec.Labels)
	edit(&rec)
	v, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("change device %s: %w", e.id, err)
	}
	rev, err := c.Put(ctx, keyDevice+string(e.id), v, e.rev)
	if err != nil {
		return fmt.Errorf("change device %s: %w", e.id, err)
	}
	e.rec, e.rev = rec, rev
	e.deleted.Store(rec.Deleted)
	return nil
}

// checkAttrs bounds what people may attach to a device, since all of it stays in memory.
func checkAttrs(name string, labels map[string]string) error {
	const maxName, maxLabels, maxLabel = 200, 64, 200
	if len(name) > maxName {
		return &BadInput{Text: fmt.Sprintf("the name is longer than %d bytes", maxName)}
	}
	if len(labels) > maxLabels {
		return &BadInput{Text: fmt.Sprintf("more than %d labels", maxLabels)}
	}
	for k, v := range labels {
		if k == "" || len(k) > maxLabel || len(v) > maxLabel {
			return &BadInput{Text: fmt.Sprintf("label %q: keys have 1 to %d bytes, values at most %d", k, maxLabel, maxLabel)}
		}
	}
	return nil
}

// AddDevice makes a device. Errors: ErrExists, ErrDeleted, *BadInput, and those of storage.Catalog.
func (h *Hub) AddDevice(ctx context.Context, id device.ID, a DeviceAttrs) (DeviceInfo, error) {
	if _, err := device.ParseID(string(id)); err != nil {
		return DeviceInfo{}, &BadInput{Text: err.Error()}
	}
	if err := checkAttrs(a.Name, a.Labels); err != nil {
		return DeviceInfo{}, err
	}
	e, err := h.registry.add(ctx, id, a, time.Now())
	if err != nil {
		return DeviceInfo{}, err
	}
	h.live.deviceChanged(e)
	return h.info(e), nil
}

// UpdateDevice changes what people say about a device. Errors: ErrUnknownDevice, *BadInput, and those of storage.Catalog.
func (h *Hub) UpdateDevice(ctx context.Context, id device.ID, p DevicePatch) (DeviceInfo, error) {
	e := h.registry.lookup(id)
	if e == nil {
		return DeviceInfo{}, ErrUnknownDevice
	}
	var bad error
	err := e.change(ctx, h.catalog, func(rec *deviceRecord) {
		next := *rec
		next.Labels = maps.Clone(rec.Labels) // rec must stay as it is if the change is refused
		if p.Name != nil {
			next.Name = *p.Name
		}
		if p.Position != nil {
			next.Position = *p.Position
		}
		for k, v := range p.Labels {
			if next.Labels == nil {
				next.Labels = map[string]string{}
			}
			if next.Labels[k] = v; v == "" {
				delete(next.Labels, k)
			}
		}
		if bad = checkAttrs(next.Name, next.Labels); bad == nil {
			*rec = next
		}
	})
	if err = errors.Join(bad, err); err != nil {
		return DeviceInfo{}, err
	}
	h.live.deviceChanged(e)
	return h.info(e), nil
}

// DeleteDevice removes a device with all its history and ends its session. Its ID is never given again.
func (h *Hub) DeleteDevice(ctx context.Context, id device.ID) error {
	e := h.registry.lookup(id)
	if e == nil {
		return ErrUnknownDevice
	}
	err := e.change(ctx, h.catalog, func(rec *deviceRecord) {
		*rec = deviceRecord{Version: recordVersion, Num: rec.Num, CreatedMS: rec.CreatedMS, Deleted: true}
	})
	if err != nil {
		return err
	}
	h.Kick(id, wire.CloseRevoked, "the device was deleted")
	h.live.deviceGone(e)
	return h.dropHistory(ctx, e)
}

// dropHistory forgets the history of a deleted device and notes that this is done, so that a start after a crash in
// between does it again.
func (h *Hub) dropHistory(ctx context.Context, e *entity) error {
	err := h.history.DropDevice(ctx, e.num)
	if err == nil {
		err = e.change(ctx, h.catalog, func(rec *deviceRecord) { rec.Dropped = true })
	}
	if err != nil {
		return fmt.Errorf("the device %s is deleted, its history not yet: %w", e.id, err)
	}
	return nil
}
