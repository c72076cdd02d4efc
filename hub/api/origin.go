package api

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"telemetryhub/hub/access"
)

// errOrigin means that a page of somebody else asked with the cookie of the person who looks at it.
var errOrigin = fmt.Errorf("%w: the request comes from a page of another origin, or from a browser that does not say from which; "+
	"start the hub with --allow-origin for that page, or use a token", access.ErrDenied)

// origins knows which pages may act with a session cookie.
type origins struct {
	// public is the hub's own origin where people reach it through a proxy, else empty.
	public string
	allow  []string
}

func newOrigins(public *url.URL, allow []string) (origins, error) {
	var o origins
	var bad []error
	for _, text := range allow {
		origin, err := parseOrigin(text)
		if err != nil {
			bad = append(bad, fmt.Errorf("allowed origin: %w", err))
		}
		o.allow = append(o.allow, origin)
	}
	if public != nil {
		origin, err := parseOrigin(public.Scheme + "://" + public.Host)
		if err != nil {
			bad = append(bad, fmt.Errorf("public URL: %w", err))
		}
		o.public = origin
	}
	return o, errors.Join(bad...)
}

// parseOrigin returns scheme, host and port of an origin as browsers write it: lower case, without the usual port.
func parseOrigin(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil ||
		u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("%q is not an origin: write scheme and host, as https://wall.example or http://10.0.0.5:8080", text)
	}
	host := strings.ToLower(u.Host)
	if port := u.Port(); u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		host = strings.TrimSuffix(host, ":"+port)
	}
	return u.Scheme + "://" + host, nil
}

// ours reports whether the page that sent the request is the hub's own or an allowed one. Without the header it is not known,
// and so it is not.
func (o origins) ours(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || len(r.Header.Values("Origin")) > 1 {
		return false
	}
	if origin == o.public || slices.Contains(o.allow, origin) {
		return true
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	own, err := parseOrigin(scheme + "://" + r.Host)
	return err == nil && origin == own
}

// preflight answers questions of browsers about pages elsewhere, and lets allowed ones read the answers. It reports whether
// the request is answered.
func (o origins) preflight(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || !slices.Contains(o.allow, origin) {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Add("Vary", "Origin")
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// remote returns the address that the request comes from: the connection's, or what a trusted proxy says.
func (a *API) remote(r *http.Request) netip.Addr {
	addr := connAddr(r)
	if !a.trusted(addr) {
		return addr
	}
	// Every proxy appends whom it saw, so the last address that is not a proxy of ours is the nearest one we cannot vouch for.
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(hops) {
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		if addr = next.Unmap(); !a.trusted(addr) {
			break
		}
	}
	return addr
}

func (a *API) trusted(addr netip.Addr) bool {
	return slices.ContainsFunc(a.Proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// connAddr returns the address of the peer of the connection. It is invalid for the control socket.
func connAddr(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// sameMachine reports whether the request was surely made by a program on this machine for itself: not by a proxy for
// somebody else, and not by a browser that was led here under another name.
func sameMachine(r *http.Request) bool {
	for _, h := range []string{"X-Forwarded-For", "Forwarded", "X-Real-Ip", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	local := strings.EqualFold(host, "localhost") || err == nil && addr.Unmap().IsLoopback()
	return local && connAddr(r).IsLoopback()
}
