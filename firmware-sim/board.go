package firmwaresim

import (
	"errors"
	"fmt"
	"time"

	"telemetryhub/device/sensor/simbus"
	"telemetryhub/firmware-sim/chip"
	"telemetryhub/firmware-sim/world"
)

// Board is a simulated machine: buses with chips in a room. A process with simbus reads it as its own hardware.
type Board struct {
	buses []*chip.Bus
}

var _ simbus.Board = (*Board)(nil)

// NewBoard returns a board with a bus I2C1 and a BME280 at 0x76 on it, in a room of its own for each seed.
func NewBoard(seed uint64) (*Board, error) {
	room := world.NewRoom(seed)
	bus := chip.NewBus("I2C1")
	sensor := chip.NewBME280(func() chip.Air { return room.Air(time.Now()) }, nil)
	if err := bus.Add(0x76, sensor); err != nil {
		return nil, fmt.Errorf("simulated board: %w", err)
	}
	return &Board{buses: []*chip.Bus{bus}}, nil
}

// Buses returns the names of the buses.
func (b *Board) Buses() []string {
	var names []string
	for _, bus := range b.buses {
		names = append(names, bus.String())
	}
	return names
}

// Tx does one transaction.
func (b *Board) Tx(bus int, addr uint16, w, r []byte) error {
	if bus < 0 || bus >= len(b.buses) {
		return errors.New("no such bus")
	}
	return b.buses[bus].Tx(addr, w, r)
}

// Bus returns a bus by its name, to put faults on it; nil if there is none.
func (b *Board) Bus(name string) *chip.Bus {
	for _, bus := range b.buses {
		if bus.String() == name {
			return bus
		}
	}
	return nil
}
