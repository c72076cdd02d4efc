package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"telemetryhub/device/wire"
)

// StopError means that the hub gives this program nothing until somebody acts.
type StopError struct {
	Code   wire.CloseCode
	Reason string
}

func (e *StopError) Error() string {
	advice := ""
	switch e.Code {
	case wire.CloseWho, wire.CloseRevoked:
		advice = "; make a token with hub token create --role viewer"
	case wire.CloseProtocol:
		advice = "; check the devices, the metrics and the versions of both programs"
	}
	return fmt.Sprintf("the hub refused to be followed: %s%s", strings.TrimRight(e.Reason, ". "), advice)
}

// closedError is an end of the connection that the hub gave a reason for.
type closedError struct {
	code   wire.CloseCode
	reason string
}

func (e *closedError) Error() string {
	if known := e.code.Reason(); e.reason == "" || e.reason == known {
		return e.code.String()
	}
	return fmt.Sprintf("%d %s", uint16(e.code), e.reason)
}

// busyError means that the hub wants nobody at the moment.
type busyError struct {
	after time.Duration
	err   error
}

func (e *busyError) Error() string { return e.err.Error() }
func (e *busyError) Unwrap() error { return e.err }

// handlerError is what the caller's function returned.
type handlerError struct{ err error }

func (e *handlerError) Error() string { return e.err.Error() }

var (
	errSilent = errors.New("nothing came for too long")
	errBetter = errors.New("a better transport is tried again")
)

// badFrame is a frame that was not understood. To ask again would bring it again.
func badFrame(err error) error {
	return &StopError{wire.CloseProtocol, fmt.Sprintf("a frame was not understood: %v", err)}
}

// refusal turns an HTTP answer that is not the feed into an error, which says what the problem document says. It is final
// only if it is the hub that answers: proxies refuse transports too.
func refusal(resp *http.Response) error {
	var problem struct{ Title, Detail string }
	text := resp.Status
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	ours := err == nil && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/problem+json") &&
		json.Unmarshal(body, &problem) == nil
	if ours {
		text = fmt.Sprintf("%s: %s", resp.Status, problem.Detail)
	}
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		return &StopError{wire.CloseWho, text}
	case http.StatusForbidden, http.StatusUnprocessableEntity, http.StatusBadRequest:
		code := wire.CloseProtocol
		if resp.StatusCode == http.StatusForbidden {
			code = wire.CloseWho
		}
		if ours {
			return &StopError{code, text}
		}
	case http.StatusGone:
		if ours {
			return &closedError{wire.CloseResume, problem.Detail}
		}
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		busy := &busyError{err: fmt.Errorf("the hub answered %s", text)}
		if s, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && s > 0 {
			busy.after = time.Duration(min(s, 3600)) * time.Second
		}
		return busy
	}
	if !ours {
		text += " (is this the address of a hub, and does a proxy in between let this pass?)"
	}
	return fmt.Errorf("the answer was %s", text)
}

// ended returns what the end of a connection with that code means.
func ended(code wire.CloseCode, reason string) error {
	if code >= 4000 && code < 5000 && !code.Reconnect() {
		if reason == "" {
			reason = code.Reason()
		}
		return &StopError{code, reason}
	}
	return &closedError{code, reason}
}

// unreachable reports whether another transport would fare no better: the hub is not there, or wants nobody.
func unreachable(err error, proxied bool) bool {
	var (
		op     *net.OpError
		dns    *net.DNSError
		busy   *busyError
		closed *closedError
	)
	switch {
	case errors.As(err, &busy):
		return true
	case errors.As(err, &closed):
		return closed.code >= 4000
	case proxied:
		return false
	}
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &dns)
}
