package api

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/alarm"
	"telemetryhub/hub/crew"
)

// Options configures an API. Hub and Access are required, everything else has a default.
type Options struct {
	Hub    *hub.Hub
	Access *access.Registry
	// Version is shown in the status, in metrics and in the OpenAPI document. Empty means "dev".
	Version string
	// PublicURL is how people reach the hub when a proxy stands before it. Nil means that they reach it directly.
	PublicURL *url.URL
	// LinkBase is the address before the fragment of one-time links ("https://hub.local:8080"). Empty leaves the address out: the
	// Host of a request could lead people elsewhere.
	LinkBase string
	// Fingerprint is the SHA-256 of the hub's certificate as devices pin it. Empty without one.
	Fingerprint string
	// Plaintext are the addresses at which devices are served without TLS, shown in the status as long as there are any.
	Plaintext []string
	// Damage returns what was found damaged in the store since the start, a line each. Nil means that nobody looks.
	Damage func() []string
	// Figures are shown by GET /metrics besides those of the hub.
	Figures []Figure
	// Page serves the dashboard: GET /, GET /welcome/ and GET /assets/{file}. Nil means that there is none.
	Page http.Handler
	// Public holds files for GET /public/…; whatever it holds anybody can read who reaches the hub. Nil means that there are none.
	Public fs.FS
	// Admit is told of every request whose credential was found good. Nil means that nobody wants to know.
	Admit func(*http.Request)
	// Return returns how to serve the connection of a request again once it was hijacked, with what has come over it of further
	// requests, or nil if that cannot be done. Polls need it to leave net/http. Nil means that it can never be done.
	Return func(*http.Request) func(early []byte)
	// AllowOrigins are the origins of pages elsewhere that may act with the cookie of a session ("https://wall.example").
	AllowOrigins []string
	// Proxies are the addresses whose X-Forwarded-For is believed. Empty means none.
	Proxies []netip.Prefix
	// HSTS tells browsers to insist on TLS. It is for certificates that browsers trust: the header binds every port of the
	// host name.
	HSTS bool
	// Heartbeat is how often a quiet event stream gets a comment . Zero means 15 s.
	Heartbeat time.Duration
	// RequestTimeout bounds requests that are not streamed. Zero means 30 s.
	RequestTimeout time.Duration
	// BodyTimeout is how long a client may take to send the body of a request. Zero means 10 s.
	BodyTimeout time.Duration
	// WriteTimeout is how long a client may leave a write of a stream waiting at most, and three quarters of it at least. Zero
	// means 30 s.
	WriteTimeout time.Duration
	// Crew writes event streams, and is for the sockets too. Nil means a new one.
	Crew *crew.Crew
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *Options) fill() error {
	if o.Hub == nil || o.Access == nil {
		return errors.New("api options: Hub and Access are required")
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.Heartbeat, 15 * time.Second}, {&o.RequestTimeout, 30 * time.Second}, {&o.BodyTimeout, 10 * time.Second}, {&o.WriteTimeout, 30 * time.Second}} {
		if *d.v < 0 {
			return errors.New("api options: a duration is negative")
		}
		if *d.v == 0 {
			*d.v = d.def
		}
	}
	if o.Admit == nil {
		o.Admit = func(*http.Request) {}
	}
	if o.Return == nil {
		o.Return = func(*http.Request) func([]byte) { return nil }
	}
	if o.Crew == nil {
		o.Crew = crew.New()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// API is the hub's HTTP side. It is an http.Handler for the network; see [API.Local] for the control socket. It starts no
// goroutines but those of event streams, for which there is [API.Shutdown], and is safe for concurrent use.
type API struct {
	Options
	log     *slog.Logger
	started time.Time
	router  *router
	huma    huma.API
	figures *figures
	metrics http.Handler
	origins access.Origins
	streams streamSet
	rules   crew.Rules   // of streams and polls
	twins   twins        // of polls
	clock   *alarm.Clock // of the heartbeats of streams

	pollIdle time.Duration

	socketIO http.Handler // nil until MountSocketIO
}

// New returns an API. It fails only on options that cannot be used.
func New(o Options) (*API, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	a := &API{Options: o, log: o.Logger.With("component", "api"), started: time.Now(), figures: newFigures(), pollIdle: pollIdle, clock: alarm.New()}
	a.streams = newStreamSet()
	a.rules = crew.Rules{Crew: o.Crew, WriteTimeout: o.WriteTimeout, CloseTimeout: closeTimeout, Written: new(atomic.Uint64)}
	var err error
	public := ""
	if o.PublicURL != nil {
		public = o.PublicURL.String()
	}
	if a.origins, err = access.ParseOrigins(public, o.AllowOrigins); err != nil {
		return nil, err
	}
	registry := prometheus.NewRegistry()
	if a.metrics, err = a.exposeMetrics(registry); err != nil {
		return nil, err
	}
	a.router = newRouter(a.guard)
	a.huma = newDocument(a.router, o.Version, o.Access.CookieName(true))
	a.routes()
	a.describe()
	return a, nil
}

// Mount adds the sockets: handlers of GET /device/v1 and GET /api/v1/live. They upgrade, so they ask for identity and Origin
// themselves, by [API.Authenticate]. It is called before the first request.
func (a *API) Mount(device, live http.Handler) {
	a.router.HandleFunc("GET /device/v1", device.ServeHTTP)
	a.router.HandleFunc("GET /api/v1/live", live.ServeHTTP)
}

// MountSocketIO adds what answers Socket.IO clients, which asks for identity and Origin itself, by [API.Identify]. It is called
// before the first request.
func (a *API) MountSocketIO(h http.Handler) {
	a.socketIO = h
	for _, pattern := range []string{"GET /socket.io/{$}", "POST /socket.io/{$}", "GET /socket.io/{file}"} {
		a.router.HandleFunc(pattern, h.ServeHTTP)
	}
}

// Routes returns the pattern of every route, as "GET /api/v1/devices/{id}".
func (a *API) Routes() []string { return a.router.list() }

// ServeHTTP answers a request from the network.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.serve(w, r, caller{}) }

// Local returns the handler for the control socket: whoever can open it owns the hub's process, and administers.
func (a *API) Local() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.serve(w, r, caller{id: access.Local(), local: true})
	})
}

