package access

import (
	"net/http"
	"time"
)

// CookieName is the name of the session cookie: browsers keep one jar for all ports of a host, so each hub has its own
// name. Over TLS the name has the prefix by which browsers make sure that no other host, and no page without TLS, has
// set it (RFC 6265bis section 4.1.3.2).
func (r *Registry) CookieName(tls bool) string {
	if tls {
		return "__Host-hub-" + r.instance
	}
	return "hub-" + r.instance
}

// SetCookie returns the cookie that gives a session to a browser. tls says whether the browser reaches the hub over TLS,
// directly or through a proxy.
func (r *Registry) SetCookie(s NewSession, tls bool) *http.Cookie {
	return r.cookie(s.Cookie.Reveal(), int(s.Expires.Sub(r.opts.Now())/time.Second), tls)
}

// DropCookie returns the cookie that makes a browser forget its session.
func (r *Registry) DropCookie(tls bool) *http.Cookie { return r.cookie("", -1, tls) }

// cookie is Lax, not Strict: a link to the dashboard in a mail must not ask for a login. What changes anything needs an
// Origin besides.
func (r *Registry) cookie(value string, maxAge int, tls bool) *http.Cookie {
	return &http.Cookie{Name: r.CookieName(tls), Value: value, Path: "/", MaxAge: maxAge, Secure: tls, HttpOnly: true,
		SameSite: http.SameSiteLaxMode}
}

// CookieOf returns the secret that a request carries in the session cookie. It is empty if there is none.
func (r *Registry) CookieOf(req *http.Request, tls bool) Secret {
	c, err := req.Cookie(r.CookieName(tls))
	if err != nil {
		return Secret{}
	}
	return NewSecret(c.Value)
}
