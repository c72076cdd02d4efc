package ws

import (
	"errors"
	"net/http"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

// Auth is what the adapter needs of identity.
type Auth interface {
	// Authenticate returns who stands behind a request to upgrade, by its token or by its session cookie; with a cookie the
	// Origin must have been found to be ours, or the error wraps access.ErrDenied. It must not block for long.
	Authenticate(r *http.Request) (access.Identity, error)
	// Watch calls ended once when the identity is no longer what it was. ended returns at once. stop ends the watch.
	Watch(id access.Identity, ended func(access.Reason)) (stop func())
}

// authRefusal maps an error of Authenticate to what the client sees.
func authRefusal(err error) *refusedError {
	var e *refusedError
	var throttled *access.ThrottledError
	switch {
	case errors.As(err, &throttled):
		e = refuseFor(refusedThrottled, http.StatusTooManyRequests,
			"There were too many attempts. Wait before the next one.", throttled.After)
	case errors.Is(err, access.ErrBusy):
		e = refuseFor(refusedThrottled, http.StatusServiceUnavailable, "The hub is busy. Come again later.", retryAfter())
	case errors.Is(err, access.ErrDenied):
		e = refuse(refusedForbidden, http.StatusForbidden,
			"This is not allowed: the credential is for something else, or the page comes from an origin that is not the hub's.")
	case errors.Is(err, access.ErrNotToken), errors.Is(err, access.ErrUnknownToken), errors.Is(err, access.ErrExpired),
		errors.Is(err, access.ErrNoSession):
		e = needIdentity()
	default:
		e = refuse(refusedInternal, http.StatusInternalServerError,
			"The hub could not find out who you are; the reason is in its log.")
	}
	e.cause = err
	return e
}

// needIdentity says how to name oneself (RFC 6750 section 3).
func needIdentity() *refusedError {
	e := refuse(refusedIdentity, http.StatusUnauthorized,
		"Say who you are with a token that is in force: Authorization: Bearer <token>. Tokens are never taken from the address.")
	e.header = http.Header{"Www-Authenticate": {`Bearer realm="telemetry hub"`}}
	return e
}

// watch closes the connection as soon as the identity is no longer what it was.
func (s *server) watch(c *conn, id access.Identity) (stop func()) {
	return s.auth.Watch(id, func(why access.Reason) {
		switch why {
		case access.Changed:
			c.Close(wire.CloseResume, "your role was changed; start over with a snapshot")
		case access.Expired:
			c.Close(wire.CloseRevoked, "expired: this token or session is over; get a new one")
		default:
			c.Close(wire.CloseRevoked, wire.CloseRevoked.Reason())
		}
	})
}

// violationOf maps an error of the hub to how the connection ends.
func violationOf(err error) violation {
	switch {
	case errors.Is(err, hub.ErrResume):
		return violation{wire.CloseResume, wire.CloseResume.Reason()}
	case errors.Is(err, hub.ErrSlow):
		return violation{wire.CloseSlow, wire.CloseSlow.Reason()}
	}
	code, reason := hub.CloseCodeOf(err)
	return violation{code, reason}
}
