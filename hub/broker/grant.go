package broker

import (
	"strings"

	"telemetryhub/device"
	"telemetryhub/hub/access"
)

// grant decides what a client may publish and subscribe to. Whatever it does not name is denied.
type grant struct {
	id    access.Identity
	local bool // the hub itself
}

// owner is what a client id belongs to while there is a session of it. A device may have several tokens; every other
// token is somebody of its own.
type owner struct {
	kind access.Kind
	name string
}

func (g grant) owner() owner {
	switch {
	case g.local:
		return owner{}
	case g.id.Kind == access.KindDevice:
		return owner{access.KindDevice, string(g.id.Device)}
	}
	return owner{g.id.Kind, g.id.Credential}
}

// name says who it is, for the log.
func (g grant) name() string {
	if g.local {
		return "hub"
	}
	return g.id.Name()
}

// connect reports whether the identity may connect at all.
func (g grant) connect() bool {
	if g.local {
		return true
	}
	switch g.id.Kind {
	case access.KindDevice:
		return g.id.Device != ""
	case access.KindAPI:
		return g.id.Role >= access.Viewer
	}
	return false
}

// publish reports whether a message may be published to a valid topic.
func (g grant) publish(topic string) bool {
	l := strings.Split(topic, "/")
	switch {
	case g.local:
		return l[0] == "telemetry" || l[0] == "homeassistant"
	case g.id.Kind == access.KindDevice:
		return l[0] == "ingest" && len(l) >= 2 && g.onDevice(access.SendReadings, l[1])
	case topic == "homeassistant/status":
		return g.id.Can(access.SendCommand)
	}
	return l[0] == "telemetry" && len(l) >= 3 && l[2] == "cmd" && g.onDevice(access.SendCommand, l[1])
}

// subscribe reports whether every topic that a valid filter can match may be read. A topic is such a filter too.
func (g grant) subscribe(filter string) bool {
	l := strings.Split(filter, "/")
	switch {
	case g.local:
		return l[0] == "telemetry" || l[0] == "homeassistant"
	case g.id.Kind == access.KindDevice:
		return l[0] == "telemetry" && len(l) >= 3 && l[1] == string(g.id.Device) && l[2] == "cmd"
	case g.id.Can(access.ReadLive):
		return l[0] == "telemetry" || l[0] == "homeassistant"
	}
	return l[0] == "telemetry" && len(l) >= 2 && g.onDevice(access.ReadLive, l[1])
}

// onDevice reports whether the action is allowed on the device that one level of a topic names. A wildcard names none.
func (g grant) onDevice(a access.Action, level string) bool {
	id, err := device.ParseID(level)
	return err == nil && g.id.CanOn(a, id)
}

// splitShare returns the filter that a shared subscription is for, and whether it is one. What mochi would take for one
// but is not in the form of MQTT 5 section 4.8.2 gives the empty filter, which nobody may subscribe to.
func splitShare(filter string) (inner string, shared bool) {
	first, rest, _ := strings.Cut(filter, "/")
	if !strings.EqualFold(first, "$share") {
		return filter, false
	}
	group, inner, _ := strings.Cut(rest, "/")
	if first != "$share" || group == "" || strings.ContainsAny(group, "+#") {
		return "", true
	}
	return inner, true
}
