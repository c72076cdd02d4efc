package device

import "math"

// Type tells the four types of value apart. The numbers are stored: never renumber them.
type Type uint8

// The types of value. Absent means that the row has no reading for the metric, which is not the same as a reading
// of zero or of an empty text.
const (
	Absent Type = 0
	Number Type = 1
	Bool   Type = 2
	String Type = 3
)

// MaxTextLen is the longest text value in bytes.
const MaxTextLen = 4096

// Value is one reading as the device sent it. The zero value is absent.
type Value struct {
	Type Type
	num  float64
	text string
}

// NumberValue returns a number. NaN and infinities are not readings: decoders refuse them.
func NumberValue(f float64) Value { return Value{Type: Number, num: f} }

// BoolValue returns a truth value.
func BoolValue(b bool) Value {
	v := Value{Type: Bool}
	if b {
		v.num = 1
	}
	return v
}

// TextValue returns a text of at most [MaxTextLen] bytes of valid UTF-8.
func TextValue(s string) Value { return Value{Type: String, text: s} }

// Float returns the number, or 0 and 1 for false and true. It is zero for the other types.
func (v Value) Float() float64 { return v.num }

// Text returns the text. It is empty for the other types.
func (v Value) Text() string { return v.text }

// Equal reports whether v and o are the same type and the same value, bit by bit (so that 0 and -0 differ).
func (v Value) Equal(o Value) bool {
	return v.Type == o.Type && math.Float64bits(v.num) == math.Float64bits(o.num) && v.text == o.text
}

// Quality flags a reading. The bits are stored: never renumber them. Zero means good.
type Quality uint8

// The quality bits. The lower four may come from the device, the upper four are set by the hub.
const (
	Suspect    Quality = 1 << 0 // the device doubts the value
	Bad        Quality = 1 << 1 // the device knows that the value is wrong
	Stale      Quality = 1 << 2 // the device repeats an old value
	Simulated  Quality = 1 << 3 // the value comes from a simulation
	OutOfRange Quality = 1 << 4 // outside Metric.Lo and Metric.Hi
	FromDevice         = Suspect | Bad | Stale | Simulated
)

// TimeQuality says how far the clock of a device can be trusted. The numbers go over the wire.
type TimeQuality uint8

// The time qualities.
const (
	ClockNone TimeQuality = 0 // never set: times are relative to sending
	ClockHub  TimeQuality = 1 // set from the hub
	ClockNTP  TimeQuality = 2 // kept by NTP or GPS
)

// Row is one instant of a set, or of a single metric.
type Row struct {
	Ref Ref
	// TimeMS is the device's time of the instant in Unix milliseconds, as it was sent.
	TimeMS int64
	// Values holds one value for each metric of the set; some may be absent.
	Values []Value
	// Quality applies to every value of the row.
	Quality Quality
}

// Batch is what a device numbers and what the hub stores and acknowledges whole.
type Batch struct {
	// Seq counts the batches and gaps of a stream from 1. Zero means that the batch is not numbered: it is stored
	// at most once and not acknowledged.
	Seq uint64
	// BaseMS is the time that row times are stored relative to; the spread of a batch is at most [MaxSpanMS].
	BaseMS int64
	Rows   []Row
}

// MaxSpanMS is the longest time between two rows of one batch: 31 days.
const MaxSpanMS = 31 * 24 * 3600 * 1000

// MaxRows is the largest number of rows in one batch. A frame of 64 KiB cannot hold more.
const MaxRows = 16384

// Cause says why readings are missing. The names are stored and go over the wire.
type Cause string

// The causes of a gap.
const (
	CauseSpoolFull Cause = "spool_full" // the device's spool was full
	CauseDamaged   Cause = "damaged"    // a file was damaged, on the device or on the hub
	CauseJump      Cause = "jump"       // the sequence jumped and the device did not say why
	CauseRefused   Cause = "refused"    // rows that the hub refused
	CauseSensor    Cause = "sensor"     // the sensor failed
	CauseSkipped   Cause = "skipped"    // a consumer was too far behind
	CauseOther     Cause = "other"
)

// Gap is a recorded loss: readings that are known to be missing, and why.
type Gap struct {
	// Seq is the gap's own place in the stream. Zero for gaps that the hub found by itself.
	Seq uint64
	// FromSeq and ToSeq are the first and last sequence number that is missing, zero if unknown.
	FromSeq, ToSeq uint64
	// Count is the number of lost readings, zero if unknown.
	Count uint64
	// FromMS and ToMS bound the device time of what is missing, in Unix milliseconds, zero if unknown.
	FromMS, ToMS int64
	Cause        Cause
}
