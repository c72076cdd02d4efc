package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/storage"
	"telemetryhub/storage/history"
)

// readingsInput holds the parameters of a request for history.
type readingsInput struct {
	ID      string `path:"id" doc:"Device ID"`
	Metric  string `query:"metric" maxLength:"64" doc:"Name of the metric. Needed for JSON; CSV and NDJSON without it have all metrics of the device."`
	Version uint32 `query:"version" doc:"Number of a version of the metric, from versions in an earlier answer. Absent means the newest."`
	From    string `query:"from" maxLength:"64" doc:"First time: Unix milliseconds or RFC 3339; a time without an offset is read in tz. Absent means from the beginning."`
	To      string `query:"to" maxLength:"64" doc:"Time before which to end, as from. Absent means to the newest."`
	TZ      string `query:"tz" maxLength:"64" doc:"Time zone (IANA) for times without an offset, for steps of days, and for the times in CSV. Absent means UTC."`
	Limit   int    `query:"limit" minimum:"0" maximum:"1000000000" doc:"Greatest number of points or rows. 0 means all. If there are more, next says where to go on."`
	Step    string `query:"step" maxLength:"32" doc:"Width of a step (10s, 5m, 1h, 1d, 1w): answers one aggregate per step. Steps that divide a day, and whole days, follow the calendar of tz."`
	Agg     string `query:"agg" enum:"avg,min,max,sum,count,first,last" doc:"What to make of the readings of a step. Absent means avg."`
	Format  string `query:"format" enum:"json,csv,ndjson" default:"json" doc:"csv: one row per time, a column per metric. ndjson: one object {t, v} per time, then a line with gaps, next or damage if there are any."`
}

func (a *API) readingRoutes() {
	get := huma.Operation{
		OperationID: "read-readings", Method: http.MethodGet, Path: "/api/v1/devices/{id}/readings",
		Summary: "Read the history of a device", Tags: []string{"readings"},
		Description: "Streams the readings of one metric (or, as CSV or NDJSON, of all) in the half-open range [from, to), " +
			"oldest first, each with exactly the value that the device sent. JSON and NDJSON end with the gaps of the range: " +
			"what the device or the hub has lost, as far as it is known; CSV has no place for them. What cannot be read " +
			"because it is damaged on the hub's disk is told: JSON and NDJSON end with damage, and the connection of a CSV " +
			"answer is broken at its end.",
		Responses: map[string]*huma.Response{"200": readingsResponse()},
		Errors:    []int{401, 403, 404, 422, 503},
	}
	register(a, get, a.readings)

	post := huma.Operation{
		OperationID: "send-readings", Method: http.MethodPost, Path: "/api/v1/devices/{id}/readings",
		Summary: "Send readings without a socket", Tags: []string{"readings"}, DefaultStatus: http.StatusNoContent,
		Description: "Takes the forms that are easy by hand: an object of metrics and values, the envelope {t, v}, or a SenML pack " +
			"(an array of records), as JSON or CBOR. The answer comes when they are on disk. If some rows were refused, the " +
			"answer is 200 and lists them; the others are stored.",
		RequestBody:  ingestBody(),
		MaxBodyBytes: maxFrame, SkipValidateBody: true, // the hub reads it
		Errors: []int{400, 401, 403, 404, 413, 415, 422, 503},
	}
	register(a, post, a.ingest)
}

func (a *API) readings(ctx context.Context, in *readingsInput) (*huma.StreamResponse, error) {
	q, err := a.newQuery(ctx, in)
	if err != nil {
		return nil, err
	}
	if in.Format == "json" && in.Metric == "" {
		return nil, faultf(http.StatusUnprocessableEntity,
			"Name a metric, as metric=temperature; format=csv and format=ndjson give all metrics at once.")
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		r, w := humago.Unwrap(hc)
		if r.Method == http.MethodHead {
			return // the length is known only once all has been read
		}
		s := newStream(ctx, w, a.WriteTimeout)
		switch in.Format {
		case "csv":
			a.writeCSV(s, q)
		case "ndjson":
			a.writeNDJSON(s, q)
		default:
			a.writeJSON(s, q)
		}
	}}, nil
}

// pointsSink writes {"device","metric","unit","points":[[t,value],…],…}.
type pointsSink struct {
	s     *stream
	q     *query
	count int
	next  int64 // the first time that the limit left out, negative if there is none
}

func (p *pointsSink) begin(c *columns) {
	buf := append(p.s.buf, `{"device":`...)
	buf = appendJSONText(buf, string(p.q.Device))
	buf = append(buf, `,"metric":`...)
	buf = appendJSONText(buf, p.q.Metric)
	if len(c.metrics) == 1 {
		buf = append(buf, `,"unit":`...)
		buf = appendJSONText(buf, c.metrics[0].Unit)
	}
	p.s.buf = append(buf, `,"points":[`...)
}