// Plain returns the handler for listeners without TLS beyond this machine: it serves devices only.
func (a *API) Plain() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, caller{plain: true}) })
}

// routes registers everything. What may be done by whom stands in rules.go, and a route that is missing there is denied.
func (a *API) routes() {
	a.sessionRoutes()
	a.deviceRoutes()
	a.readingRoutes()
	a.tokenRoutes()
	a.userRoutes()
	a.statusRoutes()
	a.plainRoutes()
}

// plainRoutes are those that huma cannot describe by a Go type.
func (a *API) plainRoutes() {
	for _, pattern := range []string{"GET /{$}", "GET /assets/{file}", "GET /welcome", "GET /welcome/{$}"} {
		a.router.HandleFunc(pattern, a.page)
	}
	a.router.HandleFunc("GET /public/{path...}", a.public)
	a.router.HandleFunc("GET /api/live.schema.json", a.fixed("application/schema+json", schemaFile("live.schema.json")))
	a.router.HandleFunc("GET /api/asyncapi.yaml", a.fixed("application/vnd.aai.asyncapi+yaml", schemaFile("asyncapi.yaml")))
	a.router.HandleFunc("GET /metrics", a.metrics.ServeHTTP)
	a.router.HandleFunc("GET /api/v1/live/sse", a.events)
	a.router.HandleFunc("GET /api/v1/live/poll", a.poll)
}

// secure reports whether the person at the other end sees https.
func (a *API) secure(r *http.Request) bool {
	return r.TLS != nil || a.PublicURL != nil && strings.EqualFold(a.PublicURL.Scheme, "https")
}
