package sensor_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/physic"
	"tinygo.org/x/drivers/bme280"

	"telemetryhub/device"
	"telemetryhub/device/sensor"
	"telemetryhub/firmware-sim/chip"
)

// wire is a simulated bus as drivers see it.
type wire struct{ *chip.Bus }

func (wire) SetSpeed(physic.Frequency) error { return nil }
func (wire) Close() error                    { return nil }

// bench is a bus with one BME280 in an air that the test sets. Its conversions are done at once.
type bench struct {
	wire
	air  chip.Air
	chip *chip.BME280
}

func newBench(t *testing.T) *bench {
	b := &bench{wire: wire{chip.NewBus("I2C1")}, air: chip.Air{Celsius: 21.37, Pascal: 101325.4, RH: 47.31}}
	var ahead time.Duration
	b.chip = chip.NewBME280(func() chip.Air { return b.air }, func() time.Time {
		ahead += time.Hour
		return time.Unix(0, 0).Add(ahead)
	})
	if err := b.Add(0x76, b.chip); err != nil {
		t.Fatal(err)
	}
	return b
}

// The steps of the chip where they are coarsest, with the oversampling that package sensor asks for: 18 bits for temperature
// and pressure, 16 for humidity; and the decimals of the driver and of the metric.
const (
	stepCelsius = 0.01 + 0.005
	stepPascal  = 0.75
	stepRH      = 0.012
)

// TestBME280ReadsWhatIsAround sets 5,000 airs over the range of the chip, and reads each by the real driver of periph.io and by
// that of TinyGo, which share no code: the emulation and our reading of both agree within a step of the chip.
func TestBME280ReadsWhatIsAround(t *testing.T) {
	synctest.Test(t, sweep) // the driver waits 26 ms for each of them
}

func sweep(t *testing.T) {
	b := newBench(t)
	c, err := sensor.Open(b, sensor.Spec{Model: "bme280", Bus: "I2C1"})
	if err != nil {
		t.Fatal(err)
	}
	points := 0
	var worst [3]float64
	values := make([]device.Value, 3)
	for celsius := -40.0; celsius <= 85; celsius += 5 {
		for pascal := 30_000.0; pascal <= 110_000; pascal += 5_000 {
			for rh := 2.0; rh <= 98; rh += 8 {
				points++
				b.air = chip.Air{Celsius: celsius + rh/1000, Pascal: pascal + rh/3, RH: rh}
				if err := c.Sense(values); err != nil {
					t.Fatalf("%+v: %v", b.air, err)
				}
				for i, want := range []float64{b.air.Celsius, b.air.Pascal, b.air.RH} {
					off := math.Abs(values[i].Float() - want)
					if worst[i] = max(worst[i], off); off > []float64{stepCelsius, stepPascal, stepRH}[i] {
						t.Fatalf("%+v: read %v, %v, %v", b.air, values[0].Float(), values[1].Float(), values[2].Float())
					}
				}
			}
		}
	}
	if points < 5_000 {
		t.Errorf("only %d points", points)
	}
	t.Logf("%d points, worst %.4f °C, %.3f Pa, %.4f %%", points, worst[0], worst[1], worst[2])
}

func TestBME280AgreesWithAnotherDriver(t *testing.T) {
	b := newBench(t)
	other := bme280.New(b)
	other.Configure()
	for celsius := -40.0; celsius <= 85; celsius += 2.5 {
		b.air = chip.Air{Celsius: celsius, Pascal: 60_000 + 400*celsius, RH: 50 + celsius/2}
		if celsius == -40 { // it reads what was there before its first conversion
			if _, err := other.ReadTemperature(); err != nil {
				t.Fatal(err)
			}
		}
		mC, err1 := other.ReadTemperature()
		mPa, err2 := other.ReadPressure()
		hundredths, err3 := other.ReadHumidity()
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		c, err := sensor.Open(b, sensor.Spec{Model: "bme280"})
		if err != nil {
			t.Fatal(err)
		}
		ours := make([]device.Value, 3)
		if err := c.Sense(ours); err != nil {
			t.Fatal(err)
		}
		other.Configure() // ours has changed the settings
		for i, v := range []float64{float64(mC) / 1000, float64(mPa) / 1000, float64(hundredths) / 100} {
			if d := math.Abs(v - ours[i].Float()); d > []float64{0.02, 3, 0.03}[i] {
				t.Errorf("%+v: value %d is %v by TinyGo's driver and %v by periph's", b.air, i, v, ours[i].Float())
			}
		}
	}
}

func TestOffsetsAreAddedAndDecimalsKept(t *testing.T) {
	b := newBench(t)
	c, err := sensor.Open(b, sensor.Spec{Model: "bme280", Offsets: map[string]float64{"temperature": -0.4}})
	if err != nil {
		t.Fatal(err)
	}
	values := make([]device.Value, 3)
	if err := c.Sense(values); err != nil {
		t.Fatal(err)
	}
	if got := values[0].Float(); got != 20.97 {
		t.Errorf("got %v, want exactly 20.97", got)
	}
}

// TestChipThatLostItsSettingsIsNotBelieved: after a reset the chip leaves humidity out, which the driver does not notice.
func TestChipThatLostItsSettingsIsNotBelieved(t *testing.T) {
	b := newBench(t)
	c, err := sensor.Open(b, sensor.Spec{Model: "bme280"})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Tx(0x76, []byte{0xE0, 0xB6}, nil); err != nil {
		t.Fatal(err)
	}
	values := make([]device.Value, 3)
	if err := c.Sense(values); err == nil || !strings.Contains(err.Error(), "lost its settings") {
		t.Errorf("read %v with error %v", values, err)
	}
}

func TestWhatIsNoBME280IsRefused(t *testing.T) {
	b := newBench(t)
	for _, spec := range []sensor.Spec{
		{Model: "bme281"},
		{Model: "bme280", Addr: 0x40},
		{Model: "bme280", Every: time.Millisecond},
		{Model: "bme280", Offsets: map[string]float64{"co2": 1}},
		{Model: "bme280", Offsets: map[string]float64{"humidity": math.NaN()}},
		{Model: "bme280", Addr: 0x77}, // nobody there
	} {
		if _, err := sensor.Open(b, spec); err == nil {
			t.Errorf("%+v was taken", spec)
		}
	}
}
