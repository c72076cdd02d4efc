package chip

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Air is the physical truth at one place and moment.
type Air struct {
	Celsius float64
	Pascal  float64
	// RH is the relative humidity in percent.
	RH float64
}

// Chip is one device on an I2C bus. Tx writes w and then, after a repeated start, reads r; either may be empty. An error is a
// NACK. The bus calls it from one goroutine at a time.
type Chip interface {
	Tx(w, r []byte) error
}

// ErrNACK is what a master sees when nobody answers. Linux gives EREMOTEIO for it.
var ErrNACK = errors.New("no answer (remote I/O error)")

// Fault is something wrong with one address of a bus, or with the whole bus.
type Fault struct {
	// NACK makes the address answer nothing.
	NACK bool
	// Hang makes a transaction hang for so long and then fail, as with a clock line that is held low: nobody else gets on
	// the bus meanwhile.
	Hang time.Duration
	// Flip changes one bit of what is read.
	Flip bool
}

// Bus is an I2C bus with chips. It is safe for concurrent use: as on a real one, there is one transaction at a time.
type Bus struct {
	name string

	tx sync.Mutex // held for a transaction

	mu     sync.Mutex // guards the fields below
	chips  map[uint16]Chip
	faults map[uint16]Fault
	flips  int
}

// NewBus returns an empty bus.
func NewBus(name string) *Bus {
	return &Bus{name: name, chips: map[uint16]Chip{}, faults: map[uint16]Fault{}}
}

// String returns the name of the bus.
func (b *Bus) String() string { return b.name }

// Add puts a chip on the bus. The error says if the address is taken or impossible (I2C has 7 bits, and some are reserved).
func (b *Bus) Add(addr uint16, c Chip) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if addr < 0x08 || addr > 0x77 {
		return fmt.Errorf("%s: address %#02x is not one of 0x08 to 0x77", b.name, addr)
	}
	if b.chips[addr] != nil {
		return fmt.Errorf("%s: two chips at address %#02x", b.name, addr)
	}
	b.chips[addr] = c
	return nil
}

// Addresses returns the addresses with a chip, ascending.
func (b *Bus) Addresses() []uint16 {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []uint16
	for a := range b.chips {
		list = append(list, a)
	}
	slices.Sort(list)
	return list
}

// SetFault puts a fault at an address, in place of the one before. The zero Fault ends it.
func (b *Bus) SetFault(addr uint16, f Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults[addr] = f
}

// Tx does one transaction. The error wraps ErrNACK if nobody answers at the address.
func (b *Bus) Tx(addr uint16, w, r []byte) error {
	b.tx.Lock()
	defer b.tx.Unlock()
	b.mu.Lock()
	c, f := b.chips[addr], b.faults[addr]
	b.mu.Unlock()
	if f.Hang > 0 {
		<-time.After(f.Hang)
		return fmt.Errorf("%s: the bus is held low (connection timed out)", b.name)
	}
	if c == nil || f.NACK {
		return fmt.Errorf("%s: %#02x: %w", b.name, addr, ErrNACK)
	}
	if err := c.Tx(w, r); err != nil {
		return fmt.Errorf("%s: %#02x: %w", b.name, addr, err)
	}
	if f.Flip && len(r) > 0 {
		b.flips++
		r[b.flips%len(r)] ^= 1 << (b.flips % 8)
	}
	return nil
}
