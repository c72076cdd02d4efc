package chip

import (
	"fmt"
	"math"
	"sync/atomic"
	"time"
)

// Registers of the BME280 (data sheet BST-BME280-DS002 rev. 1.6, section 5.3).
const (
	regTrimT    = 0x88
	regTrimP    = 0x8E
	regTrimH1   = 0xA1
	regID       = 0xD0
	regReset    = 0xE0
	regTrimH2   = 0xE1
	regCtrlHum  = 0xF2
	regStatus   = 0xF3
	regCtrlMeas = 0xF4
	regConfig   = 0xF5
	regData     = 0xF7

	idBME280  = 0x60
	resetWord = 0xB6
	measuring = 1 << 3 // in regStatus

	// What the data registers hold when a quantity was skipped, and after a reset.
	skipped20 = 0x80000
	skipped16 = 0x8000
)

// Trimming values. Those for temperature and pressure are the worked example of the BMP280 data sheet (section 3.12).
var (
	trimT = [3]int32{27504, 26435, -1000}
	trimP = [9]int32{36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000}
	trimH = [6]int32{75, 362, 0, 313, 50, 30}
)

// BME280 emulates a Bosch BME280: trimming values, control and status registers, data registers, and the conversion time.
// The value around it is turned into what the converter would give by inverting the floating-point formulae of the data
// sheet (section 8.1), so the integer code of a driver is checked against other maths than its own.
type BME280 struct {
	air   func() Air
	now   func() time.Time
	stuck atomic.Bool

	reg      [256]byte
	ptr      byte
	osrsHum  byte // takes effect with a write to ctrl_meas (section 5.4.3)
	running  bool
	finished time.Time
}

// NewBME280 returns a chip that has just been powered up. It samples air at the end of each conversion. now is its clock;
// nil means time.Now.
func NewBME280(air func() Air, now func() time.Time) *BME280 {
	if now == nil {
		now = time.Now
	}
	c := &BME280{air: air, now: now}
	c.reset()
	return c
}

// Stick makes a chip whose conversions never end, as one with a supply that is too weak. False mends it. It may be called at any
// time.
func (c *BME280) Stick(stuck bool) { c.stuck.Store(stuck) }

func (c *BME280) reset() {
	c.reg, c.osrsHum, c.running = [256]byte{}, 0, false
	c.reg[regID] = idBME280
	put := func(a int, v int32) { c.reg[a], c.reg[a+1] = byte(v), byte(v>>8) } // little endian, section 4.2.2
	for i, v := range trimT {
		put(regTrimT+2*i, v)
	}
	for i, v := range trimP {
		put(regTrimP+2*i, v)
	}
	c.reg[regTrimH1] = byte(trimH[0])
	put(regTrimH2, trimH[1])
	c.reg[0xE3] = byte(trimH[2])
	c.reg[0xE4] = byte(trimH[3] >> 4)
	c.reg[0xE5] = byte(trimH[3]&0xf | trimH[4]&0xf<<4) // H4 and H5 share a byte
	c.reg[0xE6] = byte(trimH[4] >> 4)
	c.reg[0xE7] = byte(trimH[5])
	c.setData(skipped20, skipped20, skipped16)
}

func (c *BME280) setData(temp, press, hum uint32) {
	copy(c.reg[regData:], []byte{
		byte(press >> 12), byte(press >> 4), byte(press << 4),
		byte(temp >> 12), byte(temp >> 4), byte(temp << 4),
		byte(hum >> 8), byte(hum),
	})
}

// Tx is one transaction (section 6.2): reads go on from register to register, writes are pairs of register and value.
func (c *BME280) Tx(w, r []byte) error {
	c.advance()
	if len(r) > 0 {
		if len(w) > 1 {
			return fmt.Errorf("bme280: a read after writing % x: %w", w, ErrNACK)
		}
		if len(w) == 1 {
			c.ptr = w[0]
		}
		for i := range r {
			r[i] = c.reg[c.ptr]
			c.ptr++
		}
		return nil
	}
	if len(w) == 1 {
		c.ptr = w[0]
	}
	for i := 0; i+1 < len(w); i += 2 {
		c.write(w[i], w[i+1])
	}
	return nil
}

func (c *BME280) write(reg, v byte) {
	switch reg {
	case regReset:
		if v == resetWord {
			c.reset()
		}
	case regCtrlHum:
		c.reg[reg] = v & 7
	case regCtrlMeas:
		c.reg[reg], c.osrsHum = v, c.reg[regCtrlHum]
		if c.running = v&3 != 0; c.running {
			c.finished = c.now().Add(c.duration())
		}
	case regConfig:
		if c.reg[regCtrlMeas]&3 != 3 { // in normal mode writes may be ignored, section 5.4.6
			c.reg[reg] = v
		}
	}
}

