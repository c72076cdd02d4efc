package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"telemetryhub/hub/access"
)

// maxBody bounds the body of a request. Routes have narrower limits.
const maxBody = 1 << 20

// serve takes every request through the stations that do not depend on the route.
func (a *API) serve(w http.ResponseWriter, r *http.Request, c caller) {
	began := time.Now()
	out := &answer{ResponseWriter: w, caller: c, route: a.router.find(r)}
	defer func() {
		if !out.elsewhere {
			a.finish(out, r, began, recover())
		} else if v := recover(); v != nil {
			a.log.Error("socket handler panicked", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	out.caller.secure = a.secure(r)
	a.protect(out, r)
	if a.shared(out, r) {
		return
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		writeProblem(out, faultf(http.StatusUnsupportedMediaType, "Send the body as it is: Content-Encoding %q is not taken.", enc))
		return
	}
	// The write deadline of the request before it would stay on the connection, so every request sets its own.
	a.deadlines(out, time.Time{}, began.Add(a.RequestTimeout+a.WriteTimeout))
	if r.ContentLength != 0 {
		a.deadlines(out, began.Add(a.BodyTimeout), time.Time{})
		r = r.WithContext(r.Context()) // net/http goes on looking at the body of its own
		r.Body = &timedBody{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody), done: func() { a.endRead(out) }}
	}
	a.router.ServeHTTP(out, r)
}

// finish ends a request: it turns a panic into an answer where that is still possible, and counts and logs.
func (a *API) finish(out *answer, r *http.Request, began time.Time, panicked any) {
	aborted := false
	if err, ok := panicked.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		aborted = true
	} else if panicked != nil {
		a.log.Error("handler panicked", "route", r.Pattern, "panic", panicked, "stack", string(debug.Stack()))
		if aborted = out.status != 0; !aborted {
			writeProblem(out, faultf(http.StatusInternalServerError, "The hub failed to do this; the reason is in its log."))
		}
	}
	// Neither path nor query are logged: people put secrets there by mistake.
	if out.route != nil && r.Method == http.MethodGet && r.Pattern != "" {
		a.figures.get(out.route, out.status)
	} else {
		a.figures.request(r.Pattern, r.Method, out.status)
	}
	if a.log.Enabled(r.Context(), slog.LevelDebug) {
		a.log.Debug("request", "method", knownMethod(r.Method), "route", r.Pattern, "status", out.status,
			"ms", time.Since(began).Milliseconds(), "remote", a.remote(r), "aborted", aborted)
	}
	if aborted {
		panic(http.ErrAbortHandler) // net/http then breaks the connection, so that the client notices
	}
}

// guard stands before the handler of a route: it finds out who is calling and whether they may.
func (a *API) guard(pattern string, h http.HandlerFunc) http.HandlerFunc {
	need := rules[pattern]
	bounded := !need.own && !streams(pattern)
	return func(w http.ResponseWriter, r *http.Request) {
		c := &w.(*answer).caller
		if c.plain && !need.plain {
			writeProblem(w, errPlain)
			return
		}
		if !need.own {
			if err := a.admit(&need, c, r); err != nil {
				a.refuse(w, r, &need, c, err)
				return
			}
		}
		if need.data {
			h(w, r)
			return
		}
		c.remote, c.agent = a.remote(r), r.UserAgent()
		ctx := withCaller(r.Context(), c)
		if bounded {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, a.RequestTimeout)
			defer cancel()
		}
		h(w, r.WithContext(ctx))
	}
}

// errPlain is the answer to everybody but devices at an address without TLS.
var errPlain = faultf(http.StatusForbidden, "This address is not encrypted, so it serves devices only. Use the https address of the hub, "+
	"and revoke the token if you have sent one here.")

// streams reports whether the route's answers may take as long as they need; their handlers set a deadline for each write.
func streams(pattern string) bool {
	return pattern == "GET /api/v1/devices/{id}/readings" || pattern == "GET /api/v1/live/sse" || rules[pattern].data
}

// refuse answers for the guard.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, need *rule, c *caller, err error) {
	f := a.outward(r.Context(), err)
	if c.id.Kind == "" && !need.open && errors.Is(err, access.ErrDenied) {
		f = faultf(http.StatusUnauthorized,
			"Say who you are: send a token as Authorization: Bearer <token>, or log in. Tokens are never taken from the address.")
	}
	if f.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="telemetry hub"`)
	}
	writeProblem(w, f)
}

// deadlines sets the deadlines that are not zero. Connections that have none, as in tests, need none.
func (a *API) deadlines(w http.ResponseWriter, read, write time.Time) {
	ctl := http.NewResponseController(w)
	if !read.IsZero() {
		_ = ctl.SetReadDeadline(read)
	}
	if !write.IsZero() {
		_ = ctl.SetWriteDeadline(write)
	}
}

// endRead lifts the deadline of the body: net/http goes on reading to notice when the client goes away, and would take the
// deadline for that.
func (a *API) endRead(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
}

// timedBody calls done when the body has been read to its end.
type timedBody struct {
	io.ReadCloser
	done func()
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.done()
	}
	return n, err
}

// header is a header in canonical form. The value is shared: nobody may write to it.
type header struct {
	name  string
	value []string
}

// unstored is a header of every answer, and forBrowsers are those that tell a browser what it may do with an answer that it
// shows, or that a page has made it load. It does either with a cookie only: no link and no element of a page sends a token. The
// resource policy is for those who send a cookie: SameSite counts every port of a host as the same site, and not every browser
// keeps JSON from a page that has asked for an image (opaque response blocking).
var (
	unstored    = []string{"no-store"}
	forBrowsers = []header{
		{"X-Content-Type-Options", []string{"nosniff"}},
		{"Content-Security-Policy", []string{"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"}},
		{"X-Frame-Options", []string{"DENY"}},
		{"Referrer-Policy", []string{"no-referrer"}},
		{"Cross-Origin-Resource-Policy", []string{"same-origin"}},
		{"Cross-Origin-Opener-Policy", []string{"same-origin"}},
	}
)

// protect sets the headers of the answer. Those for browsers would be more than half of what a data route answers to a token.
func (a *API) protect(out *answer, r *http.Request) {
	h := out.Header()
	h["Cache-Control"] = unstored
	if !out.lean(r) {
		for i := range forBrowsers {
			h[forBrowsers[i].name] = forBrowsers[i].value
		}
	}
	if a.HSTS && out.caller.secure {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// answer is a ResponseWriter that remembers the status, and whom it is for.
type answer struct {
	http.ResponseWriter
	caller    caller
	route     *route // nil unless router.find knows it
	status    int
	elsewhere bool // somebody else answers, over the connection
}

// lean reports whether the answer is data for a program that has sent a token.
func (w *answer) lean(r *http.Request) bool {
	return w.route != nil && w.route.data && r.Header["Authorization"] != nil
}

func (w *answer) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *answer) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *answer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack hands the connection to a socket.
func (w *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.elsewhere = err == nil
	return conn, rw, err
}
