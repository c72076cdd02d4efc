package access

import (
	"fmt"
	"maps"
	"slices"

	"telemetryhub/device"
)

// Action is something that a caller asks for. Its text appears in the audit log and in error messages.
type Action string

// The actions. A route, topic or command that fits none of them needs a new line here and in the table below.
const (
	ReadLive     Action = "live.read"      // newest values and the live feed
	ReadHistory  Action = "history.read"   // readings, gaps, exports
	ReadDevices  Action = "devices.read"   // the list of devices and what is known about them
	ReadStatus   Action = "status.read"    // how the hub is doing
	ReadMetrics  Action = "metrics.read"   // the hub's own figures for Prometheus
	EditDevice   Action = "devices.edit"   // display name, labels, position
	SendCommand  Action = "devices.cmd"    // commands to a device
	CreateDevice Action = "devices.create" // a new device
	DeleteDevice Action = "devices.delete" // a device with all its history
	SendReadings Action = "readings.send"  // readings of a device, by itself
	Enrol        Action = "devices.enrol"  // exchange of an enrolment token for a device token
	ManageTokens Action = "tokens.manage"  // tokens of devices and integrations, enrolment tokens
	ManageUsers  Action = "users.manage"   // people, their roles, links and sessions
	ReadAudit    Action = "audit.read"     // the audit log
	Configure    Action = "hub.configure"  // settings of the hub
	Maintain     Action = "hub.maintain"   // backup, compaction
	OwnAccount   Action = "account.own"    // own password, own sessions
)

// rule says who may do an action.
type rule struct {
	// from is the lowest role that may do it. NoRole means that no role gives the right.
	from Role
	// one means that the action can be about one single device, so that an identity limited to some devices may do
	// it on these.
	one bool
	// only is a kind that may do it whatever its role: a device on itself, an enrolment token, a person.
	only Kind
}

// rules is never written. Whatever is not in it is denied.
var rules = map[Action]rule{
	ReadLive:     {from: Viewer, one: true},
	ReadHistory:  {from: Viewer, one: true},
	ReadDevices:  {from: Viewer, one: true},
	ReadStatus:   {from: Viewer},
	ReadMetrics:  {from: Viewer},
	EditDevice:   {from: Operator, one: true},
	SendCommand:  {from: Operator, one: true},
	CreateDevice: {from: Admin},
	DeleteDevice: {from: Admin, one: true},
	SendReadings: {one: true, only: KindDevice},
	Enrol:        {one: true, only: KindEnrolment},
	ManageTokens: {from: Admin},
	ManageUsers:  {from: Admin},
	ReadAudit:    {from: Admin},
	Configure:    {from: Admin},
	Maintain:     {from: Admin},
	OwnAccount:   {only: KindPerson},
}

// Actions returns every action there is, sorted, so that tests can go through all of them.
func Actions() []Action { return slices.Sorted(maps.Keys(rules)) }

// Can reports whether the identity may do the action whichever device it is about. A device token, an enrolment token
// and an API token that is limited to some devices may do nothing of the sort: ask CanOn for them.
func (id Identity) Can(a Action) bool {
	return id.Kind != KindDevice && id.Kind != KindEnrolment && len(id.Devices) == 0 && id.may(rules[a])
}

// CanOn reports whether the identity may do the action on the device. Actions that are not about one device are
// answered as by Can.
func (id Identity) CanOn(a Action, dev device.ID) bool {
	r := rules[a]
	if !r.one {
		return id.Can(a)
	}
	if id.Kind == KindDevice && id.Device != dev {
		return false
	}
	return covers(id.Devices, dev) && id.may(r)
}

// Scope returns on which devices the identity may do the action: nil stands for all.
func (id Identity) Scope(a Action) func(device.ID) bool {
	if id.Can(a) {
		return nil
	}
	return func(dev device.ID) bool { return id.CanOn(a, dev) }
}

// may asks kind and role. The zero rule, which stands for an unknown action, allows nothing.
func (id Identity) may(r rule) bool {
	switch id.Kind {
	case KindDevice, KindEnrolment:
		return r.only == id.Kind
	case KindPerson:
		return r.only == id.Kind || r.allows(id.Role)
	case KindAPI, KindLocal:
		return r.allows(id.Role)
	}
	return false
}

func (r rule) allows(role Role) bool { return r.from != NoRole && role >= r.from && role <= Admin }

// Require returns nil if the identity Can, and otherwise an error that wraps ErrDenied.
func (id Identity) Require(a Action) error {
	if id.Can(a) {
		return nil
	}
	return id.denied(a)
}

// RequireOn returns nil if the identity CanOn, and otherwise an error that wraps ErrDenied.
func (id Identity) RequireOn(a Action, dev device.ID) error {
	if id.CanOn(a, dev) {
		return nil
	}
	return id.denied(a)
}

func (id Identity) denied(a Action) error {
	if from := rules[a].from; from != NoRole && id.Role < from {
		return fmt.Errorf("%w: %s needs the role %s", ErrDenied, a, from)
	}
	return fmt.Errorf("%w: %s is not for this credential", ErrDenied, a)
}
