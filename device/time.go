package device

// Bounds of an acceptable device time.
const (
	// EarliestMS is 2000-01-01 00:00 UTC. A clock that says less was never set.
	EarliestMS = 946_684_800_000
	// MaxAheadMS is how far a device's clock may run ahead of the hub's: 5 minutes.
	MaxAheadMS = 5 * 60 * 1000
)

// Filed returns the time under which a reading is kept: the device's own time if it lies between [EarliestMS] and
// arrival plus [MaxAheadMS], else the arrival time and false. All times are Unix milliseconds.
func Filed(timeMS, arrivalMS int64) (int64, bool) {
	if timeMS < EarliestMS || timeMS > arrivalMS+MaxAheadMS {
		return arrivalMS, false
	}
	return timeMS, true
}
