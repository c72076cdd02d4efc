package wire

import (
	"fmt"
	"math"
	"slices"
	"unicode"
	"unicode/utf8"

	"telemetryhub/device"
)

// CheckSchema returns nil if the schema keeps every rule of PROTOCOL.md: names, numbers, units, limits. The error says
// which metric, set or command breaks which rule, and wraps [ErrProtocol].
func CheckSchema(s *device.Schema) error {
	if err := checkOpaque("schema id", s.ID, device.MaxSchemaIDLen); err != nil {
		return err
	}
	if len(s.Metrics) > device.MaxMetrics {
		return protocolError("%d metrics, the limit is %d", len(s.Metrics), device.MaxMetrics)
	}
	if len(s.Sets) > device.MaxSets {
		return protocolError("%d sets, the limit is %d", len(s.Sets), device.MaxSets)
	}
	if len(s.Commands) > MaxCommands {
		return protocolError("%d commands, the limit is %d", len(s.Commands), MaxCommands)
	}
	aliases, names := map[uint16]bool{}, map[string]bool{}
	for i := range s.Metrics {
		m := &s.Metrics[i]
		if err := checkMetric(m); err != nil {
			return fmt.Errorf("metric %d: %w", i, err)
		}
		if aliases[m.Alias] {
			return protocolError("metric %d: alias %d is used twice", i, m.Alias)
		}
		if names[m.Name] {
			return protocolError("metric %d: name %q is used twice", i, m.Name)
		}
		aliases[m.Alias], names[m.Name] = true, true
	}
	if err := checkSets(s); err != nil {
		return err
	}
	for i, c := range s.Commands {
		if err := CheckCommand(c); err != nil {
			return fmt.Errorf("command %d: %w", i, err)
		}
		if slices.Contains(s.Commands[:i], c) {
			return protocolError("command %d: %q is declared twice", i, c)
		}
	}
	return nil
}

func checkMetric(m *device.Metric) error {
	if err := device.CheckName(m.Name); err != nil {
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch {
	case m.Alias == 0:
		return protocolError("the alias is missing: use 1 to 65535")
	case m.Kind < device.Gauge || m.Kind > device.Text:
		return protocolError("unknown kind %d", m.Kind)
	case m.Exp < -MaxExp || m.Exp > MaxExp:
		return protocolError("the exponent %d is not between -%d and %d", m.Exp, MaxExp, MaxExp)
	case math.IsInf(m.Lo, 0) || math.IsInf(m.Hi, 0):
		return protocolError("an infinite limit: leave it out instead")
	case m.Lo > m.Hi:
		return protocolError("lo %v is above hi %v", m.Lo, m.Hi)
	case m.IntervalMS < 0 || m.IntervalMS > MaxIntervalMS:
		return protocolError("the interval %d ms is not between 0 and 366 days", m.IntervalMS)
	}
	if err := CheckUnit(m.Unit); err != nil {
		return err
	}
	if err := checkPrintable("class", m.Class, MaxWord); err != nil {
		return err
	}
	return checkPrintable("source", m.Source, MaxSource)
}

func checkSets(s *device.Schema) error {
	seen := map[uint16]bool{}
	for i := range s.Sets {
		set := &s.Sets[i]
		switch {
		case set.Index == 0:
			return protocolError("set %d: the number is missing: use 1 to 65535", i)
		case seen[set.Index]:
			return protocolError("set %d: number %d is used twice", i, set.Index)
		case len(set.Metrics) == 0:
			return protocolError("set %d: no metrics", i)
		case len(set.Metrics) > len(s.Metrics):
			return protocolError("set %d: more metrics than the schema has", i)
		}
		seen[set.Index] = true
		for j, m := range set.Metrics {
			if m < 0 || m >= len(s.Metrics) {
				return protocolError("set %d: no metric %d", i, m)
			}
			if slices.Contains(set.Metrics[:j], m) {
				return protocolError("set %d: metric %q stands twice", i, s.Metrics[m].Name)
			}
		}
		for j := range i {
			if slices.Equal(set.Metrics, s.Sets[j].Metrics) {
				return protocolError("sets %d and %d have the same metrics", j, i)
			}
		}
	}
	return nil
}

// CheckUnit returns nil if unit is at most device.MaxUnitLen bytes of printable UTF-8. It may be empty.
func CheckUnit(unit string) error { return checkPrintable("unit", unit, device.MaxUnitLen) }

// CheckCommand returns nil if name is a command name: a letter or digit first, then letters, digits and - . _, at most
// [MaxWord] bytes. It is one segment of an MQTT topic.
func CheckCommand(name string) error {
	if name == "" || len(name) > MaxWord {
		return protocolError("a command name has 1 to %d characters, not %d", MaxWord, len(name))
	}
	for i := range len(name) {
		c := name[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '-' || c == '.' || c == '_'):
		default:
			return protocolError("%q may not stand in a command name (letters, digits and - . _ may)", c)
		}
	}
	return nil
}

// CheckStream returns nil if id is a stream id: 1 to device.MaxStreamIDLen bytes of printable UTF-8.
func CheckStream(id string) error { return checkOpaque("stream id", id, device.MaxStreamIDLen) }

func checkOpaque(what, s string, limit int) error {
	if s == "" {
		return protocolError("the %s is missing", what)
	}
	return checkPrintable(what, s, limit)
}

// checkPrintable refuses what would garble a log or a page: other encodings than UTF-8, control characters, and the
// marks that change the direction of writing.
func checkPrintable(what, s string, limit int) error {
	if len(s) > limit {
		return protocolError("the %s is longer than %d bytes", what, limit)
	}
	if !utf8.ValidString(s) {
		return protocolError("the %s is not UTF-8", what)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return protocolError("the %s contains %U", what, r)
		}
	}
	return nil
}
