package api

import (
	"net/http"
	"strconv"

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

// request counts one request.
func (f *figures) request(route, method string, status int) {
	if status == 0 {
		status = http.StatusOK // net/http sends that when a handler writes nothing
	}
	f.requests.WithLabelValues(route, knownMethod(method), strconv.Itoa(status/100)+"xx").Inc()
}

// knownMethod returns the method, or "other": clients may send any word.
func knownMethod(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodPut:
		return method
	}
	return "other"
}

// exposeMetrics registers everything that GET /metrics shows.
func (a *API) exposeMetrics(registry *prometheus.Registry) (http.Handler, error) {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "hub", Name: "build_info", Help: "Always 1."}, []string{"version"})
	build.WithLabelValues(a.Version).Set(1)
	for _, c := range []prometheus.Collector{
		a.figures.requests, build, newCollector(a.Hub.Status), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4}), nil
}
