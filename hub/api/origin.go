package api

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// shared lets allowed pages elsewhere read the answer, and answers their browsers' questions whether they may. It reports
// whether the request is answered.
func (a *API) shared(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || !a.origins.Allows(origin) {
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

// Source returns the address that a request comes from, for limits per source.
func (a *API) Source(r *http.Request) netip.Addr { return a.remote(r) }

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

// proxied reports whether a proxy stands before the hub. One on this machine that adds no header looks like any program here.
func (a *API) proxied() bool { return a.PublicURL != nil || len(a.Proxies) > 0 }

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
