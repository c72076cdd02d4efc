package api

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/storage"
)

// Bounds of a range without ends, in Unix milliseconds: everything that a reading's time can be lies between them.
const (
	firstMS = 0
	lastMS  = 253_402_300_800_000 // the year 10000
)

// query is a request for history that has been understood.
type query struct {
	device  device.ID
	metrics []hub.MetricInfo
	fromMS  int64
	toMS    int64
	zone    *time.Location
	limit   int // rows; zero means all
	step    time.Duration
	agg     string
}

// newQuery reads the parameters. Its errors are faults that say what to change.
func (a *API) newQuery(ctx context.Context, in *readingsInput) (*query, error) {
	id, err := device.ParseID(in.ID)
	if err != nil {
		return nil, hub.ErrUnknownDevice
	}
	q := &query{device: id, limit: in.Limit, agg: in.Agg}
	if q.zone, err = parseZone(in.TZ); err != nil {
		return nil, faultf(http.StatusUnprocessableEntity, "tz: %v.", err)
	}
	if q.fromMS, q.toMS, err = parseRange(in.From, in.To, q.zone); err != nil {
		return nil, faultf(http.StatusUnprocessableEntity, "%s", sentence(err.Error()))
	}
	q.fromMS, q.toMS = min(max(q.fromMS, firstMS), lastMS), min(max(q.toMS, firstMS), lastMS)
	if err := q.setStep(in.Step); err != nil {
		return nil, err
	}
	info, err := a.Hub.Device(ctx, id)
	if err != nil {
		return nil, err
	}
	if q.metrics = info.Metrics; in.Metric != "" {
		q.metrics = pick(info.Metrics, in.Metric)
		if q.metrics == nil {
			return nil, hub.ErrUnknownMetric
		}
	}
	return q, nil
}

func (q *query) setStep(step string) error {
	switch {
	case step == "" && q.agg == "":
		return nil
	case step == "":
		return faultf(http.StatusUnprocessableEntity, "agg needs a step, as step=5m.")
	case q.agg == "":
		q.agg = "avg"
	}
	var err error
	if q.step, err = parseStep(step); err != nil {
		return faultf(http.StatusUnprocessableEntity, "step: %v.", err)
	}
	if err = checkAggregate(q.agg); err != nil {
		return faultf(http.StatusUnprocessableEntity, "agg: %v.", err)
	}
	return nil
}

func pick(metrics []hub.MetricInfo, name string) []hub.MetricInfo {
	for i := range metrics {
		if metrics[i].Name == name {
			return metrics[i : i+1]
		}
	}
	return nil
}

// points returns the readings of one metric, or its aggregates, in order of time. An error ends the sequence; *damaged is set if
// some readings could not be read because they are damaged.
func (a *API) points(ctx context.Context, q *query, metric string, damaged *error) iter.Seq2[point, error] {
	return func(yield func(point, error) bool) {
		more := true
		emit := func(t int64, v device.Value) bool {
			more = yield(point{t, v}, nil)
			return more
		}
		take, finish := emit, func() bool { return true }
		if q.step > 0 {
			agg := &aggregator{steps: steps{width: q.step, zone: q.zone}, agg: q.agg, emit: emit}
			take, finish = agg.add, agg.flush
		}
		_, err := a.Hub.Readings(ctx, hub.HistoryQuery{Device: q.device, Metric: metric, FromMS: q.fromMS, ToMS: q.toMS},
			func(r hub.Reading) bool { return take(r.TimeMS, r.Value) })
		if !more {
			return
		}
		if err == nil || errors.Is(err, storage.ErrCorrupt) {
			if err != nil {
				*damaged = errors.Join(*damaged, fmt.Errorf("%s: %w", metric, err))
			}
			finish()
			return
		}
		yield(point{}, err)
	}
}

// point is one value of one metric at one time.
type point struct {
	t int64
	v device.Value
}

// column is one metric of a table that is being read.
type column struct {
	head point
	err  error
	ok   bool // head is a point that has not been taken
	next func() (point, error, bool)
	stop func()
}

func (c *column) advance() { c.head, c.err, c.ok = c.next() }

// rows calls yield for each time at which at least one metric has a value, in order, with the values of all metrics; absent ones
// are zero. The values must not be kept. It holds a few chunks of each metric, however long the table is.
func (a *API) rows(ctx context.Context, q *query, damaged *error, yield func(t int64, values []device.Value) bool) error {
	cols := make([]column, len(q.metrics))
	defer func() {
		for i := range cols {
			if cols[i].stop != nil {
				cols[i].stop()
			}
		}
	}()
	for i := range cols {
		c := &cols[i]
		c.next, c.stop = iter.Pull2(a.points(ctx, q, q.metrics[i].Name, damaged))
		c.advance()
	}
	values := make([]device.Value, len(cols))
	for {
		t, any := int64(0), false
		for i := range cols {
			c := &cols[i]
			if c.ok && c.err != nil {
				return c.err
			}
			if c.ok && (!any || c.head.t < t) {
				t, any = c.head.t, true
			}
		}
		if !any {
			return nil
		}
		for i := range cols {
			c := &cols[i]
			values[i] = device.Value{}
			if c.ok && c.head.t == t {
				values[i] = c.head.v
				c.advance()
			}
		}
		if !yield(t, values) {
			return nil
		}
	}
}
