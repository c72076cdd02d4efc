package wire

import "telemetryhub/device"

// Flags is what a data message says about its batch as a whole. Bits that are not defined here are ignored.
type Flags uint8

// clockMask holds the time quality plus one. Zero means: as the hello said.
const clockMask Flags = 3

// ClockFlag returns the flags of a batch whose times have the given quality.
func ClockFlag(q device.TimeQuality) Flags { return Flags(q+1) & clockMask }

// Clock returns the quality of the times of the batch: what the flags say, or else what the hello said.
func (f Flags) Clock(hello device.TimeQuality) device.TimeQuality {
	if f&clockMask == 0 {
		return hello
	}
	return device.TimeQuality(f&clockMask) - 1
}
