package api

import (
	"context"
	"errors"
	"fmt"
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
	hub.HistoryQuery
	// only is the number of the version of the metric that is asked for, zero for all metrics in all versions.
	only uint32
	// newest are the numbers of the metrics' newest versions.
	newest map[uint32]bool
	zone   *time.Location
	limit  int // points or rows; zero means all
	step   time.Duration
	agg    string
}

// newQuery reads the parameters. Its errors are faults that say what to change.
func (a *API) newQuery(ctx context.Context, in *readingsInput) (*query, error) {
	q := &query{limit: in.Limit, agg: in.Agg, newest: map[uint32]bool{}}
	q.Device, q.Metric = device.ID(in.ID), in.Metric
	var err error
	if q.zone, err = parseZone(in.TZ); err != nil {
		return nil, faultf(http.StatusUnprocessableEntity, "tz: %v.", err)
	}
	if q.FromMS, q.ToMS, err = parseRange(in.From, in.To, q.zone); err != nil {
		return nil, faultf(http.StatusUnprocessableEntity, "%s", sentence(err.Error()))
	}
	q.FromMS, q.ToMS = min(max(q.FromMS, firstMS), lastMS), min(max(q.ToMS, firstMS), lastMS)
	if err := q.setStep(in.Step); err != nil {
		return nil, err
	}
	return q, a.setMetric(ctx, q, in.Version)
}

// setMetric finds out which versions of which metrics are asked for. Versions differ in unit or kind, so that they must not be
// joined in one line: one metric is answered in its newest version unless another is named.
func (a *API) setMetric(ctx context.Context, q *query, version uint32) error {
	info, err := a.Hub.Device(ctx, q.Device)
	if err != nil {
		return err
	}
	for i := range info.Metrics {
		m := &info.Metrics[i]
		q.newest[m.Num] = true
		if m.Name == q.Metric {
			q.only = m.Num
		}
	}
	switch {
	case q.Metric == "" && version != 0:
		return faultf(http.StatusUnprocessableEntity, "version needs a metric.")
	case q.Metric != "" && q.only == 0:
		return hub.ErrUnknownMetric
	case version != 0:
		q.only = version
	}
	return nil
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

// columns are the metrics of a table, in the order of their registration.
type columns struct {
	metrics []device.Metric
	place   map[uint32]int // by number
}

func (q *query) columns(info *hub.HistoryInfo) *columns {
	c := &columns{place: map[uint32]int{}}
	for _, m := range info.Versions {
		if q.only == 0 || m.Num == q.only {
			c.place[m.Num] = len(c.metrics)
			c.metrics = append(c.metrics, m)
		}
	}
	return c
}

// find returns the column of a metric, and a new one for a metric that the catalog has lost.
func (c *columns) find(m *device.Metric) int {
	at, ok := c.place[m.Num]
	if !ok {
		at = len(c.metrics)
		c.place[m.Num] = at
		c.metrics = append(c.metrics, *m)
	}
	return at
}

// name is the heading of a column: the metric's name, and for a version that is not the newest what tells it apart.
func (q *query) name(m *device.Metric) string {
	if q.only != 0 || q.newest[m.Num] || m.Num == 0 {
		return m.Name
	}
	return fmt.Sprintf("%s (%s, %s)", m.Name, m.Unit, m.Kind)
}

// sink takes the answer to a query: begin once, then row for each time at which there is a value, oldest first, with the values
// of all columns, absent ones zero. The values must not be kept. A row that returns false ends the answer.
type sink interface {
	begin(c *columns)
	row(t int64, values []device.Value) bool
}

// run answers a query into a sink. It returns an error that wraps storage.ErrCorrupt if everything intact was answered but
// something is damaged.
func (a *API) run(ctx context.Context, q *query, out sink) error {
	var (
		info hub.HistoryInfo
		t    *table
	)
	err := a.Hub.Readings(ctx, q.HistoryQuery, &info, func(r hub.Reading) bool {
		if t == nil {
			t = newTable(q, &info, out)
		}
		if q.only != 0 && r.Metric.Num != q.only {
			return true
		}
		return t.add(r.TimeMS, t.find(r.Metric), r.Value)
	})
	if err != nil && !errors.Is(err, storage.ErrCorrupt) {
		return err
	}
	if t == nil {
		t = newTable(q, &info, out)
	}
	if len(t.metrics) == 0 && q.only != 0 {
		return faultf(http.StatusNotFound, "The metric %s has no version %d.", q.Metric, q.only)
	}
	t.finish()
	return err
}

// table makes rows from readings that come in order of time, aggregated if the query asks for it.
type table struct {
	*columns
	q     *query
	steps steps
	out   sink

	open    bool
	t       int64
	values  []device.Value
	buckets []bucket
	done    bool
}

func newTable(q *query, info *hub.HistoryInfo, out sink) *table {
	t := &table{columns: q.columns(info), q: q, steps: steps{width: q.step, zone: q.zone}, out: out}
	out.begin(t.columns)
	return t
}

func (t *table) add(at int64, column int, v device.Value) bool {
	if t.q.step > 0 {
		at = t.steps.start(at)
	}
	if t.open && at != t.t && !t.finish() {
		return false
	}
	if !t.open {
		t.open, t.t = true, at
		if len(t.values) != len(t.metrics) {
			t.values, t.buckets = make([]device.Value, len(t.metrics)), make([]bucket, len(t.metrics))
		}
		clear(t.values)
		if t.q.step > 0 {
			clear(t.buckets)
		}
	}
	if column >= len(t.values) { // a metric that the catalog has lost
		t.values = append(t.values, device.Value{})
		t.buckets = append(t.buckets, bucket{})
	}
	if t.q.step > 0 {
		t.buckets[column].add(v)
	} else {
		t.values[column] = v
	}
	return true
}

// finish ends the row that is open, and reports whether the answer goes on.
func (t *table) finish() bool {
	if !t.open || t.done {
		return !t.done
	}
	t.open = false
	if t.q.step > 0 {
		found := false
		for i := range t.buckets {
			if v, ok := t.buckets[i].value(t.q.agg); ok {
				t.values[i], found = v, true
			}
		}
		if !found {
			return true
		}
	}
	t.done = !t.out.row(t.t, t.values)
	return !t.done
}
