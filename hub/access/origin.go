package access

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"unicode"
)

// Origins decides whether a browser's request comes from a page that may act for the person who is logged in. It is a
// value to be made once by ParseOrigins; the zero value accepts the hub's own pages only.
//
// Browsers send cookies along wherever a request comes from, so a request that stands on a session cookie must name an
// Origin that is the hub's own or allowed. A Bearer token is sent by nobody but its holder: Origin does not matter then.
type Origins struct {
	allowed map[string]bool
}

// OriginRequest is what the rule looks at.
type OriginRequest struct {
	Method string
	// Upgrade means that the request asks for a WebSocket.
	Upgrade bool
	// Origin holds the values of the Origin header, none if it is missing.
	Origin []string
	// Host is the Host header.
	Host string
	// TLS means that the request came over TLS to the hub itself.
	TLS bool
}

// ParseOrigins returns the rule for a hub that is known to browsers as publicURL (empty: by the Host that they name
// only) and whose data the pages of the allowed origins may use. A star is refused: it would let any page on the
// Internet act for whoever is logged in.
func ParseOrigins(publicURL string, allowed []string) (Origins, error) {
	o := Origins{allowed: map[string]bool{}}
	if publicURL != "" {
		u, err := url.Parse(publicURL)
		if err != nil {
			return Origins{}, fmt.Errorf("public URL %q: %w: write it like https://hub.example.org", publicURL, ErrInvalid)
		}
		origin, ok := canonicalOrigin(u.Scheme + "://" + u.Host)
		if !ok || u.User != nil {
			return Origins{}, fmt.Errorf("public URL %q: %w: write it like https://hub.example.org", publicURL, ErrInvalid)
		}
		o.allowed[origin] = true
	}
	for _, text := range allowed {
		origin, ok := canonicalOrigin(text)
		if !ok {
			return Origins{}, fmt.Errorf("allowed origin %q: %w: write it like https://grafana.example.org, without a path",
				text, ErrInvalid)
		}
		o.allowed[origin] = true
	}
	return o, nil
}

// CheckSession returns nil if a request that stands on a session cookie may be served, and otherwise an error that wraps
// ErrDenied. A plain GET needs no Origin, because it never changes anything and no other page can read the answer.
// Everything else, and every upgrade, needs one.
func (o Origins) CheckSession(req OriginRequest) error {
	if req.Method == http.MethodGet && !req.Upgrade {
		return nil
	}
	if len(req.Origin) == 0 {
		return fmt.Errorf("%w: the Origin header is missing; programs should send a token instead of a cookie", ErrDenied)
	}
	return o.check(req)
}

// CheckOpen is the rule for what needs no credential but gives one, such as logging in and claiming a link: Origin may be
// missing, since programs send none, but a foreign page must not log a person in as somebody else.
func (o Origins) CheckOpen(req OriginRequest) error {
	if len(req.Origin) == 0 {
		return nil
	}
	return o.check(req)
}

// Allows reports whether the pages of an origin, as a browser names it, may use the hub's data from elsewhere.
func (o Origins) Allows(origin string) bool {
	canonical, ok := canonicalOrigin(origin)
	return ok && o.allowed[canonical]
}

func (o Origins) check(req OriginRequest) error {
	if len(req.Origin) != 1 {
		return fmt.Errorf("%w: %d Origin headers", ErrDenied, len(req.Origin))
	}
	origin, ok := canonicalOrigin(req.Origin[0])
	if !ok {
		return fmt.Errorf("%w: the request comes from no web page that can be named", ErrDenied)
	}
	scheme := "http://"
	if req.TLS {
		scheme = "https://"
	}
	if own, ok := canonicalOrigin(scheme + req.Host); ok && own == origin || o.allowed[origin] {
		return nil
	}
	return fmt.Errorf("%w: requests from %.128s are not accepted; start the hub with --allow-origin, or with --public-url"+
		" if that is the hub itself behind a proxy", ErrDenied, origin)
}

// canonicalOrigin returns an http or https origin in lower case, with its port even if it is the default one. Anything
// that an origin does not have (user, path, query) makes it none, as does a host in any but plain ASCII characters.
func canonicalOrigin(text string) (origin string, ok bool) {
	if len(text) > 300 || strings.ContainsFunc(text, func(c rune) bool { return c > unicode.MaxASCII }) {
		return "", false // before lower case, which makes ASCII out of some other letters
	}
	scheme, host, found := strings.Cut(strings.ToLower(text), "://")
	if !found || scheme != "http" && scheme != "https" {
		return "", false
	}
	port := "443"
	if scheme == "http" {
		port = "80"
	}
	// What follows the last colon is the port, unless the colon belongs to an address in brackets.
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i+1:]
	}
	if !isHost(host) || !isPort(port) {
		return "", false
	}
	return scheme + "://" + host + ":" + port, true
}

// isHost reports whether s is a name, an IPv4 address or an IPv6 address in brackets.
func isHost(s string) bool {
	if inner, found := strings.CutPrefix(s, "["); found {
		inner, closed := strings.CutSuffix(inner, "]")
		addr, err := netip.ParseAddr(inner)
		return closed && err == nil && addr.Is6() && addr.Zone() == ""
	}
	for i := range len(s) {
		c := s[i]
		word := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		if !word && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return s != "" && len(s) <= 253
}

func isPort(s string) bool {
	if len(s) == 0 || len(s) > 5 || s[0] == '0' {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return len(s) < 5 || s <= "65535"
}