func (p *pointsSink) row(t int64, values []device.Value) bool {
	if p.q.limit > 0 && p.count == p.q.limit {
		p.next = t
		return false
	}
	if p.count++; p.count > 1 {
		p.s.buf = append(p.s.buf, ',')
	}
	buf := append(p.s.buf, '[')
	buf = strconv.AppendInt(buf, t, 10)
	buf = append(buf, ',')
	buf = appendJSON(buf, values[0])
	p.s.buf = append(buf, ']')
	return p.s.full()
}

// writeJSON answers {"device","metric","unit","points":[[t,value],…],"gaps":[…]}, versions if there are several, and next if
// there is more.
func (a *API) writeJSON(s *stream, q *query) {
	s.contentType = "application/json"
	out := &pointsSink{s: s, q: q, next: -1}
	tail, err := a.tail(s.ctx, q, a.run(s.ctx, q, out), out.next)
	if err != nil {
		s.fail(a.outward(s.ctx, err))
		return
	}
	tail.Versions = a.versions(s.ctx, q)
	text, err := json.Marshal(tail)
	if err != nil {
		s.fail(a.outward(s.ctx, err))
		return
	}
	s.buf = append(append(append(s.buf, ']', ','), text[1:]...), '\n')
	s.end()
}

// tail returns what is told behind readings that ended with err, before next if that is not negative: their gaps, and damage.
// An error other than damage is returned.
func (a *API) tail(ctx context.Context, q *query, err error, next int64) (tail readingsTail, _ error) {
	if err != nil && !errors.Is(err, storage.ErrCorrupt) {
		return tail, err
	}
	to := q.ToMS
	if next >= 0 {
		to, tail.Next = next, &next
	}
	gaps, unsure := a.Hub.Gaps(ctx, q.Device, q.FromMS, to)
	if unsure != nil && !errors.Is(unsure, storage.ErrCorrupt) {
		return tail, unsure
	}
	tail.Gaps, tail.Damage = gapViews(gaps, err), a.damage(cmp.Or(err, unsure))
	return tail, nil
}

// readingsTail is what follows the points.
type readingsTail struct {
	Gaps     []gapView     `json:"gaps"`
	Versions []versionView `json:"versions,omitempty"`
	Next     *int64        `json:"next,omitempty"`
	Damage   string        `json:"damage,omitempty"`
}

// versionView is one version of a metric.
type versionView struct {
	Version uint32 `json:"version"`
	Unit    string `json:"unit"`
	Kind    string `json:"kind"`
}

// versions returns the versions of the metric if there is more than one.
func (a *API) versions(ctx context.Context, q *query) []versionView {
	var info hub.HistoryInfo
	none := hub.HistoryQuery{Device: q.Device, Metric: q.Metric, FromMS: lastMS, ToMS: lastMS}
	if err := a.Hub.Readings(ctx, none, &info, func(hub.Reading) bool { return false }); err != nil || len(info.Versions) < 2 {
		return nil // the answer itself has told what is wrong
	}
	views := make([]versionView, len(info.Versions))
	for i, m := range info.Versions {
		views[i] = versionView{m.Num, m.Unit, m.Kind.String()}
	}
	return views
}

// damage tells the log what was found, and returns what the caller is told: nothing if there is no damage.
func (a *API) damage(err error) string {
	if err == nil {
		return ""
	}
	a.log.Error("history is damaged, run hub check", "err", err)
	return "Some readings of this range are damaged on the hub's disk and left out. Run hub check on the hub."
}

// gapView is a gap as it is shown. Times are Unix milliseconds; what is not known is absent.
type gapView struct {
	FromMS  int64        `json:"from,omitempty" doc:"First time that is missing, Unix ms"`
	ToMS    int64        `json:"to,omitempty" doc:"Last time that is missing, Unix ms"`
	Count   uint64       `json:"count,omitempty" doc:"Number of lost readings"`
	Cause   device.Cause `json:"cause" doc:"Why: spool_full, damaged, jump, refused, sensor, skipped or other"`
	FromSeq uint64       `json:"from_seq,omitempty" doc:"First sequence number that is missing"`
	ToSeq   uint64       `json:"to_seq,omitempty" doc:"Last sequence number that is missing"`
	Anybody bool         `json:"anybody,omitempty" doc:"The store was damaged, and readings of this device may or may not be among the lost"`
}

// gapViews returns the gaps that are recorded, and those that reading has found.
func gapViews(gaps []history.Gap, damaged error) []gapView {
	var found *history.DamageError
	if errors.As(damaged, &found) {
		gaps = append(slices.Clone(gaps), found.Gaps...)
		slices.SortStableFunc(gaps, func(a, b history.Gap) int { return cmp.Compare(a.FromMS, b.FromMS) })
		gaps = slices.Compact(gaps)
	}
	views := make([]gapView, len(gaps))
	for i, g := range gaps {
		views[i] = gapView{g.FromMS, g.ToMS, g.Count, g.Cause, g.FromSeq, g.ToSeq, g.Anybody}
	}
	return views
}
