package hub

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// Limits of what one device may make the hub remember for ever.
const (
	maxSchemas     = 4096 // schemas of one device, over its life
	maxVersions    = 4096 // versions of metrics of one device, over its life
	maxLooseSets   = 16   // sets made on the fly from readings sent by hand
	schemaBurst    = 20   // new schemas at once …
	schemaInterval = 10 * time.Second
)

// schemaBook holds the registered schemas of one device. It is guarded by entity.mu, but the schemas themselves are
// immutable and numbers are looked up without the lock.
type schemaBook struct {
	list     atomic.Pointer[[]*device.Schema] // position = number - 1
	byID     map[string]*device.Schema        // the newest of each ID
	metrics  []device.Metric                  // every version, position = number - 1, as last described
	sets     map[string]uint32                // packed metric numbers → set number
	loose    *device.Schema                   // the newest schema made on the fly, or nil
	declared *device.Schema                   // the newest schema that a birth declared, or nil
	limit    *rate.Limiter
}

// schemaRecord is what the catalog holds about a schema.
type schemaRecord struct {
	Version  int            `json:"v"`
	ID       string         `json:"id"`
	Metrics  []metricRecord `json:"metrics"`
	Sets     []setRecord    `json:"sets,omitempty"`
	Commands []string       `json:"cmds,omitempty"`
}

type metricRecord struct {
	Num      uint32   `json:"num"`
	Alias    uint16   `json:"a,omitempty"`
	Name     string   `json:"n"`
	Unit     string   `json:"u,omitempty"`
	Kind     string   `json:"k"`
	Exp      int8     `json:"x,omitempty"`
	Lo       *float64 `json:"lo,omitempty"`
	Hi       *float64 `json:"hi,omitempty"`
	Interval int64    `json:"iv,omitempty"`
	Class    string   `json:"cls,omitempty"`
	Source   string   `json:"src,omitempty"`
}

type setRecord struct {
	Num     uint32 `json:"num"`
	Index   uint16 `json:"i,omitempty"`
	Metrics []int  `json:"m"`
}

func toRecord(s *device.Schema) schemaRecord {
	rec := schemaRecord{Version: recordVersion, ID: s.ID, Commands: s.Commands}
	limit := func(f float64) *float64 {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil
		}
		return &f
	}
	for _, m := range s.Metrics {
		rec.Metrics = append(rec.Metrics, metricRecord{
			Num: m.Num, Alias: m.Alias, Name: m.Name, Unit: m.Unit, Kind: m.Kind.String(), Exp: m.Exp,
			Lo: limit(m.Lo), Hi: limit(m.Hi), Interval: m.IntervalMS, Class: m.Class, Source: m.Source,
		})
	}
	for _, set := range s.Sets {
		rec.Sets = append(rec.Sets, setRecord{Num: set.Num, Index: set.Index, Metrics: set.Metrics})
	}
	return rec
}

func (rec *schemaRecord) schema(num uint32) (*device.Schema, error) {
	s := &device.Schema{Num: num, ID: rec.ID, Commands: rec.Commands}
	limit := func(f *float64) float64 {
		if f == nil {
			return math.NaN()
		}
		return *f
	}
	for _, m := range rec.Metrics {
		kind, err := device.ParseKind(m.Kind)
		if err != nil {
			return nil, err
		}
		s.Metrics = append(s.Metrics, device.Metric{
			Num: m.Num, Alias: m.Alias, Name: m.Name, Unit: m.Unit, Kind: kind, Exp: m.Exp,
			Lo: limit(m.Lo), Hi: limit(m.Hi), IntervalMS: m.Interval, Class: m.Class, Source: m.Source,
		})
	}
	for _, set := range rec.Sets {
		for _, i := range set.Metrics {
			if i < 0 || i >= len(s.Metrics) {
				return nil, fmt.Errorf("set %d names metric %d of %d", set.Num, i, len(s.Metrics))
			}
		}
		s.Sets = append(s.Sets, device.Set{Num: set.Num, Index: set.Index, Metrics: set.Metrics})
	}
	return s, nil
}

func schemaKey(dev, num uint32) string { return fmt.Sprintf("%s%08x/%08x", keySchema, dev, num) }