// oversampling returns how often a quantity is measured: the field of three bits holds the power of two, from 1.
func oversampling(field byte) int {
	if field &= 7; field == 0 {
		return 0
	}
	return 1 << (min(field, 5) - 1)
}

func (c *BME280) fields() (temp, press, hum byte) {
	m := c.reg[regCtrlMeas]
	return m >> 5, m >> 2 & 7, c.osrsHum & 7
}

// duration is the longest that a conversion may take, section 9.1.
func (c *BME280) duration() time.Duration {
	t, p, h := c.fields()
	us := 1250 + 2300*oversampling(t)
	for _, f := range []byte{p, h} {
		if n := oversampling(f); n > 0 {
			us += 2300*n + 575
		}
	}
	return time.Duration(us) * time.Microsecond
}

// advance ends the conversion that is due.
func (c *BME280) advance() {
	if !c.running {
		return
	}
	if c.stuck.Load() || c.now().Before(c.finished) {
		c.reg[regStatus] |= measuring
		return
	}
	c.reg[regStatus] &^= measuring
	c.convert()
	if c.reg[regCtrlMeas]&3 == 3 {
		c.finished = c.now().Add(c.duration()) // normal mode goes on at once: the standby time is not emulated
		return
	}
	c.running = false
	c.reg[regCtrlMeas] &^= 3 // a forced measurement ends in sleep mode, section 3.3.3
}

func (c *BME280) convert() {
	air := c.air()
	temp, press, hum := uint32(skipped20), uint32(skipped20), uint32(skipped16)
	ft, fp, fh := c.fields()
	if ft != 0 {
		temp = c.round(invert(20, air.Celsius*5120, fineOf), ft)
	}
	fine := fineOf(float64(temp))
	if fp != 0 {
		press = c.round(invert(20, air.Pascal, func(adc float64) float64 { return pressureOf(adc, fine) }), fp)
	}
	if fh != 0 {
		hum = invert(16, air.RH, func(adc float64) float64 { return humidityOf(adc, fine) })
	}
	c.setData(temp, press, hum)
}

// round keeps the bits that a conversion has: 16, and one more for each doubling of the oversampling, or all 20 with the filter
// (section 3.4.2).
func (c *BME280) round(code uint32, field byte) uint32 {
	if c.reg[regConfig]>>2&7 != 0 {
		return code
	}
	drop := 5 - min(field&7, 5)
	return (code + 1<<drop>>1) >> drop << drop
}

// fineOf is t_fine of section 8.1, which is the temperature in units of 1/5120 degree.
func fineOf(adc float64) float64 {
	a := (adc/16384 - float64(trimT[0])/1024) * float64(trimT[1])
	b := adc/131072 - float64(trimT[0])/8192
	return a + b*b*float64(trimT[2])
}

// pressureOf returns pascals, section 8.1.
func pressureOf(adc, fine float64) float64 {
	v1 := fine/2 - 64000
	v2 := v1 * v1 * float64(trimP[5]) / 32768
	v2 += v1 * float64(trimP[4]) * 2
	v2 = v2/4 + float64(trimP[3])*65536
	v1 = (float64(trimP[2])*v1*v1/524288 + float64(trimP[1])*v1) / 524288
	v1 = (1 + v1/32768) * float64(trimP[0])
	p := (1048576 - adc - v2/4096) * 6250 / v1
	return p + (float64(trimP[8])*p*p/2147483648+p*float64(trimP[7])/32768+float64(trimP[6]))/16
}

// humidityOf returns percent, section 8.1. It is not cut to 0 and 100, so that it can be inverted.
func humidityOf(adc, fine float64) float64 {
	h := fine - 76800
	h = (adc - (float64(trimH[3])*64 + float64(trimH[4])/16384*h)) *
		(float64(trimH[1]) / 65536 * (1 + float64(trimH[5])/67108864*h*(1+float64(trimH[2])/67108864*h)))
	return h * (1 - float64(trimH[0])*h/524288)
}

// invert returns the code of so many bits for which f is nearest to want. f rises or falls with the code.
func invert(bits int, want float64, f func(code float64) float64) uint32 {
	lo, hi := uint32(0), uint32(1)<<bits-1
	rises := f(float64(hi)) > f(float64(lo))
	for lo < hi {
		if m := (lo + hi) / 2; (f(float64(m)) < want) == rises {
			lo = m + 1
		} else {
			hi = m
		}
	}
	if lo > 0 && math.Abs(f(float64(lo-1))-want) < math.Abs(f(float64(lo))-want) {
		lo--
	}
	return lo
}
