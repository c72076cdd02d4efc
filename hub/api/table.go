package api

import (
	"strconv"

	"telemetryhub/device"
)

// writeCSV answers one row per time, with a column per metric (RFC 4180). Times are ISO 8601 in the zone of the request.
func (a *API) writeCSV(s *stream, q *query) {
	s.contentType = "text/csv; charset=utf-8; header=present"
	s.filename = string(q.device) + ".csv"
	s.buf = append(s.buf, "time"...)
	for _, m := range q.metrics {
		s.buf = append(s.buf, ',')
		s.buf = append(s.buf, m.Name...) // letters, digits and - : . / _ only, and never one of them first
	}
	s.buf = append(s.buf, '\r', '\n')
	damaged := a.writeRows(s, q, func(t int64, values []device.Value) {
		s.buf = appendISO(s.buf, t, q.zone)
		for _, v := range values {
			s.buf = append(s.buf, ',')
			s.buf = appendCSV(s.buf, v)
		}
		s.buf = append(s.buf, '\r', '\n')
	}, func(int64) {})
	if damaged != nil {
		a.damage(damaged)
		if !s.begun {
			s.send()
		}
		s.fail(nil)
	}
	s.end()
}

// writeNDJSON answers one object a line: {"t":…,"v":{"<metric>":value,…}}, which can be sent to a hub as it is. A line {"next":t}
// stands at the end if the limit cut the answer short, and a line {"damage":"…"} if readings are missing from it.
func (a *API) writeNDJSON(s *stream, q *query) {
	s.contentType = "application/x-ndjson"
	names := make([][]byte, len(q.metrics))
	for i := range q.metrics {
		names[i] = append(appendJSONText(nil, q.metrics[i].Name), ':')
	}
	damaged := a.writeRows(s, q, func(t int64, values []device.Value) {
		s.buf = append(s.buf, `{"t":`...)
		s.buf = strconv.AppendInt(s.buf, t, 10)
		s.buf = append(s.buf, `,"v":{`...)
		first := true
		for i, v := range values {
			if v.Type == device.Absent {
				continue
			}
			if !first {
				s.buf = append(s.buf, ',')
			}
			first = false
			s.buf = append(s.buf, names[i]...)
			s.buf = appendJSON(s.buf, v)
		}
		s.buf = append(s.buf, '}', '}', '\n')
	}, func(next int64) {
		s.buf = append(s.buf, `{"next":`...)
		s.buf = strconv.AppendInt(s.buf, next, 10)
		s.buf = append(s.buf, '}', '\n')
	})
	if damaged != nil {
		s.buf = append(s.buf, `{"damage":`...)
		s.buf = appendJSONText(s.buf, a.damage(damaged))
		s.buf = append(s.buf, '}', '\n')
	}
	s.end()
}

// writeRows calls row for each row up to the limit, and more with the time of the first row beyond it. It returns what was
// found damaged. Errors end the stream.
func (a *API) writeRows(s *stream, q *query, row func(int64, []device.Value), more func(next int64)) (damaged error) {
	count := 0
	err := a.rows(s.ctx, q, &damaged, func(t int64, values []device.Value) bool {
		if q.limit > 0 && count == q.limit {
			more(t)
			return false
		}
		count++
		row(t, values)
		return s.full()
	})
	if err != nil {
		damaged = nil
		s.fail(a.outward(s.ctx, err))
		s.err = err
	}
	return damaged
}
