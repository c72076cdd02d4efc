package api

import (
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// figures are what the API counts about itself. Routes are patterns, so their number is bounded.
type figures struct {
	requests *prometheus.CounterVec
}

func newFigures() *figures {
	return &figures{requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "hub", Name: "http_requests_total", Help: "Requests by route and status class; route is empty for addresses that do not exist.",
	}, []string{"route", "method", "code"})}
}

// classes are the status classes.
var classes = [...]string{"other", "1xx", "2xx", "3xx", "4xx", "5xx"}

// request counts one request.
func (f *figures) request(route, method string, status int) {
	if status == 0 {
		status = http.StatusOK // net/http sends that when a handler writes nothing
	}
	f.counter(route, method, status/100%len(classes)).Inc()
}

func (f *figures) counter(route, method string, class int) prometheus.Counter {
	return f.requests.WithLabelValues(route, knownMethod(method), classes[class])
}

// counters are those of the GET requests of one route, by class, as far as they were needed: to find one by its labels costs
// many times as much as to count.
type counters [len(classes)]atomic.Pointer[prometheus.Counter]

// get is request for GET requests of a known route.
func (f *figures) get(r *route, status int) {
	class := max(status, http.StatusOK) / 100 % len(classes) // as in request
	known := r.counters[class].Load()
	if known == nil {
		c := f.counter(r.pattern, http.MethodGet, class)
		known = &c
		r.counters[class].Store(known)
	}
	(*known).Inc()
}

// knownMethod returns the method, or "other": clients may send any word.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodPut:
		return method
	}
	return "other"
}

// Figure is one line of GET /metrics that somebody else counts.
type Figure struct {
	// Name follows the prefix hub_ and has the unit in it; that of a counter ends in _total.
	Name, Help string
	Counter    bool
	// Labels are fixed: there must be few.
	Labels map[string]string
	// Value is called at each scrape, from any goroutine.
	Value func() float64
}

func (f *Figure) collector() prometheus.Collector {
	name := "hub_" + f.Name
	if f.Counter {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: f.Help, ConstLabels: f.Labels}, f.Value)
	}
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: f.Help, ConstLabels: f.Labels}, f.Value)
}

// exposeMetrics registers everything that GET /metrics shows.
func (a *API) exposeMetrics(registry *prometheus.Registry) (http.Handler, error) {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "hub", Name: "build_info", Help: "Always 1."}, []string{"version"})
	build.WithLabelValues(a.Version).Set(1)
	list := []prometheus.Collector{
		a.figures.requests, build, newCollector(a.Hub.Status), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	}
	for i := range a.Figures {
		list = append(list, a.Figures[i].collector())
	}
	for _, c := range list {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("api options: a figure that cannot be shown: %w", err)
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}), nil
}
