package device

import (
	"errors"
	"fmt"
	"math"
	"strings"
)

// MaxNameLen is the longest metric name in bytes.
const MaxNameLen = 64

// MaxUnitLen is the longest unit in bytes.
const MaxUnitLen = 32

// Kind says how the values of a metric behave. The numbers are stored: never renumber them.
type Kind uint8

// The kinds of metric.
const (
	Gauge   Kind = 1 // a level that goes up and down
	Counter Kind = 2 // a total that grows until it is reset
	State   Kind = 3 // one of a few values: on or off, open or closed, a word
	Text    Kind = 4 // free text
)

var kindNames = [...]string{Gauge: "gauge", Counter: "counter", State: "state", Text: "text"}

// String returns the name that is used on the wire.
func (k Kind) String() string {
	if k == 0 || int(k) >= len(kindNames) {
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
	return kindNames[k]
}

// ParseKind is the inverse of [Kind.String].
func ParseKind(s string) (Kind, error) {
	for k, name := range kindNames {
		if k > 0 && name == s {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("unknown kind %q: use gauge, counter, state or text", s)
}

// Metric describes one named quantity of one device.
//
// Name, Unit and Kind make its identity: a metric whose unit or kind changes is a new version and never joined with
// the old one in one line. All other fields describe and may change freely.
type Metric struct {
	// Num is the number that the hub gave to this version of the metric. It is unique within the device, never
	// reused, and zero until the hub has registered the metric.
	Num uint32
	// Alias is the number that the device uses in its rows, 1 to 65535, unique within the schema.
	Alias uint16
	Name  string
	// Unit is a SenML unit name (RFC 8428 section 12.1, RFC 8798), or any other text, which is shown but never
	// converted. Values are stored in this unit.
	Unit string
	Kind Kind
	// Exp scales integers on the wire: the value is the integer times ten to the Exp. From -15 to 15.
	Exp int8
	// Lo and Hi are the plausible range. A value outside is stored and flagged. NaN means no limit.
	Lo, Hi float64
	// IntervalMS is the expected time between two readings in milliseconds. Zero means not declared.
	IntervalMS int64
	// Class says what is measured ("temperature", "humidity"), where the unit does not say it.
	Class string
	// Source says where on the device the value comes from ("bme280@I2C1/0x76").
	Source string
}

// SameLine reports whether values of m and o may be joined in one line: same name, unit and kind.
func (m *Metric) SameLine(o *Metric) bool {
	return m.Name == o.Name && m.Unit == o.Unit && m.Kind == o.Kind
}

// Plausible reports whether v lies within Lo and Hi.
func (m *Metric) Plausible(v float64) bool { return !(v < m.Lo) && !(v > m.Hi) }

// NewMetric returns a gauge with no unit and no limits, as the hub makes it when a device sends a name that it has
// not declared.
func NewMetric(name string) Metric {
	return Metric{Name: name, Kind: Gauge, Lo: math.NaN(), Hi: math.NaN()}
}

// ErrName reports that a string is not a metric name.
var ErrName = errors.New("not a metric name")

// CheckName returns nil if name follows RFC 8428 section 4.5.1 (a letter or digit first, then letters, digits and
// - : . / _), is at most [MaxNameLen] bytes and its first segment is none of status, cmd and gap, which MQTT topics
// and history use. Otherwise the error wraps [ErrName] and says what is wrong.
func CheckName(name string) error {
	if name == "" || len(name) > MaxNameLen {
		return fmt.Errorf("%w: 1 to %d characters are allowed, got %d", ErrName, MaxNameLen, len(name))
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '-' || c == ':' || c == '.' || c == '/' || c == '_'):
		default:
			return fmt.Errorf("%w: %q may not stand at byte %d (letters, digits and - : . / _ may, and a letter or digit comes first)", ErrName, c, i)
		}
	}
	first, _, _ := strings.Cut(name, "/")
	switch first {
	case "status", "cmd", "gap":
		return fmt.Errorf("%w: the first segment %q is reserved", ErrName, first)
	}
	return nil
}
