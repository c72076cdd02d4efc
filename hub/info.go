package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
	"telemetryhub/storage/history"
)

// Reading is one reading as it is given back.
type Reading struct {
	// Metric describes the version of the metric that it belongs to.
	Metric *device.Metric
	// TimeMS is the time that it is filed under, in Unix milliseconds.
	TimeMS int64
	// OriginalMS is the time that the device gave, if that was not acceptable, else zero.
	OriginalMS int64
	Value      device.Value
	Quality    device.Quality
}

// MetricInfo describes a metric and its newest reading.
type MetricInfo struct {
	device.Metric
	// Latest is nil if there is no reading.
	Latest *Reading
}

// DeviceInfo is what there is to know about a device now.
type DeviceInfo struct {
	ID       device.ID
	Name     string
	Labels   map[string]string
	Position *Place
	Created  time.Time

	Presence  Presence
	Connected bool
	// LastSeen is when the last reading arrived, LastChanged when one last differed from the one before; zero if never.
	LastSeen, LastChanged time.Time
	// Interval is the time expected between readings; zero if it is not known yet.
	Interval time.Duration

	Firmware, Model string
	Events          []DeviceEvent
	// Metrics holds the newest version of each metric, in the order in which they were first seen.
	Metrics []MetricInfo
}

// Device returns one device. Errors: ErrUnknownDevice, and those of storage.Catalog.
func (h *Hub) Device(ctx context.Context, id device.ID) (DeviceInfo, error) {
	e := h.registry.lookup(id)
	if e == nil {
		return DeviceInfo{}, ErrUnknownDevice
	}
	h.waitShown(ctx)
	e.mu.Lock()
	_, err := e.bookLocked(ctx, h.registry)
	e.mu.Unlock()
	if err != nil {
		return DeviceInfo{}, err
	}
	return h.info(e), nil
}

// Devices returns every device, sorted by ID.
func (h *Hub) Devices(ctx context.Context) []DeviceInfo {
	h.waitShown(ctx)
	all := h.registry.all()
	infos := make([]DeviceInfo, len(all))
	for i, e := range all {
		infos[i] = h.info(e)
	}
	return infos
}

func (h *Hub) info(e *entity) DeviceInfo {
	e.mu.Lock()
	d := DeviceInfo{
		ID: e.id, Name: e.rec.Name, Labels: e.rec.Labels, Position: e.rec.Position,
		Created: time.UnixMilli(e.rec.CreatedMS).UTC(), Firmware: e.firmware, Model: e.model,
		Connected: e.session != nil, Events: append([]DeviceEvent(nil), e.events...),
	}
	var metrics []device.Metric
	if b := e.book.Load(); b != nil {
		metrics = append(metrics, b.metrics...)
	}
	e.mu.Unlock()

	l := h.live
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &e.live
	d.Presence = s.presence
	d.LastSeen, d.LastChanged = unixMilli(s.seenMS), unixMilli(s.changedMS)
	d.Interval = time.Duration(s.intervalMS()) * time.Millisecond
	place := map[string]int{}
	for i := range metrics {
		m := &metrics[i]
		if m.Num == 0 {
			continue
		}
		info := MetricInfo{Metric: *m}
		if i < len(s.cells) && s.cells[i].metric != nil {
			c := &s.cells[i]
			info.Latest = &Reading{Metric: c.metric, TimeMS: c.timeMS, Value: c.value, Quality: c.quality}
		}
		at, known := place[m.Name]
		switch {
		case !known:
			place[m.Name] = len(d.Metrics)
			d.Metrics = append(d.Metrics, info)
		case newer(&info, &d.Metrics[at]):
			d.Metrics[at] = info
		}
	}
	return d
}

// newer reports whether version a of a metric, which was registered later, stands before b: not if b has a newer reading.
func newer(a, b *MetricInfo) bool {
	return b.Latest == nil || a.Latest != nil && a.Latest.TimeMS >= b.Latest.TimeMS
}

// HistoryQuery asks for the readings of a device.
type HistoryQuery struct {
	Device device.ID
	// Metric is the name of one metric. Empty means all.
	Metric string
	// FromMS and ToMS bound the time, in Unix milliseconds: From is included, To is not.
	FromMS, ToMS int64
	// Limit ends the answer after so many readings. Zero means no limit.
	Limit int
}

