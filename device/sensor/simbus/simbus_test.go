package simbus_test

import (
	"context"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/sensor"
	"telemetryhub/device/sensor/simbus"
	"telemetryhub/firmware-sim"
	"telemetryhub/firmware-sim/chip"
)

// serve serves the board until the test ends or stop is called.
func serve(t *testing.T, path string, b simbus.Board) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- simbus.Serve(ctx, l, b) }()
	done := false
	stop = func() {
		if cancel(); !done {
			done = true
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return stop
}

func TestRealDriverReadsAChipInAnotherProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "board.sock")
	b, err := firmwaresim.NewBoard(1)
	if err != nil {
		t.Fatal(err)
	}
	stop := serve(t, path, b)
	bus, err := simbus.Dial(path).I2C("I2C1")
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Close()
	c, err := sensor.Open(bus, sensor.Spec{Model: "bme280"})
	if err != nil {
		t.Fatal(err)
	}
	values := make([]device.Value, 3)
	if err := c.Sense(values); err != nil {
		t.Fatal(err)
	}
	if v := values[0].Float(); v < 5 || v > 35 {
		t.Errorf("read %v degrees", v)
	}
	b.Bus("I2C1").SetFault(0x76, chip.Fault{NACK: true})
	if err := c.Sense(values); err == nil || !strings.Contains(err.Error(), chip.ErrNACK.Error()) {
		t.Errorf("got %v", err)
	}
	b.Bus("I2C1").SetFault(0x76, chip.Fault{})

	stop() // the board loses its supply, and comes back
	if err := c.Sense(values); err == nil {
		t.Error("a board that is gone was read")
	}
	serve(t, path, b)
	if err := c.Sense(values); err != nil {
		t.Errorf("after the board came back: %v", err)
	}
	if found, err := sensor.Scan(bus); err != nil || len(found) != 1 || found[0].Addr != 0x76 || found[0].Ready != "bme280" {
		t.Errorf("found %+v, %v", found, err)
	}
}

func TestBusThatIsNotThereIsAClearError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "board.sock")
	if _, err := simbus.Dial(path).I2C("I2C1"); err == nil || !strings.Contains(err.Error(), "is firmware-sim board running") {
		t.Errorf("got %v", err)
	}
	b, err := firmwaresim.NewBoard(1)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, path, b)
	if _, err := simbus.Dial(path).I2C("I2C7"); err == nil || !strings.Contains(err.Error(), "it has I2C1") {
		t.Errorf("got %v", err)
	}
}

func TestNoiseOnTheSocketEndsOnlyItsConnection(t *testing.T) {
	path := filepath.Join(t.TempDir(), "board.sock")
	b, err := firmwaresim.NewBoard(1)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, path, b)
	for _, noise := range []string{"\x01\x00\x00\x76\xff\xff\xff\xff", "\x09\x00\x00\x76\x00\x00\x00\x01", "\x01\x09\x00\x76\x00\x00\x00\x01", "GET / HTTP/1.1\r\n\r\n"} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte(noise)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 1)
		if n, _ := c.Read(answer); n == 1 && answer[0] == 0 {
			t.Errorf("% x was done", noise)
		}
		c.Close()
	}
	if _, err := simbus.Dial(path).I2C("I2C1"); err != nil {
		t.Error(err)
	}
}
