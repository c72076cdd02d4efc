package access

import (
	"fmt"
	"strings"

	"telemetryhub/device"
)

// Role is what a person or an integration is trusted with. Each role may do all that the lower ones may.
type Role uint8

// The roles, lowest first. NoRole is the role of devices and of enrolment tokens.
const (
	NoRole Role = iota
	Viewer
	Operator
	Admin
)

// ParseRole returns the role named viewer, operator or admin, or an error that wraps ErrInvalid.
func ParseRole(name string) (Role, error) {
	for role := Viewer; role <= Admin; role++ {
		if role.String() == name {
			return role, nil
		}
	}
	return NoRole, fmt.Errorf("%w role %q: use viewer, operator or admin", ErrInvalid, name)
}

// String returns the name by which the role is stored.
func (r Role) String() string {
	switch r {
	case Viewer:
		return "viewer"
	case Operator:
		return "operator"
	case Admin:
		return "admin"
	}
	return "none"
}

// MarshalText returns the name.
func (r Role) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText takes a name.
func (r *Role) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRole(string(text))
	return err
}

// Kind tells what sort of credential an identity stands on. The texts are stored: never change them.
type Kind string

// The kinds. The zero Kind is nobody and may do nothing.
const (
	KindDevice    Kind = "device"    // a device token: one device, acting as itself
	KindAPI       Kind = "api"       // an API token: an integration with a role
	KindEnrolment Kind = "enrolment" // an enrolment token: may only be exchanged for a device token
	KindPerson    Kind = "person"    // a session: a person with a role
	KindLocal     Kind = "local"     // the control socket: whoever owns the hub's process
)

// Identity is who a credential belongs to, as it was when the credential was looked at. It is a value to be used for
// one request, or for one connection together with Registry.Watch. The zero value is nobody.
type Identity struct {
	Kind Kind
	// Device is the device of a device token.
	Device device.ID
	// User is the name of a person.
	User string
	// Role is the role of a person, of an API token, or of the control socket.
	Role Role
	// Credential is the public id of the token or of the session. It is empty for the control socket.
	Credential string
	// Devices are the only devices that an API token may touch or that an enrolment token may enrol: ids, or
	// beginnings of ids with a star at the end. None means all. It must not be changed.
	Devices []string
}

// Local returns the identity of the control socket, which administers.
func Local() Identity { return Identity{Kind: KindLocal, Role: Admin} }

// Name says who it is, for the audit log and for log lines.
func (id Identity) Name() string {
	switch id.Kind {
	case KindPerson:
		return id.User
	case KindDevice:
		return "device:" + string(id.Device)
	case KindAPI:
		return "token:" + id.Credential
	case KindEnrolment:
		return "enrolment:" + id.Credential
	case KindLocal:
		return "local"
	}
	return "nobody"
}

// covers reports whether the patterns name the device. No patterns name every device.
func covers(patterns []string, dev device.ID) bool {
	for _, p := range patterns {
		if head, found := strings.CutSuffix(p, "*"); p == string(dev) || found && strings.HasPrefix(string(dev), head) {
			return true
		}
	}
	return len(patterns) == 0
}

// checkPatterns returns an error that wraps ErrInvalid unless every pattern could name a device.
func checkPatterns(patterns []string) error {
	if len(patterns) > maxPatterns {
		return fmt.Errorf("%w: %d device patterns, at most %d can be given", ErrInvalid, len(patterns), maxPatterns)
	}
	for _, p := range patterns {
		head, star := strings.CutSuffix(p, "*")
		if star && head == "" {
			continue
		}
		if _, err := device.ParseID(head); err != nil {
			return fmt.Errorf("%w device pattern %q: %w; a star may stand at the end", ErrInvalid, p, err)
		}
	}
	return nil
}