// bookLocked returns the schemas of e, loading them at the first use.
func (e *entity) bookLocked(ctx context.Context, c storage.Catalog) (*schemaBook, error) {
	if b := e.book.Load(); b != nil {
		return b, nil
	}
	b := &schemaBook{
		byID: map[string]*device.Schema{}, sets: map[string]uint32{},
		limit: rate.NewLimiter(rate.Every(schemaInterval), schemaBurst),
	}
	b.list.Store(&[]*device.Schema{})
	var bad error
	prefix := fmt.Sprintf("%s%08x/", keySchema, e.num)
	err := c.List(ctx, prefix, func(it storage.Item) bool {
		var num uint32
		if _, bad = fmt.Sscanf(it.Key[len(prefix):], "%08x", &num); bad != nil {
			return false
		}
		var rec schemaRecord
		if bad = decodeRecord(it, &rec, func() int { return rec.Version }); bad != nil {
			return false
		}
		s, err := rec.schema(num)
		if err != nil {
			bad = fmt.Errorf("catalog key %s: %w: %w", it.Key, storage.ErrCorrupt, err)
			return false
		}
		b.add(s)
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("load the schemas of %s: %w", e.id, err)
	}
	e.book.Store(b)
	return b, nil
}

// add enters a schema whose numbers are all set. Numbers may be missing in the sequence where the catalog lost some.
func (b *schemaBook) add(s *device.Schema) {
	list := slices.Clone(*b.list.Load())
	for uint32(len(list)) < s.Num {
		list = append(list, nil)
	}
	list[s.Num-1] = s
	b.list.Store(&list)
	b.byID[s.ID] = s
	if s.ID == "" {
		b.loose = s
	} else {
		b.declared = s
	}
	for _, m := range s.Metrics {
		for uint32(len(b.metrics)) < m.Num {
			b.metrics = append(b.metrics, device.Metric{})
		}
		b.metrics[m.Num-1] = m
	}
	for i := range s.Sets {
		b.sets[b.setKey(s, &s.Sets[i])] = s.Sets[i].Num
	}
}

func (b *schemaBook) setKey(s *device.Schema, set *device.Set) string {
	var key []byte
	for _, i := range set.Metrics {
		key = binary.AppendUvarint(key, uint64(s.Metrics[i].Num))
	}
	return string(key)
}

// same reports whether a and b declare the same, numbers aside.
func same(a, b *device.Schema) bool {
	bare := func(s *device.Schema) []byte {
		rec := toRecord(s)
		for i := range rec.Metrics {
			rec.Metrics[i].Num = 0
		}
		for i := range rec.Sets {
			rec.Sets[i].Num = 0
		}
		v, _ := json.Marshal(rec) // a struct of numbers and strings always marshals
		return v
	}
	return slices.Equal(bare(a), bare(b))
}

// registerLocked gives numbers to s, which must have passed wire.CheckSchema, and makes it durable before it returns. A schema
// that is registered already is returned as it is.
func (e *entity) registerLocked(ctx context.Context, c storage.Catalog, s *device.Schema) (*device.Schema, error) {
	b, err := e.bookLocked(ctx, c)
	if err != nil {
		return nil, err
	}
	if old := b.byID[s.ID]; old != nil && same(old, s) {
		return old, nil
	}
	if len(*b.list.Load()) >= maxSchemas || len(b.metrics)+len(s.Metrics) > maxVersions {
		return nil, &BadInput{Code: "schemas", Text: fmt.Sprintf("this device has declared %d schemas and %d metrics, more are not accepted: delete the device and add it under a new ID", len(*b.list.Load()), len(b.metrics))}
	}
	if !b.limit.Allow() {
		return nil, &BadInput{Code: "rate", Text: fmt.Sprintf("new metrics or schemas come too fast: at most %d at once and one every %v", schemaBurst, schemaInterval)}
	}
	n := *s
	n.Num = uint32(len(*b.list.Load())) + 1
	n.Metrics, n.Sets = slices.Clone(s.Metrics), slices.Clone(s.Sets)
	next := uint32(len(b.metrics))
	for i := range n.Metrics {
		if n.Metrics[i].Num = b.version(&n.Metrics[i]); n.Metrics[i].Num == 0 {
			next++
			n.Metrics[i].Num = next
		}
	}
	nextSet := uint32(len(b.sets))
	for i := range n.Sets {
		num, ok := b.sets[b.setKey(&n, &n.Sets[i])]
		if !ok {
			nextSet++
			num = nextSet
		}
		n.Sets[i].Num = num
	}
	v, err := json.Marshal(toRecord(&n))
	if err != nil {
		return nil, fmt.Errorf("register a schema of %s: %w", e.id, err)
	}
	if _, err := c.Put(ctx, schemaKey(e.num, n.Num), v, storage.Absent); err != nil {
		return nil, fmt.Errorf("register a schema of %s: %w", e.id, err)
	}
	b.add(&n)
	return &n, nil
}

// version returns the number of the metric's version with the same name, unit and kind, or zero.
func (b *schemaBook) version(m *device.Metric) uint32 {
	for i := range b.metrics {
		if b.metrics[i].Num != 0 && b.metrics[i].SameLine(m) {
			return b.metrics[i].Num
		}
	}
	return 0
}

// Schema returns a registered schema. It is what storage/history asks while it reads the log. It does not wait for
// changes of the device, except at the first use of a device.
func (r *registry) Schema(ctx context.Context, dev, num uint32) (*device.Schema, error) {
	e := r.number(dev)
	if e == nil {
		return nil, fmt.Errorf("schema %d of device number %d: %w", num, dev, storage.ErrNotFound)
	}
	b := e.book.Load()
	if b == nil {
		var err error
		e.mu.Lock()
		b, err = e.bookLocked(ctx, r.catalog)
		e.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	if s := b.schema(num); s != nil {
		return s, nil
	}
	return nil, fmt.Errorf("schema %d of %s: %w", num, e.id, storage.ErrNotFound)
}

// schema returns the schema of that number, or nil. It needs no lock.
func (b *schemaBook) schema(num uint32) *device.Schema {
	if list := *b.list.Load(); num >= 1 && num <= uint32(len(list)) {
		return list[num-1]
	}
	return nil
}
