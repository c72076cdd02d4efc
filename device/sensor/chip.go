package sensor

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"periph.io/x/conn/v3/i2c"

	"telemetryhub/device"
)

// Chip is one sensor that is ready to be read. It is used by one goroutine.
type Chip interface {
	// Sense reads every quantity once, in the order of the driver's metrics, and puts them into dst. It may take a second.
	Sense(dst []device.Value) error
}

// model is what is known about one type of chip.
type model struct {
	name      string
	addresses []uint16
	metrics   []device.Metric
	// budget is the longest that opening or sensing may take.
	budget time.Duration
	open   func(bus i2c.Bus, addr uint16) (senser, error)
}

// senser reads a chip by its driver.
type senser func(dst []device.Value) error

var models = []model{bme280}

// Models returns the names of the chips that this program knows.
func Models() []string {
	var names []string
	for _, m := range models {
		names = append(names, m.name)
	}
	return names
}

// Spec says which chip stands where.
type Spec struct {
	// Model is the type of the chip, as "bme280".
	Model string
	// Bus is the name of its bus, as "I2C1". Empty means the first one.
	Bus string
	// Addr is its address. Zero means the usual one.
	Addr uint16
	// Prefix is put before the names of its metrics: "outside/" makes "outside/temperature".
	Prefix string
	// Every is the time between two readings, aligned with the clock. Zero means 10 s; less than 100 ms is an error.
	Every time.Duration
	// Offsets are added to readings, by the name of the metric without the prefix: a calibration.
	Offsets map[string]float64
}

// fill checks and completes a Spec.
func (s *Spec) fill() (*model, error) {
	i := slices.IndexFunc(models, func(m model) bool { return m.name == s.Model })
	if i < 0 {
		return nil, fmt.Errorf("chip %q is not known: use one of %s", s.Model, strings.Join(Models(), ", "))
	}
	m := &models[i]
	if s.Addr == 0 {
		s.Addr = m.addresses[0]
	}
	if !slices.Contains(m.addresses, s.Addr) {
		return nil, fmt.Errorf("a %s cannot have the address %#02x: use one of %s", m.name, s.Addr, hexList(m.addresses))
	}
	if s.Every == 0 {
		s.Every = 10 * time.Second
	}
	if s.Every < 100*time.Millisecond || s.Every > 24*time.Hour {
		return nil, fmt.Errorf("%s: every %v: use 100ms to 24h", m.name, s.Every)
	}
	for name, v := range s.Offsets {
		if !slices.ContainsFunc(m.metrics, func(x device.Metric) bool { return x.Name == name }) {
			return nil, fmt.Errorf("%s: an offset for %q, which it does not measure", m.name, name)
		}
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf("%s: the offset for %s is no number", m.name, name)
		}
	}
	return m, nil
}

// metricsOf returns the metrics of the chip as they are declared.
func (s *Spec) metricsOf(m *model) ([]device.Metric, error) {
	list := slices.Clone(m.metrics)
	for i := range list {
		list[i].Name = s.Prefix + list[i].Name
		list[i].IntervalMS = s.Every.Milliseconds()
		list[i].Source = s.source()
		if err := device.CheckName(list[i].Name); err != nil {
			return nil, fmt.Errorf("%s with the prefix %q: %w", s.Model, s.Prefix, err)
		}
	}
	return list, nil
}

// source names the place of the chip on the machine, as "bme280@I2C1/0x76".
func (s *Spec) source() string {
	return fmt.Sprintf("%s@%s/%#02x", s.Model, cmp.Or(s.Bus, "I2C"), s.Addr)
}

func hexList(addrs []uint16) string {
	var list []string
	for _, a := range addrs {
		list = append(list, fmt.Sprintf("%#02x", a))
	}
	return strings.Join(list, ", ")
}

// chip is a Chip behind its Guard.
type chip struct {
	spec  *Spec
	model *model
	guard *Guard
	read  senser
}

// Open makes a chip ready on its bus. The error names the chip and says what to look at.
func Open(bus i2c.Bus, s Spec) (Chip, error) {
	m, err := s.fill()
	if err != nil {
		return nil, err
	}
	c := &chip{spec: &s, model: m, guard: NewGuard(bus)}
	err = c.guard.Do(m.budget, func() (err error) {
		c.read, err = m.open(c.guard, s.Addr)
		return err
	})
	if err != nil {
		return nil, c.explain(err)
	}
	return c, nil
}

// Sense reads the chip within its budget, adds the offsets, and keeps the decimals that the metric is declared with.
func (c *chip) Sense(dst []device.Value) error {
	if len(dst) != len(c.model.metrics) {
		return fmt.Errorf("%s has %d quantities, not %d", c.model.name, len(c.model.metrics), len(dst))
	}
	if err := c.guard.Do(c.model.budget, func() error { return c.read(dst) }); err != nil {
		return c.explain(err)
	}
	for i := range dst {
		m := &c.model.metrics[i]
		if dst[i].Type == device.Number {
			dst[i] = device.NumberValue(roundTo(dst[i].Float()+c.spec.Offsets[m.Name], m.Exp))
		}
	}
	return nil
}

// roundTo rounds to a multiple of 10 to the exp, the nearest decimal, so that it takes few bytes and is what people read.
func roundTo(v float64, exp int8) float64 {
	if exp >= 0 {
		p := math.Pow10(int(exp))
		return math.Round(v/p) * p
	}
	p := math.Pow10(-int(exp))
	return math.Round(v*p) / p
}

func (c *chip) explain(err error) error {
	hint := "check the wiring and the address"
	if errors.Is(err, ErrBudget) {
		hint = "check its supply, then restart it"
	}
	return fmt.Errorf("%s: %w: %s", c.spec.source(), err, hint)
}
