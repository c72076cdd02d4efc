package hub

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
)

// Limits of what one device may make the hub remember for ever.
const (
	maxSchemas     = 4096    // schemas of one device, over its life
	maxVersions    = 4096    // versions of metrics of one device, over its life
	maxDescribed   = 1 << 17 // metrics in all schemas of one device together, over its life: all that stays in memory
	maxLooseSets   = 16      // sets made on the fly from readings sent by hand
	schemaBurst    = 20      // new schemas at once …
	schemaInterval = 10 * time.Second
)

// schemaBook holds the registered schemas of one device. It is guarded by entity.mu, but the schemas themselves are
// immutable and numbers are looked up without the lock. Most devices have one, so there are no maps.
type schemaBook struct {
	shared *schemaPool
	list   atomic.Pointer[[]*device.Schema] // position = number - 1, nil where the catalog lost one
	// metrics holds every version, position = number - 1, as last described. It may be a schema's own list: it is replaced,
	// never changed in place.
	metrics   []device.Metric
	described int           // metrics in all schemas together
	limit     *rate.Limiter // nil until the first new schema
}

// schemaPool lets devices that declare the same share one copy. It only grows: whatever is in it is in use by a device.
type schemaPool struct {
	mu       sync.Mutex // guards the fields below
	byHash   map[[sha256.Size]byte]*sharedSchema
	bySchema map[*device.Schema]*sharedSchema
}

func newSchemaPool() *schemaPool {
	return &schemaPool{byHash: map[[sha256.Size]byte]*sharedSchema{}, bySchema: map[*device.Schema]*sharedSchema{}}
}

type sharedSchema struct {
	*device.Schema
	index *wire.Index // nil until a device uses it
}

// share returns the copy of s that all devices use; record is what the catalog holds of it.
func (p *schemaPool) share(s *device.Schema, record []byte) *device.Schema {
	key := sha256.Sum256(binary.LittleEndian.AppendUint32(slices.Clip(record), s.Num))
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.byHash[key]; old != nil {
		return old.Schema
	}
	p.byHash[key] = &sharedSchema{Schema: s}
	p.bySchema[s] = p.byHash[key]
	return s
}

