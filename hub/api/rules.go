package api

import (
	"net/http"
	"strings"

	"telemetryhub/device"
	"telemetryhub/hub/access"
)

// rule says who may use a route. The zero rule allows nobody.
type rule struct {
	// open routes take everybody, also without a credential.
	open bool
	// own routes see to identity and Origin themselves: they hand the connection on.
	own bool
	// known routes take everybody whose credential is good.
	known bool
	// loopback routes are open to programs on the same machine, unless a proxy stands before the hub.
	loopback bool
	// action is what the caller must be allowed to do.
	action access.Action
	// or is another action that suffices.
	or access.Action
	// device routes are about the device in the path: the caller must be allowed to do the action on that one.
	device bool
	// plain routes are what devices need, and the only ones at addresses without TLS beyond this machine.
	plain bool
	// list routes are about many devices: a caller who is limited to some gets these only. The handler sees to it.
	list bool
	// data routes are asked again and again by programs, and answer nothing but JSON: see API.protect. Their handlers take the
	// caller from the answer, and bound their own time.
	data bool
}

// rules is the one table of what each route needs. It is never written. What is not in it is denied.
var rules = map[string]rule{
	"GET /{$}":              {open: true},
	"GET /assets/{file}":    {open: true},
	"GET /welcome":          {open: true},
	"GET /welcome/{$}":      {open: true},
	"GET /healthz":          {open: true, plain: true},
	"GET /readyz":           {open: true, plain: true},
	"GET /api/openapi.json": {open: true},
	"GET /api/openapi.yaml": {open: true},
	"GET /metrics":          {action: access.ReadMetrics, loopback: true},
	"GET /device/v1":        {own: true, plain: true},
	"GET /api/v1/live":      {own: true},
	"GET /public/{path...}": {open: true},
	"GET /socket.io/{$}":    {own: true},
	"POST /socket.io/{$}":   {own: true},
	"GET /socket.io/{file}": {open: true},

	"GET /api/live.schema.json": {open: true},
	"GET /api/asyncapi.yaml":    {open: true},

	"POST /api/v1/login":          {open: true},
	"POST /api/v1/links/claim":    {open: true},
	"POST /api/v1/logout":         {action: access.OwnAccount},
	"GET /api/v1/me":              {known: true},
	"POST /api/v1/me/password":    {action: access.OwnAccount},
	"POST /api/v1/enrol":          {action: access.Enrol, list: true, plain: true},
	"GET /api/v1/status":          {action: access.ReadStatus},
	"GET /api/v1/audit":           {action: access.ReadAudit},
	"POST /api/v1/flush":          {action: access.Maintain},
	"GET /api/v1/live/sse":        {action: access.ReadLive, list: true},
	"GET /api/v1/live/poll":       {action: access.ReadLive, list: true, data: true},
	"GET /api/v1/latest":          {action: access.ReadLive, list: true},
	"GET /api/v1/devices":         {action: access.ReadDevices, list: true},
	"POST /api/v1/devices":        {action: access.CreateDevice},
	"GET /api/v1/devices/{id}":    {action: access.ReadDevices, device: true},
	"PATCH /api/v1/devices/{id}":  {action: access.EditDevice, device: true},
	"DELETE /api/v1/devices/{id}": {action: access.DeleteDevice, device: true},
	"GET /api/v1/devices/{id}/readings": {
		action: access.ReadHistory, device: true},
	// A device sends as itself. Whoever may edit a device may also enter readings for it by hand.
	"POST /api/v1/devices/{id}/readings": {
		action: access.SendReadings, or: access.EditDevice, device: true, plain: true},

	"GET /api/v1/tokens":          {action: access.ManageTokens},
	"POST /api/v1/tokens":         {action: access.ManageTokens},
	"DELETE /api/v1/tokens/{id}":  {action: access.ManageTokens},
	"GET /api/v1/users":           {action: access.ManageUsers},
	"POST /api/v1/users":          {action: access.ManageUsers},
	"PATCH /api/v1/users/{name}":  {action: access.ManageUsers},
	"DELETE /api/v1/users/{name}": {action: access.ManageUsers},
	// Package access lets people see and end their own sessions only.
	"GET /api/v1/users/{name}/sessions":              {action: access.ManageUsers, or: access.OwnAccount},
	"DELETE /api/v1/users/{name}/sessions/{session}": {action: access.ManageUsers, or: access.OwnAccount},
	"POST /api/v1/users/{name}/links":                {action: access.ManageUsers},
}

// check returns nil if the caller may use the route, and otherwise an error that wraps access.ErrDenied.
func (u *rule) check(id *access.Identity, r *http.Request) error {
	err := u.checkAction(u.action, id, r)
	if err != nil && u.or != "" && u.checkAction(u.or, id, r) == nil {
		return nil
	}
	return err
}

func (u *rule) checkAction(action access.Action, id *access.Identity, r *http.Request) error {
	switch {
	case u.known && id.Kind != "":
		return nil
	case action == "":
		return access.ErrDenied
	case u.device:
		return id.RequireOn(action, device.ID(r.PathValue("id")))
	case u.list:
		// Whoever may do it on a device that the first pattern covers may do it on some.
		some := ""
		if len(id.Devices) > 0 {
			some = strings.TrimSuffix(id.Devices[0], "*")
		}
		return id.RequireOn(action, device.ID(some))
	}
	return id.Require(action)
}
