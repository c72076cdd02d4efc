package sensor

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// ErrBudget means that an operation took more time than it may. A chip that never finishes is freed by it: drivers poll for
// the end of a conversion without a limit of their own.
var ErrBudget = errors.New("the chip does not finish")

const (
	// freePolls is how many transactions of one operation go through at full speed. A driver that needs more is polling, and
	// is held to one transaction each pollEvery, so that a chip that is stuck does not cost a whole processor.
	freePolls = 64
	pollEvery = time.Millisecond
)

// Guard stands between one driver and its bus. It bounds an operation of the driver in time, remembers an error of the bus
// that the driver did not pass on, and counts. One operation runs at a time.
type Guard struct {
	bus i2c.Bus

	mu    sync.Mutex // guards the fields below
	until time.Time  // the operation must be over; zero outside of one
	tries int        // transactions of the operation
	err   error      // of the bus, the first of the operation
	stats GuardStats
}

// GuardStats counts since the Guard was made.
type GuardStats struct {
	Transactions, Errors uint64
	// Busy is how long operations took.
	Busy time.Duration
}

var _ i2c.Bus = (*Guard)(nil)

// NewGuard returns a Guard for one driver on the bus.
func NewGuard(bus i2c.Bus) *Guard { return &Guard{bus: bus} }

// String names the bus.
func (g *Guard) String() string { return g.bus.String() }

// SetSpeed is refused: the bus is shared, so a driver must not set its speed.
func (g *Guard) SetSpeed(physic.Frequency) error {
	return errors.New("the speed of a shared bus is not the driver's to set")
}

// Tx does one transaction of the operation. Drivers call it.
func (g *Guard) Tx(addr uint16, w, r []byte) error {
	g.mu.Lock()
	g.tries++
	polls, until := g.tries-freePolls, g.until
	g.mu.Unlock()
	var err error
	if !until.IsZero() && !time.Now().Before(until) {
		err = ErrBudget
	} else {
		if polls > 0 {
			<-time.After(pollEvery)
		}
		err = g.bus.Tx(addr, w, r)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.Transactions++
	if err != nil {
		g.stats.Errors++
		if g.err == nil {
			g.err = err
		}
	}
	return err
}

// Do runs one operation of the driver, which may take so long. It returns the error of the operation, or of the bus if the
// driver did not pass it on. What is on the bus already is not broken off: Tx of Linux cannot be.
func (g *Guard) Do(budget time.Duration, operation func() error) (err error) {
	began := time.Now()
	g.mu.Lock()
	g.until, g.tries, g.err = began.Add(budget), 0, nil
	g.mu.Unlock()
	defer func() {
		if p := recover(); p != nil { // of a driver that trusts what it reads
			err = fmt.Errorf("the driver failed: %v", p)
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		g.until = time.Time{}
		g.stats.Busy += time.Since(began)
		if err == nil || errors.Is(g.err, ErrBudget) {
			err = g.err
		}
	}()
	return operation()
}

// Stats returns a snapshot.
func (g *Guard) Stats() GuardStats {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stats
}