// index returns the index of a schema that share has returned.
func (p *schemaPool) index(s *device.Schema) (*wire.Index, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	shared := p.bySchema[s]
	if shared.index == nil {
		x, err := wire.NewIndex(s)
		if err != nil {
			return nil, err
		}
		shared.index = x
	}
	return shared.index, nil
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
func (e *entity) bookLocked(ctx context.Context, r *registry) (*schemaBook, error) {
	if b := e.book.Load(); b != nil {
		return b, nil
	}
	b := &schemaBook{shared: r.schemas}
	b.list.Store(&[]*device.Schema{})
	var bad error
	prefix := fmt.Sprintf("%s%08x/", keySchema, e.num)
	err := r.catalog.List(ctx, prefix, func(it storage.Item) bool {
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
		b.add(s, it.Value)
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return nil, fmt.Errorf("load the schemas of %s: %w", e.id, err)
	}
	e.book.Store(b)
	return b, nil
}

// add enters a schema whose numbers are all set; record is what the catalog holds of it. Numbers may be missing in the
// sequence where the catalog lost some.
func (b *schemaBook) add(s *device.Schema, record []byte) *device.Schema {
	s = b.shared.share(s, record)
	list := slices.Clone(*b.list.Load())
	for uint32(len(list)) < s.Num {
		list = append(list, nil)
	}
	list[s.Num-1] = s
	b.described += len(s.Metrics)
	b.list.Store(&list)
	inOrder := len(b.metrics) == 0
	for i := range s.Metrics {
		inOrder = inOrder && s.Metrics[i].Num == uint32(i)+1
	}
	if inOrder {
		b.metrics = slices.Clip(s.Metrics)
		return s
	}
	metrics := slices.Clone(b.metrics)
	for _, m := range s.Metrics {
		for uint32(len(metrics)) < m.Num {
			metrics = append(metrics, device.Metric{})
		}
		metrics[m.Num-1] = m
	}
	b.metrics = slices.Clip(metrics)
	return s
}

// newest returns the newest schema that fits, or nil.
func (b *schemaBook) newest(fits func(*device.Schema) bool) *device.Schema {
	for _, s := range slices.Backward(*b.list.Load()) {
		if s != nil && fits(s) {
			return s
		}
	}
	return nil
}

// byID returns the newest schema that the device calls so. Those made on the fly have no ID.
func (b *schemaBook) byID(id string) *device.Schema {
	return b.newest(func(s *device.Schema) bool { return s.ID == id })
}

// loose returns the newest schema made on the fly, and declared the newest that a birth declared.
func (b *schemaBook) loose() *device.Schema { return b.byID("") }
func (b *schemaBook) declared() *device.Schema {
	return b.newest(func(s *device.Schema) bool { return s.ID != "" })
}

// sets returns the numbers of all sets by their metrics.
func (b *schemaBook) sets() map[string]uint32 {
	sets := map[string]uint32{}
	for _, s := range *b.list.Load() {
		if s == nil {
			continue
		}
		for i := range s.Sets {
			sets[setKey(s, &s.Sets[i])] = s.Sets[i].Num
		}
	}
	return sets
}

func setKey(s *device.Schema, set *device.Set) string {
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

func (e *entity) register(ctx context.Context, r *registry, s *device.Schema) (*device.Schema, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.registerLocked(ctx, r, s)
}

// registerLocked gives numbers to s, which must have passed wire.CheckSchema, and makes it durable before it returns. A schema
// that is registered already is returned as it is.
func (e *entity) registerLocked(ctx context.Context, r *registry, s *device.Schema) (*device.Schema, error) {
	b, err := e.bookLocked(ctx, r)
	if err != nil {
		return nil, err
	}
	if old := b.byID(s.ID); old != nil && same(old, s) {
		return old, nil
	}
	if len(*b.list.Load()) >= maxSchemas || len(b.metrics)+len(s.Metrics) > maxVersions ||
		b.described+len(s.Metrics) > maxDescribed {
		return nil, &BadInput{Code: "schemas", Text: fmt.Sprintf("this device has declared %d schemas and %d metrics, more are not accepted: delete the device and add it under a new ID", len(*b.list.Load()), len(b.metrics))}
	}
	if b.limit == nil {
		b.limit = rate.NewLimiter(rate.Every(schemaInterval), schemaBurst)
	}
	if !b.limit.Allow() {
		return nil, &BadInput{Code: "rate", Text: fmt.Sprintf("new metrics or schemas come too fast: at most %d at once and one every %v", schemaBurst, schemaInterval)}
	}
	n := *s
	n.Num = uint32(len(*b.list.Load())) + 1
	n.Metrics, n.Sets = slices.Clone(s.Metrics), slices.Clone(s.Sets)
	next := uint32(len(b.metrics))
	var changes []string
	for i := range n.Metrics {
		if n.Metrics[i].Num = b.version(&n.Metrics[i]); n.Metrics[i].Num == 0 {
			if old := b.named(n.Metrics[i].Name); old != nil {
				changes = append(changes, changeText(old, &n.Metrics[i]))
			}
			next++
			n.Metrics[i].Num = next
		}
	}
	sets := b.sets()
	nextSet := uint32(0)
	for _, num := range sets {
		nextSet = max(nextSet, num)
	}
	for i := range n.Sets {
		key := setKey(&n, &n.Sets[i])
		if sets[key] == 0 {
			nextSet++
			sets[key] = nextSet
		}
		n.Sets[i].Num = sets[key]
	}
	v, err := json.Marshal(toRecord(&n))
	if err != nil {
		return nil, fmt.Errorf("register a schema of %s: %w", e.id, err)
	}
	if _, err := r.catalog.Put(ctx, schemaKey(e.num, n.Num), v, storage.Absent); err != nil {
		return nil, fmt.Errorf("register a schema of %s: %w", e.id, err)
	}
	for _, text := range changes {
		e.noteLocked(DeviceEvent{TimeMS: time.Now().UnixMilli(), Level: "warn", Code: eventChanged, Text: text})
	}
	return b.add(&n, v), nil
}

// named returns the newest version of a metric, or nil.
func (b *schemaBook) named(name string) *device.Metric {
	for i := len(b.metrics) - 1; i >= 0; i-- {
		if b.metrics[i].Num != 0 && b.metrics[i].Name == name {
			return &b.metrics[i]
		}
	}
	return nil
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
		b, err = e.bookLocked(ctx, r)
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
