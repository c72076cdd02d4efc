package sensor_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/device/sensor"
	"telemetryhub/firmware-sim/chip"
)

func TestGuardTellsOfErrorsThatADriverSwallows(t *testing.T) {
	g := sensor.NewGuard(wire{chip.NewBus("I2C1")})
	err := g.Do(time.Second, func() error {
		_ = g.Tx(0x40, []byte{0}, nil) // what such a driver does
		return nil
	})
	if !errors.Is(err, chip.ErrNACK) {
		t.Errorf("got %v", err)
	}
	if err := g.Do(time.Second, func() error { return nil }); err != nil {
		t.Errorf("the error stays: %v", err)
	}
	if st := g.Stats(); st.Transactions != 1 || st.Errors != 1 {
		t.Errorf("got %+v", st)
	}
}

func TestGuardFreesADriverThatPollsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		g := sensor.NewGuard(b)
		began, polls := time.Now(), 0
		err := g.Do(time.Second, func() error {
			for {
				polls++
				if err := g.Tx(0x76, []byte{0xF3}, make([]byte, 1)); err != nil {
					return err
				}
			}
		})
		if took := time.Since(began); !errors.Is(err, sensor.ErrBudget) || took != time.Second {
			t.Errorf("got %v after %v", err, took)
		}
		if polls > 1_100 {
			t.Errorf("%d transactions in a second: a stuck chip costs a processor", polls)
		}
	})
}

func TestPanicOfADriverIsAnError(t *testing.T) {
	g := sensor.NewGuard(wire{chip.NewBus("I2C1")})
	err := g.Do(time.Second, func() error { panic("index out of range") })
	if err == nil || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("got %v", err)
	}
}
