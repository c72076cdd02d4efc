package api

import (
	"errors"
	"net/http"
	"strings"

	"telemetryhub/hub/access"
)

// admit finds out who is calling and whether they may use a route with that need.
func (a *API) admit(need *rule, c *caller, r *http.Request) error {
	if err := a.identify(c, r); err != nil && !need.open {
		return err
	}
	if err := a.checkOrigin(c, need, r); err != nil {
		return err
	}
	switch {
	case need.open:
		return nil
	case c.plain && c.id.Kind != "" && c.id.Kind != access.KindDevice && c.id.Kind != access.KindEnrolment:
		return errPlain
	case need.loopback && !a.proxied() && sameMachine(r):
		return nil
	}
	return need.check(&c.id, r)
}

// identify notes in c who the credentials of the request stand for. A request without any is nobody's, which is no error.
// Tokens in the address are not looked at.
func (a *API) identify(c *caller, r *http.Request) error {
	if c.local {
		return nil
	}
	err := a.examine(c, r)
	if err == nil && c.id.Kind != "" {
		a.Admit(r)
	}
	return err
}

// examine looks at the credentials.
func (a *API) examine(c *caller, r *http.Request) (err error) {
	if values := r.Header["Authorization"]; len(values) > 0 {
		text := bearer(values[0])
		if len(values) > 1 || text == "" {
			// The sockets know the errors of package access only.
			return errors.Join(access.ErrNotToken,
				faultf(http.StatusUnauthorized, "Send one token, as Authorization: Bearer <token>. Other schemes are not taken."))
		}
		c.id, err = a.Access.Authenticate(text)
		return err
	}
	cookie := a.Access.CookieOf(r, c.secure)
	if cookie.Empty() {
		return nil // nobody
	}
	if c.id, err = a.Access.Session(cookie); err != nil {
		return err
	}
	c.cookie = cookie
	return nil
}

// Authenticate returns who stands behind a request to upgrade that came through the API. Nobody is no error. With a session
// cookie the Origin must be ours, or the error wraps access.ErrDenied.
func (a *API) Authenticate(r *http.Request) (access.Identity, error) { return a.whoAsks(r, true) }

// Identify is Authenticate for handlers whose requests are not always to upgrade: the Origin of a plain GET may be missing, as
// browsers leave it out within one origin, but not be another's.
func (a *API) Identify(r *http.Request) (access.Identity, error) {
	return a.whoAsks(r, r.Header.Get("Upgrade") != "" || len(r.Header.Values("Origin")) > 0)
}

func (a *API) whoAsks(r *http.Request, upgrade bool) (access.Identity, error) {
	c := who(r.Context())
	err := a.identify(&c, r)
	if err == nil && !c.cookie.Empty() {
		err = a.origins.CheckSession(originRequest(r, upgrade))
	}
	if err != nil {
		return access.Identity{}, err
	}
	return c.id, nil
}

// bearer returns the token of an Authorization header, and nothing for other schemes (RFC 6750 section 2.1).
func bearer(header string) string {
	scheme, text, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(text)
}

// checkOrigin keeps pages of others from acting with the cookie of whoever looks at them. Tokens are not sent by browsers on
// their own, so their Origin does not matter. A login has no cookie yet, but must not be forced on anybody either.
func (a *API) checkOrigin(c *caller, need *rule, r *http.Request) error {
	switch {
	case c.local:
		return nil
	case !c.cookie.Empty():
		return a.origins.CheckSession(originRequest(r, false))
	case need.open && r.Method != http.MethodGet && r.Method != http.MethodHead:
		return a.origins.CheckOpen(originRequest(r, false))
	}
	return nil
}

func originRequest(r *http.Request, upgrade bool) access.OriginRequest {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet // it changes as little
	}
	return access.OriginRequest{Method: method, Upgrade: upgrade, Origin: r.Header.Values("Origin"), Host: r.Host, TLS: r.TLS != nil}
}