// HistoryInfo describes what a query is about.
type HistoryInfo struct {
	// Versions are the versions of the metric, the newest last, or all metrics if the query named none.
	Versions []device.Metric
}

// Readings calls yield for each reading that q asks for, by time, until yield returns false. The info is complete before
// the first call. Everything acknowledged before the call is in the
// answer. Errors: ErrUnknownDevice, ErrUnknownMetric, ErrBehind, *BadInput; one that wraps storage.ErrCorrupt comes after all
// that is intact, and Gaps names what is missing.
func (h *Hub) Readings(ctx context.Context, q HistoryQuery, info *HistoryInfo, yield func(Reading) bool) error {
	e := h.registry.lookup(q.Device)
	if e == nil {
		return ErrUnknownDevice
	}
	if q.Limit < 0 || q.FromMS > q.ToMS {
		return &BadInput{Text: "from must not be after to, and limit must not be negative"}
	}
	if err := h.caughtUp(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	b, err := e.bookLocked(ctx, h.registry)
	var all []device.Metric
	if err == nil {
		all = append(all, b.metrics...)
	}
	e.mu.Unlock()
	if err != nil {
		return err
	}
	hq := history.Query{Device: e.num, FromMS: q.FromMS, ToMS: q.ToMS, Limit: q.Limit}
	info.Versions = nil
	for i := range all {
		if all[i].Num != 0 && (q.Metric == "" || all[i].Name == q.Metric) {
			info.Versions = append(info.Versions, all[i])
			if q.Metric != "" {
				hq.Metrics = append(hq.Metrics, all[i].Num)
			}
		}
	}
	if q.Metric != "" && len(hq.Metrics) == 0 {
		return ErrUnknownMetric
	}
	return h.history.Points(ctx, hq, func(p history.Point) bool {
		r := Reading{TimeMS: p.TimeMS, Value: p.Value, Quality: p.Quality}
		if p.Replaced {
			r.OriginalMS = p.OriginalMS
		}
		if i := int(p.Metric) - 1; i >= 0 && i < len(all) {
			r.Metric = &all[i]
		} else {
			r.Metric = &lostMetric
		}
		r.Quality = ownQuality(r.Metric, &r.Value, r.Quality)
		return yield(r)
	})
}

// ownQuality returns the quality of one value of a row. A row is flagged out of range if any of its values is.
func ownQuality(m *device.Metric, v *device.Value, row device.Quality) device.Quality {
	q := row &^ device.OutOfRange
	if row&device.OutOfRange != 0 && v.Type == device.Number && !m.Plausible(v.Float()) {
		q |= device.OutOfRange
	}
	return q
}

// waitShown waits until the live state shows what is durable now, which takes a moment, but never long: the newest values
// of a moment ago are still true.
func (h *Hub) waitShown(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_ = h.shown.wait(ctx, h.tail.end()) // see above
}

// catchUpTimeout bounds how long an answer waits for the history to take up what was acknowledged before the question.
const catchUpTimeout = 5 * time.Second

// caughtUp waits until the history knows everything that is durable now, so that what was acknowledged is in every answer.
func (h *Hub) caughtUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, catchUpTimeout, ErrBehind)
	defer cancel()
	return h.applied.wait(ctx, h.tail.end())
}

// lostMetric stands for a metric whose description the catalog has lost. It is never changed.
var lostMetric = device.NewMetric("unknown")

// Gaps returns the ranges in [fromMS, toMS) in which readings of a device are known to be missing, by time.
func (h *Hub) Gaps(ctx context.Context, id device.ID, fromMS, toMS int64) ([]history.Gap, error) {
	e := h.registry.lookup(id)
	if e == nil {
		return nil, ErrUnknownDevice
	}
	if err := h.caughtUp(ctx); err != nil {
		return nil, err
	}
	gaps, err := h.history.Gaps(ctx, e.num, fromMS, toMS)
	if err != nil && !errors.Is(err, storage.ErrCorrupt) {
		err = fmt.Errorf("read the gaps of %s: %w", id, err)
	}
	return gaps, err
}
