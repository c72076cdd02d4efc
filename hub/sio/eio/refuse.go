package eio

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"

	"telemetryhub/hub/access"
)

// refusal names why a request was refused. The texts are labels of metrics: never change them.
type refusal int

const (
	refusedTransport refusal = iota
	refusedSID
	refusedMethod
	refusedRequest
	refusedForbidden
	refusedVersion
	refusedIdentity
	refusedFull
	refusedStopping
	refusedTooBig
	refusedInternal
)

var refusals = [...]string{
	refusedTransport: "transport", refusedSID: "sid", refusedMethod: "method", refusedRequest: "request",
	refusedForbidden: "forbidden", refusedVersion: "version", refusedIdentity: "identity", refusedFull: "full",
	refusedStopping: "draining", refusedTooBig: "too big", refusedInternal: "internal",
}

// answer is what a client is told: the codes and texts of Engine.IO where it has them. Detail says what to do.
type answer struct {
	why    refusal
	status int
	detail string
	cause  error
}

// codes are those of the reference server, whose clients know no others.
var codes = [...]struct {
	code    int
	message string
}{
	refusedTransport: {0, "Transport unknown"},
	refusedSID:       {1, "Session ID unknown"},
	refusedMethod:    {2, "Bad handshake method"},
	refusedRequest:   {3, "Bad request"},
	refusedForbidden: {4, "Forbidden"},
	refusedVersion:   {5, "Unsupported protocol version"},
	refusedIdentity:  {4, "Forbidden"},
	refusedFull:      {3, "Bad request"},
	refusedStopping:  {3, "Bad request"},
	refusedTooBig:    {3, "Bad request"},
	refusedInternal:  {3, "Bad request"},
}

func refuse(why refusal, detail string) *answer {
	status := http.StatusBadRequest
	switch why {
	case refusedForbidden:
		status = http.StatusForbidden
	case refusedIdentity:
		status = http.StatusUnauthorized
	case refusedFull, refusedStopping:
		status = http.StatusServiceUnavailable
	case refusedTooBig:
		status = http.StatusRequestEntityTooLarge
	case refusedInternal:
		status = http.StatusInternalServerError
	}
	return &answer{why: why, status: status, detail: detail}
}

// refuseIdentity maps an error of Identify.
func refuseIdentity(err error) *answer {
	var a *answer
	switch {
	case errors.Is(err, access.ErrDenied):
		a = refuse(refusedForbidden, "The credential is for something else, or the page comes from an origin that is not the hub's.")
	case errors.Is(err, access.ErrBusy):
		a = refuse(refusedFull, "The hub is busy. Come again later.")
	case errors.Is(err, access.ErrNotToken), errors.Is(err, access.ErrUnknownToken), errors.Is(err, access.ErrExpired),
		errors.Is(err, access.ErrNoSession):
		a = refuse(refusedIdentity, "The token or the session is not in force. Send a good one, or log in again.")
	default:
		a = refuse(refusedInternal, "The hub could not find out who you are; the reason is in its log.")
	}
	a.cause = err
	return a
}

// refuse answers as Engine.IO does, with one more member that says what to do.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, a *answer) {
	s.Metrics.refused[a.why].Add(1)
	level := slog.LevelDebug
	switch a.why {
	case refusedIdentity, refusedForbidden:
		level = slog.LevelInfo
	case refusedInternal:
		level = slog.LevelError
	}
	s.Logger.Log(r.Context(), level, "request refused", "reason", refusals[a.why], "remote", r.RemoteAddr, "err", a.cause)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if a.status == http.StatusServiceUnavailable {
		h.Set("Retry-After", strconv.Itoa(2+rand.IntN(9))) // spread, so that they do not all come at once
	}
	w.WriteHeader(a.status)
	// The client has gone if this fails, and there is nobody else to tell.
	_ = json.NewEncoder(w).Encode(struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
		Detail  string `json:"detail"`
	}{codes[a.why].code, codes[a.why].message, a.detail})
}
