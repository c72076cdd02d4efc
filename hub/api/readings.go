package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"telemetryhub/device"
)

// readingsInput holds the parameters of a request for history.
type readingsInput struct {
	ID     string `path:"id" doc:"Device ID"`
	Metric string `query:"metric" maxLength:"64" doc:"Name of the metric. Needed for JSON; CSV and NDJSON without it have all metrics of the device."`
	From   string `query:"from" maxLength:"64" doc:"First time: Unix milliseconds or RFC 3339; a time without an offset is read in tz. Absent means from the beginning."`
	To     string `query:"to" maxLength:"64" doc:"Time before which to end, as from. Absent means to the newest."`
	TZ     string `query:"tz" maxLength:"64" doc:"Time zone (IANA) for times without an offset, for steps of days, and for the times in CSV. Absent means UTC."`
	Limit  int    `query:"limit" minimum:"0" maximum:"1000000000" doc:"Greatest number of points or rows. 0 means all. If there are more, next says where to go on."`
	Step   string `query:"step" maxLength:"32" doc:"Width of a step (10s, 5m, 1h, 1d, 1w): answers one aggregate per step. Steps that divide a day, and whole days, follow the calendar of tz."`
	Agg    string `query:"agg" enum:"avg,min,max,sum,count,first,last" doc:"What to make of the readings of a step. Absent means avg."`
	Format string `query:"format" enum:"json,csv,ndjson" default:"json" doc:"csv: one row per time, a column per metric. ndjson: one object {t, v} per time."`
}

func (a *API) readingRoutes() {
	get := huma.Operation{
		OperationID: "read-readings", Method: http.MethodGet, Path: "/api/v1/devices/{id}/readings",
		Summary: "Read the history of a device", Tags: []string{"readings"},
		Description: "Streams the readings of one metric (or, as CSV or NDJSON, of all) in the half-open range [from, to), " +
			"oldest first, each with exactly the value that the device sent. What could not be read because it is damaged on " +
			"the hub's disk is told: JSON and NDJSON end with damage, and the connection of a CSV answer is broken at its end.",
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
		MaxBodyBytes: maxFrame,
		Errors:       []int{400, 401, 403, 404, 413, 415, 422, 503},
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
		_, w := humago.Unwrap(hc)
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

// writeJSON answers {"device","metric","unit","points":[[t,value],…],"gaps":[…]}, and next if there is more.
func (a *API) writeJSON(s *stream, q *query) {
	s.contentType = "application/json"
	metric := &q.metrics[0]
	s.buf = append(s.buf, `{"device":`...)
	s.buf = appendJSONText(s.buf, string(q.device))
	s.buf = append(s.buf, `,"metric":`...)
	s.buf = appendJSONText(s.buf, metric.Name)
	s.buf = append(s.buf, `,"unit":`...)
	s.buf = appendJSONText(s.buf, metric.Unit)
	s.buf = append(s.buf, `,"points":[`...)
	var damaged error
	count, next := 0, int64(-1)
	for p, err := range a.points(s.ctx, q, metric.Name, &damaged) {
		if err != nil {
			s.fail(a.outward(s.ctx, err))
			return
		}
		if q.limit > 0 && count == q.limit {
			next = p.t
			break
		}
		if count++; count > 1 {
			s.buf = append(s.buf, ',')
		}
		s.buf = append(s.buf, '[')
		s.buf = strconv.AppendInt(s.buf, p.t, 10)
		s.buf = append(s.buf, ',')
		s.buf = appendJSON(s.buf, p.v)
		s.buf = append(s.buf, ']')
		if !s.full() {
			return
		}
	}
	s.buf = append(s.buf, `],"gaps":`...)
	gaps, err := a.gapsJSON(s, q, next)
	if err != nil {
		s.fail(a.outward(s.ctx, err))
		return
	}
	s.buf = append(s.buf, gaps...)
	if next >= 0 {
		s.buf = append(s.buf, `,"next":`...)
		s.buf = strconv.AppendInt(s.buf, next, 10)
	}
	if damaged != nil {
		s.buf = append(s.buf, `,"damage":`...)
		s.buf = appendJSONText(s.buf, a.damage(damaged))
	}
	s.buf = append(s.buf, '}', '\n')
	s.end()
}

// gapsJSON returns the gaps of the part of the range that is answered.
func (a *API) gapsJSON(s *stream, q *query, next int64) ([]byte, error) {
	to := q.toMS
	if next >= 0 {
		to = next
	}
	gaps, err := a.Hub.Gaps(s.ctx, q.device, q.fromMS, to)
	if err != nil {
		return nil, err
	}
	return json.Marshal(gapViews(gaps))
}

// damage tells the log what was found, and returns what the caller is told.
func (a *API) damage(err error) string {
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
}

func gapViews(gaps []device.Gap) []gapView {
	views := make([]gapView, len(gaps))
	for i, g := range gaps {
		views[i] = gapView{g.FromMS, g.ToMS, g.Count, g.Cause, g.FromSeq, g.ToSeq}
	}
	return views
}
