package api

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// csvSink writes one row per time, with a column per metric (RFC 4180). Times are ISO 8601 in the zone of the request.
type csvSink struct {
	s     *stream
	q     *query
	count int
}

func (c *csvSink) begin(cols *columns) {
	c.s.buf = append(c.s.buf, "time"...)
	for i := range cols.metrics {
		c.s.buf = append(c.s.buf, ',')
		if name := c.q.name(&cols.metrics[i]); strings.ContainsAny(name, "\", ") {
			c.s.buf = appendCSVText(c.s.buf, name)
		} else {
			c.s.buf = append(c.s.buf, name...) // letters, digits and - : . / _ only, and a letter or a digit first
		}
	}
	c.s.buf = append(c.s.buf, '\r', '\n')
}

func (c *csvSink) row(t int64, values []device.Value) bool {
	if c.q.limit > 0 && c.count == c.q.limit {
		return false
	}
	c.count++
	c.s.buf = appendISO(c.s.buf, t, c.q.zone)
	for _, v := range values {
		c.s.buf = append(c.s.buf, ',')
		c.s.buf = appendCSV(c.s.buf, v)
	}
	c.s.buf = append(c.s.buf, '\r', '\n')
	return c.s.full()
}

// writeCSV answers as CSV. Nothing in CSV could say that something is missing, so the connection is broken in the end if there
// was damage.
func (a *API) writeCSV(s *stream, q *query) {
	s.contentType = "text/csv; charset=utf-8; header=present"
	s.filename = string(q.Device) + ".csv"
	err := a.run(s.ctx, q, &csvSink{s: s, q: q})
	if err == nil {
		s.end()
		return
	}
	if errors.Is(err, storage.ErrCorrupt) {
		a.damage(err)
		s.send()
	}
	s.fail(a.outward(s.ctx, err))
}

// ndjsonSink writes one object a line: {"t":…,"v":{"<metric>":value,…}}, which can be sent to a hub as it is.
type ndjsonSink struct {
	s     *stream
	q     *query
	names [][]byte
	cols  *columns
	count int
	next  int64 // the first time that the limit left out, negative if there is none
}

func (n *ndjsonSink) begin(cols *columns) { n.cols = cols }

func (n *ndjsonSink) row(t int64, values []device.Value) bool {
	if n.q.limit > 0 && n.count == n.q.limit {
		n.next = t
		return false
	}
	n.count++
	for i := len(n.names); i < len(values); i++ {
		n.names = append(n.names, append(appendJSONText(nil, n.q.name(&n.cols.metrics[i])), ':'))
	}
	buf := append(n.s.buf, `{"t":`...)
	buf = strconv.AppendInt(buf, t, 10)
	buf = append(buf, `,"v":{`...)
	first := true
	for i, v := range values {
		if v.Type == device.Absent {
			continue
		}
		if !first {
			buf = append(buf, ',')
		}
		first = false
		buf = append(buf, n.names[i]...)
		buf = appendJSON(buf, v)
	}
	n.s.buf = append(buf, '}', '}', '\n')
	return n.s.full()
}

// writeNDJSON answers as NDJSON. One more line stands at the end if there is anything to tell of the answer: {"gaps":[…],
// "next":t,"damage":"…"}, those of them that apply.
func (a *API) writeNDJSON(s *stream, q *query) {
	s.contentType = "application/x-ndjson"
	out := &ndjsonSink{s: s, q: q, next: -1}
	tail, err := a.tail(s.ctx, q, a.run(s.ctx, q, out), out.next)
	if err != nil {
		s.fail(a.outward(s.ctx, err))
		return
	}
	line := struct {
		Gaps   []gapView `json:"gaps,omitempty"`
		Next   *int64    `json:"next,omitempty"`
		Damage string    `json:"damage,omitempty"`
	}{tail.Gaps, tail.Next, tail.Damage}
	text, err := json.Marshal(line)
	if err != nil {
		s.fail(a.outward(s.ctx, err))
		return
	}
	if len(text) > len("{}") {
		s.buf = append(append(s.buf, text...), '\n')
	}
	s.end()
}
