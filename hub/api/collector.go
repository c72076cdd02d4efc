package api

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"telemetryhub/hub"
)

// figure is one line of GET /metrics that is read from the hub's status. There is no label per device, so however many
// there are, the number of lines is fixed.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*hub.Status) float64
}

// collector reads the hub's status once per scrape. It is immutable.
type collector struct {
	status  func() hub.Status
	figures []figure
	cursors []cursorFigure
}

// cursorFigure is one line for each outside cursor; there are few, and only the hub's configuration makes them.
type cursorFigure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	read func(*hub.CursorStatus) float64
}

func newCollector(status func() hub.Status) *collector {
	c := &collector{status: status}
	gauge := func(name, help string, read func(*hub.Status) float64) {
		c.figures = append(c.figures, figure{prometheus.NewDesc("hub_"+name, help, nil, nil), prometheus.GaugeValue, read})
	}
	counter := func(name, help string, read func(*hub.Status) uint64) {
		c.figures = append(c.figures, figure{prometheus.NewDesc("hub_"+name, help, nil, nil), prometheus.CounterValue,
			func(s *hub.Status) float64 { return float64(read(s)) }})
	}
	gauge("ready", "1 if readings are acknowledged now.", func(s *hub.Status) float64 { return truth(s.Ready() == nil) })
	gauge("disk_full", "1 if readings are not taken because there is no room.", func(s *hub.Status) float64 { return truth(s.Full) })
	gauge("read_only", "1 if the disk takes no writes.", func(s *hub.Status) float64 { return truth(s.ReadOnly) })
	gauge("history_stuck", "1 if history files cannot be written and the log grows.", func(s *hub.Status) float64 { return truth(s.HistoryStuck) })
	gauge("devices", "Devices that exist.", func(s *hub.Status) float64 { return float64(s.Devices) })
	gauge("sessions", "Devices that are connected.", func(s *hub.Status) float64 { return float64(s.Sessions) })
	gauge("viewers", "Subscriptions to the live feed.", func(s *hub.Status) float64 { return float64(s.Viewers) })
	gauge("log_bytes", "Size of the log on disk.", func(s *hub.Status) float64 { return float64(s.LogBytes) })
	gauge("history_bytes", "Size of the history files on disk.", func(s *hub.Status) float64 { return float64(s.ChunkBytes) })
	gauge("history_lag_bytes", "Size of the log that is not in history files yet.", func(s *hub.Status) float64 { return float64(s.History.LogBytes) })
	gauge("history_lag_seconds", "How long the oldest reading that is not in history files has waited.",
		func(s *hub.Status) float64 { return s.History.Waiting.Seconds() })
	gauge("head_bytes", "Memory of readings that are not in history files yet.",
		func(s *hub.Status) float64 { return float64(s.History.ActiveBytes + s.History.FrozenBytes) })
	counter("readings_total", "Readings acknowledged.", func(s *hub.Status) uint64 { return s.Readings })
	counter("commits_total", "Groups written to the log.", func(s *hub.Status) uint64 { return s.Commits })
	counter("committed_bytes_total", "Size of the groups written to the log.", func(s *hub.Status) uint64 { return s.CommittedBytes })
	counter("duplicates_total", "Batches that had been stored before.", func(s *hub.Status) uint64 { return s.Duplicates })
	counter("gaps_total", "Losses recorded.", func(s *hub.Status) uint64 { return s.Gaps })
	counter("refused_readings_total", "Readings that could not be taken.", func(s *hub.Status) uint64 { return s.Refused })
	counter("replaced_sessions_total", "Connections replaced by a newer one of the same device.", func(s *hub.Status) uint64 { return s.Replaced })
	counter("history_flushes_total", "Flushes into history files.", func(s *hub.Status) uint64 { return s.Flushes })
	counter("history_lost_total", "Damaged records that left a gap.", func(s *hub.Status) uint64 { return s.History.Lost })
	cursor := func(name, help string, kind prometheus.ValueType, read func(*hub.CursorStatus) float64) {
		desc := prometheus.NewDesc("hub_cursor_"+name, help, []string{"cursor"}, nil)
		c.cursors = append(c.cursors, cursorFigure{desc, kind, read})
	}
	cursor("lag_groups", "Groups of the log that have not been handed on.", prometheus.GaugeValue,
		func(s *hub.CursorStatus) float64 { return float64(s.LagGroups) })
	cursor("lag_bytes", "Size of the log that has not been handed on.", prometheus.GaugeValue,
		func(s *hub.CursorStatus) float64 { return float64(s.LagBytes) })
	cursor("lag_seconds", "How long the oldest reading that has not been handed on has waited.", prometheus.GaugeValue,
		func(s *hub.CursorStatus) float64 { return s.Lag(time.Now()).Seconds() })
	cursor("skipped_ranges_total", "Losses because too much had not been handed on.", prometheus.CounterValue,
		func(s *hub.CursorStatus) float64 { return float64(s.Skipped.Ranges) })
	cursor("skipped_bytes_total", "Size of the log that was lost that way.", prometheus.CounterValue,
		func(s *hub.CursorStatus) float64 { return float64(s.Skipped.Bytes) })
	return c
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		ch <- f.desc
	}
	for _, f := range c.cursors {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	for _, f := range c.figures {
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.read(&s))
	}
	for _, f := range c.cursors {
		for i := range s.Cursors {
			ch <- prometheus.MustNewConstMetric(f.desc, f.kind, f.read(&s.Cursors[i]), s.Cursors[i].Name)
		}
	}
}
