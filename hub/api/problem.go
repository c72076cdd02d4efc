package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/storage"
)

// problemType is the media type of RFC 9457.
const problemType = "application/problem+json"

// fault is an error on its way out: what the caller is told, and nothing else.
type fault struct {
	status int
	detail string
	retry  int // seconds until it makes sense to try again; zero means that no such time is known
}

func (f *fault) Error() string { return f.detail }

// GetStatus makes a fault a huma.StatusError.
func (f *fault) GetStatus() int { return f.status }

// GetHeaders makes a fault a huma.HeadersError.
func (f *fault) GetHeaders() http.Header {
	if f.retry == 0 {
		return nil
	}
	return http.Header{"Retry-After": {strconv.Itoa(f.retry)}}
}

// MarshalJSON writes the problem document.
func (f *fault) MarshalJSON() ([]byte, error) {
	return json.Marshal(huma.ErrorModel{Status: f.status, Title: http.StatusText(f.status), Detail: f.detail})
}

// ContentType makes huma send a fault as a problem document.
func (f *fault) ContentType(string) string { return problemType }

func faultf(status int, format string, args ...any) *fault {
	return &fault{status: status, detail: fmt.Sprintf(format, args...)}
}

// mapping is one line of the table from errors to answers. An empty detail stands for the text of the error.
type mapping struct {
	err    error
	status int
	retry  int
	detail string
}

// mappings is never written. The first line that matches counts.
var mappings = []mapping{
	{access.ErrDenied, http.StatusForbidden, 0, ""},
	{access.ErrNotToken, http.StatusUnauthorized, 0, ""},
	{access.ErrUnknownToken, http.StatusUnauthorized, 0, ""},
	{access.ErrExpired, http.StatusUnauthorized, 0, ""},
	{access.ErrNoSession, http.StatusUnauthorized, 0, ""},
	{access.ErrCredentials, http.StatusUnauthorized, 0, ""},
	{access.ErrSpent, http.StatusForbidden, 0, ""},
	{access.ErrLink, http.StatusForbidden, 0, ""},
	{access.ErrBusy, http.StatusServiceUnavailable, 5, ""},
	{access.ErrPassword, http.StatusUnprocessableEntity, 0, ""},
	{access.ErrInvalid, http.StatusUnprocessableEntity, 0, ""},
	{access.ErrExists, http.StatusConflict, 0, ""},
	{access.ErrEnrolled, http.StatusConflict, 0, ""},
	{access.ErrClaimed, http.StatusConflict, 0, ""},
	{access.ErrLastAdmin, http.StatusConflict, 0, ""},
	{hub.ErrUnknownDevice, http.StatusNotFound, 0,
		"There is no device of this ID. GET /api/v1/devices (hub device list) lists those that exist; an administrator adds one with " +
			"POST (hub device add)."},
	{hub.ErrUnknownMetric, http.StatusNotFound, 0,
		"The device has never sent or declared a metric of this name. GET /api/v1/devices/{id} lists its metrics."},
	{hub.ErrExists, http.StatusConflict, 0,
		"A device of this ID exists already. POST /api/v1/tokens (hub token create --device) makes another token for it."},
	{hub.ErrDeleted, http.StatusConflict, 0, ""},
	{hub.ErrResume, http.StatusGone, 0, ""},
	{hub.ErrDraining, http.StatusServiceUnavailable, 5, ""},
	{hub.ErrTooMany, http.StatusServiceUnavailable, 10, ""},
	{hub.ErrBusy, http.StatusServiceUnavailable, 2, ""},
	{hub.ErrBehind, http.StatusServiceUnavailable, 5, ""},
	{storage.ErrFull, http.StatusServiceUnavailable, 30,
		"The hub's disk is full, so nothing was stored. Keep the readings and send them again later; free space on the hub."},
	{storage.ErrReadOnly, http.StatusServiceUnavailable, 60,
		"The hub's store can only be read at present. Keep the readings and send them again later; see the hub's log."},
	{storage.ErrUnknown, http.StatusServiceUnavailable, 60,
		"The hub's disk failed while writing, and nobody can say what was stored. The hub must be started again; see its log."},
	{storage.ErrClosed, http.StatusServiceUnavailable, 5, "The hub is stopping. Try again in a moment."},
	{storage.ErrCorrupt, http.StatusInternalServerError, 0,
		"What was asked for is damaged on the hub's disk. Everything else can be read; run hub check on the hub."},
	{storage.ErrConflict, http.StatusConflict, 0, "Somebody else changed this at the same time. Read it again, then repeat."},
	{storage.ErrNotFound, http.StatusNotFound, 0, ""},
	{storage.ErrTooLarge, http.StatusRequestEntityTooLarge, 0, ""},
	{device.ErrID, http.StatusUnprocessableEntity, 0, ""},
	{device.ErrName, http.StatusUnprocessableEntity, 0, ""},
	{context.Canceled, http.StatusServiceUnavailable, 0, "The request was given up."},
	{context.DeadlineExceeded, http.StatusServiceUnavailable, 5, "The hub could not answer in time. Try again in a moment."},
}

