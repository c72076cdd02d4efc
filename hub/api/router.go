package api

import (
	"net/http"
	"slices"
	"strings"
)

// router is http.ServeMux that can list its routes and puts a guard before each of them. It is complete before the first
// request.
type router struct {
	mux      *http.ServeMux
	guard    func(pattern string, h http.HandlerFunc) http.HandlerFunc
	patterns []string
	exact    map[string]*route // the GET routes without wildcards by their path, most of what is asked for
}

// route is a handler and what it is registered for.
type route struct {
	pattern string
	handle  http.HandlerFunc
	data    bool // see rule
	counters
}

func newRouter(guard func(pattern string, h http.HandlerFunc) http.HandlerFunc) *router {
	return &router{mux: http.NewServeMux(), guard: guard, exact: map[string]*route{}}
}

// HandleFunc registers a route. It makes router a humago.Mux.
func (r *router) HandleFunc(pattern string, h func(http.ResponseWriter, *http.Request)) {
	r.patterns = append(r.patterns, pattern)
	guarded := r.guard(pattern, h)
	r.mux.HandleFunc(pattern, guarded)
	if path, ok := strings.CutPrefix(pattern, "GET "); ok && !strings.ContainsAny(path, "{ ") && !strings.HasSuffix(path, "/") {
		r.exact[path] = &route{pattern: pattern, handle: guarded, data: rules[pattern].data}
	}
}

func (r *router) list() []string { return slices.Sorted(slices.Values(r.patterns)) }

// find returns the route of a request if it is one of the exact ones, and else nil.
func (r *router) find(req *http.Request) *route {
	if req.Method == http.MethodGet || req.Method == http.MethodHead {
		return r.exact[req.URL.Path]
	}
	return nil
}

// ServeHTTP calls the route's handler, or answers 404 or 405 with a problem document. w is an answer, whose route find has
// looked for.
func (r *router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if found := w.(*answer).route; found != nil {
		req.Pattern = found.pattern // as the mux does
		found.handle(w, req)
		return
	}
	if !plainPath(req.URL.Path) {
		writeProblem(w, faultf(http.StatusNotFound, "There is nothing here: the path has empty, dotted or unprintable segments."))
		return
	}
	h, pattern := r.mux.Handler(req)
	if pattern != "" {
		r.mux.ServeHTTP(w, req)
		return
	}
	// The mux knows which methods the path has, and says so only by answering: let it answer to nobody.
	var probe statusOnly
	h.ServeHTTP(&probe, req)
	if probe.status == http.StatusMethodNotAllowed {
		allow := probe.Header().Get("Allow")
		w.Header().Set("Allow", allow)
		writeProblem(w, faultf(http.StatusMethodNotAllowed, "This address takes %s only.", allow))
		return
	}
	writeProblem(w, faultf(http.StatusNotFound, "There is nothing at this address. GET /api/openapi.json lists what there is."))
}

// plainPath reports whether a decoded path can stand as it is: the mux would redirect other ones, and a path that means
// something else once it is cleaned is an attack or a mistake.
func plainPath(p string) bool {
	if !strings.HasPrefix(p, "/") || strings.Contains(p, "//") {
		return false
	}
	for i := range len(p) {
		if p[i] < ' ' || p[i] == 0x7f || p[i] == '\\' {
			return false
		}
	}
	for segment := range strings.SplitSeq(p, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// statusOnly takes an answer and keeps its status and header.
type statusOnly struct {
	header http.Header
	status int
}

func (s *statusOnly) Header() http.Header {
	if s.header == nil {
		s.header = http.Header{}
	}
	return s.header
}

func (s *statusOnly) Write(p []byte) (int, error) { return len(p), nil }

func (s *statusOnly) WriteHeader(status int) { s.status = status }
