package sio

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/sio/socket"
)

// Auth is what the adapter needs of identity.
type Auth interface {
	// Identify returns who stands behind a request by the token in its header or by its session cookie, and nobody if it has
	// neither. With a cookie the Origin of an upgrade, and of everything but GET, must be ours, or the error wraps
	// access.ErrDenied; see access.Origins.CheckSession. It must not block for long.
	Identify(r *http.Request) (access.Identity, error)
	// Token returns who an access token belongs to, or an error of package access.
	Token(token string) (access.Identity, error)
	// Watch calls ended once when the identity is no longer what it was. ended returns at once. stop ends the watch.
	Watch(id access.Identity, ended func(access.Reason)) (stop func())
}

// Close codes of the hub's sockets that are used here.
const (
	closeResume  = 4010
	closeRevoked = 4503
)

// payload is what a client says when it connects, besides pid and offset.
type payload struct {
	Token     string        `json:"token"`
	Subscribe *subscription `json:"subscribe"`
}

// identify returns who wants to connect: whoever the token in the payload belongs to, or else who opened the session.
func (s *Server) identify(at *socket.Socket, auth payload) (access.Identity, error) {
	id := at.Opener()
	if auth.Token != "" {
		var err error
		if id, err = s.auth.Token(auth.Token); err != nil {
			return access.Identity{}, s.refuseToken(at, err)
		}
	}
	switch {
	case id.Kind == "":
		return id, refuse("unauthorized", `Say who you are: io({auth: {token: "…"}}), or log in to the hub in this browser.`)
	case id.Kind == access.KindDevice || id.Kind == access.KindEnrolment || id.Role < access.Viewer:
		return id, refuse("forbidden", fmt.Sprintf("A credential of kind %q may not see live values: use a viewer token.", id.Kind))
	}
	return id, nil
}

func (s *Server) refuseToken(at *socket.Socket, err error) error {
	switch {
	case errors.Is(err, access.ErrBusy):
		return socket.ErrAgain
	case errors.Is(err, access.ErrNotToken), errors.Is(err, access.ErrUnknownToken), errors.Is(err, access.ErrExpired):
		s.Logger.Info("connection refused", "reason", "identity", "remote", at.Remote(), "err", err)
		return refuse("unauthorized", "The token is not in force. Make a new one: hub token create --role viewer.")
	case errors.Is(err, access.ErrDenied):
		s.Logger.Info("connection refused", "reason", "forbidden", "remote", at.Remote(), "err", err)
		return refuse("forbidden", "The token is for something else: use a viewer token.")
	}
	return fmt.Errorf("find out who connects: %w", err)
}

// refuse tells a client why it cannot connect: err.message is the code, err.data.detail says what to do.
func refuse(code, detail string) error {
	return &socket.ConnectError{Message: code, Data: struct {
		Detail string `json:"detail"`
	}{detail}}
}

// readPayload reads what a client says when it connects.
func readPayload(raw json.RawMessage) (payload, error) {
	var auth payload
	if err := json.Unmarshal(raw, &auth); err != nil {
		return payload{}, refuse("bad request", `auth must look like {token: "…", subscribe: {devices: ["*"], mode: "all"}}.`)
	}
	return auth, nil
}

// ownerOf returns what a socket must have in common with the one that it wants to go on with.
func ownerOf(id access.Identity) string {
	return fmt.Sprintf("%s %s %s", id.Kind, id.Credential, id.Role)
}

// watch ends the socket as soon as the identity is no longer what it was.
func (s *Server) watch(at *socket.Socket, id access.Identity) (stop func()) {
	return s.auth.Watch(id, func(why access.Reason) {
		switch why {
		case access.Changed:
			at.Close(closeResume, "your role was changed; connect again")
		case access.Expired:
			at.End(closeRevoked, "expired: this token or session is over; get a new one")
		default:
			at.End(closeRevoked, "revoked: this token or session is no longer in force")
		}
	})
}

// refuseSubscription maps an error of Subscribe.
func refuseSubscription(err error) error {
	if bad, ok := errors.AsType[*hub.BadInput](err); ok {
		return refuse("bad request", bad.Error())
	}
	if errors.Is(err, hub.ErrDraining) || errors.Is(err, hub.ErrTooMany) {
		return socket.ErrAgain
	}
	return fmt.Errorf("subscribe: %w", err)
}
