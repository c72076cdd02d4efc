package sensor

import (
	"errors"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/bmxx80"

	"telemetryhub/device"
)

// ctrlHum is the register with the oversampling of humidity, data sheet section 5.4.3.
const ctrlHum = 0xF2

// bme280 measures temperature, pressure and humidity. Ranges are those of the data sheet (BST-BME280-DS002, table 1 to 3).
var bme280 = model{
	name:      "bme280",
	addresses: []uint16{0x76, 0x77},
	metrics: []device.Metric{
		{Name: "temperature", Unit: "Cel", Kind: device.Gauge, Exp: -2, Lo: -40, Hi: 85, Class: "temperature"},
		{Name: "pressure", Unit: "Pa", Kind: device.Gauge, Exp: -2, Lo: 30000, Hi: 110000, Class: "atmospheric_pressure"},
		{Name: "humidity", Unit: "%RH", Kind: device.Gauge, Exp: -3, Lo: 0, Hi: 100, Class: "humidity"},
	},
	budget: time.Second, // a conversion with 4-fold oversampling takes 28 ms, section 9.1
	open: func(bus i2c.Bus, addr uint16) (senser, error) {
		dev, err := bmxx80.NewI2C(bus, addr, &bmxx80.DefaultOpts)
		if err != nil {
			return nil, err
		}
		// The driver takes the BMP280 and the BMP180 too, which have no humidity.
		var steps physic.Env
		if dev.Precision(&steps); steps.Humidity == 0 {
			return nil, errors.New("this is a chip without humidity, not a BME280")
		}
		// A chip that loses its supply for a moment comes back without the setting for humidity, which the driver makes only
		// once, and then gives a constant value that looks real.
		setting := func() (byte, error) {
			var v [1]byte
			err := bus.Tx(addr, []byte{ctrlHum}, v[:])
			return v[0], err
		}
		set, err := setting()
		if err != nil {
			return nil, err
		}
		return func(dst []device.Value) error {
			if now, err := setting(); err != nil {
				return err
			} else if now != set {
				return errors.New("it has lost its settings: its supply was interrupted")
			}
			var e physic.Env
			if err := dev.Sense(&e); err != nil {
				return err
			}
			dst[0] = device.NumberValue(float64(e.Temperature-physic.ZeroCelsius) / float64(physic.Kelvin))
			dst[1] = device.NumberValue(float64(e.Pressure) / float64(physic.Pascal))
			dst[2] = device.NumberValue(float64(e.Humidity) / float64(physic.PercentRH))
			return nil
		}, nil
	},
}
