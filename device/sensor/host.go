package sensor

import (
	"errors"
	"fmt"
	"strings"

	"periph.io/x/conn/v3/driver/driverreg"
	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/i2c/i2creg"
	"periph.io/x/host/v3"
)

// Host opens the buses of this machine.
type Host struct {
	state *driverreg.State
}

var _ Buses = (*Host)(nil)

// OpenHost looks at the machine with the drivers of periph.io. On a machine without buses it is no error that there are none.
// The drivers are global to the process, and looked for once.
func OpenHost() (*Host, error) {
	state, err := host.Init()
	if err != nil {
		return nil, fmt.Errorf("look at the hardware: %w", err)
	}
	return &Host{state}, nil
}

// I2C opens a bus of the machine.
func (h *Host) I2C(name string) (i2c.BusCloser, error) {
	bus, err := i2creg.Open(name)
	if err == nil {
		return bus, nil
	}
	var names []string
	for _, r := range i2creg.All() {
		names = append(names, append(r.Aliases, r.Name)[0])
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("this machine has no I2C bus: enable it (on a Raspberry Pi: raspi-config, Interface Options, I2C) "+
			"and let this user into the group i2c: %w", err)
	}
	return nil, fmt.Errorf("bus %q: %w: this machine has %s", name, err, strings.Join(names, ", "))
}

// Explain returns a line for each driver of the hardware: what was found, and why the others were not.
func (h *Host) Explain() []string {
	var lines []string
	for _, d := range h.state.Loaded {
		lines = append(lines, "found    "+d.String())
	}
	for _, f := range h.state.Skipped {
		lines = append(lines, "skipped  "+f.D.String()+": "+f.Err.Error())
	}
	for _, f := range h.state.Failed {
		lines = append(lines, "failed   "+f.D.String()+": "+f.Err.Error())
	}
	return lines
}

// Found is an address of a bus that answers.
type Found struct {
	Addr uint16
	// Models are the chips that this program knows at the address.
	Models []string
	// Ready is the one of them that it is, empty if it is none.
	Ready string
}

// Scan asks every address of a bus for one byte, as i2cdetect -r does, and tries to open what may be a chip that this program
// knows. Reading one byte harms no chip that is known to us, but it may confuse one that counts reads.
func Scan(bus i2c.Bus) ([]Found, error) {
	var list []Found
	var last error
	for addr := uint16(0x08); addr <= 0x77; addr++ {
		if err := bus.Tx(addr, nil, make([]byte, 1)); err != nil {
			last = err
			continue
		}
		f := Found{Addr: addr}
		for _, m := range models {
			for _, a := range m.addresses {
				if a != addr {
					continue
				}
				f.Models = append(f.Models, m.name)
				if _, err := Open(bus, Spec{Model: m.name, Addr: addr}); err == nil {
					f.Ready = m.name
				}
			}
		}
		list = append(list, f)
	}
	if len(list) == 0 {
		return nil, errors.Join(errors.New("nothing answers on this bus: check power, ground and the two wires"), last)
	}
	return list, nil
}