// outward is the one place where an error becomes what the caller sees. What is not in the table is an internal error:
// its text stays in the log.
func (a *API) outward(ctx context.Context, err error) *fault {
	var (
		known     *fault
		bad       *hub.BadInput
		throttled *access.ThrottledError
		tooBig    *http.MaxBytesError
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &bad):
		return faultf(http.StatusUnprocessableEntity, "%s", sentence(bad.Text))
	case errors.As(err, &throttled):
		return &fault{http.StatusTooManyRequests, sentence(throttled.Error()), int(throttled.After.Seconds()) + 1}
	case errors.As(err, &tooBig):
		return faultf(http.StatusRequestEntityTooLarge,
			"The request body is larger than %d bytes. Send it in several requests.", tooBig.Limit)
	}
	for _, m := range mappings {
		if errors.Is(err, m.err) {
			detail := m.detail
			if detail == "" {
				detail = sentence(err.Error())
			}
			return &fault{m.status, detail, m.retry}
		}
	}
	if ctx.Err() == nil {
		a.log.Error("request failed", "err", err)
	}
	return faultf(http.StatusInternalServerError, "The hub failed to do this; the reason is in its log.")
}

// sentence makes the text of an error presentable.
func sentence(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") {
		s += "."
	}
	return s
}

// writeProblem answers with a problem document. It must be the first write to w.
func writeProblem(w http.ResponseWriter, f *fault) {
	h := w.Header()
	for k, v := range f.GetHeaders() {
		h[k] = v
	}
	body, err := f.MarshalJSON()
	if err != nil { // a struct of texts and a number: cannot happen
		body = nil
	}
	h.Set("Content-Type", problemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(f.status)
	_, _ = w.Write(body) // the client has gone: nobody is left to be told
}

// reword turns huma's own faults (validation, decoding) into problem documents in our words, and drops the values that
// huma would send back, since they may be secrets.
func reword(_ huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	var faults []string
	for _, e := range model.Errors {
		e.Value = nil
		e.Message = strings.TrimSpace(e.Message)
		where := ""
		if e.Location != "" {
			where = e.Location + ": "
		}
		faults = append(faults, where+e.Message)
	}
	model.Detail = detailOf(model, faults)
	return model, nil
}

// detailOf says what huma found wrong, and what to do.
func detailOf(model *huma.ErrorModel, faults []string) string {
	var limit int64
	switch {
	case len(faults) > 0:
		return "The request was not understood. Correct this and send it again: " + strings.Join(faults, "; ") + "."
	case model.Status == http.StatusRequestEntityTooLarge:
		if _, err := fmt.Sscanf(model.Detail, "request body is too large limit=%d bytes", &limit); err == nil {
			return fmt.Sprintf("The request body is too large: at most %d bytes are taken. Send it in several requests.", limit-1)
		}
	case model.Status == http.StatusRequestTimeout:
		return "The request body did not arrive in time. Send it again."
	case model.Status == http.StatusBadRequest && model.Detail == "request body is required":
		return "The request has no body. GET /api/openapi.json says what this address takes."
	}
	return sentence(model.Detail)
}
