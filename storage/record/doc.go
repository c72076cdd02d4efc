// Package record is the format of the log: a group is a header and a sequence of records, a record is one batch or
// one gap of one device. FORMAT.md has every byte.
//
// Each record carries a checksum of its own, so that the rest of a damaged group stays readable, and all that is needed
// to find duplicates stands in its header, so that recovery can skip the rows.
package record

import (
	"errors"

	"telemetryhub/device"
)

// Version is the format version of a group.
const Version = 1

// Kind tells records apart. The numbers are stored: never renumber them.
type Kind uint8

// The kinds of record.
const (
	Data Kind = 1
	Gap  Kind = 2
)

// Header is what every record begins with.
type Header struct {
	Kind        Kind
	TimeQuality device.TimeQuality
	// TimeReplaced means that a row's time was not acceptable and the row is filed under the arrival time.
	TimeReplaced bool
	// Device and Stream are numbers of the hub. Stream is unique within the device, and zero without a stream.
	Device, Stream uint32
	// Seq is the place in the stream, zero if the record has none.
	Seq uint64
	// ArrivalMS is when the hub received it, in Unix milliseconds.
	ArrivalMS int64
}

// ErrBad means that bytes are not a record of this format. It wraps what a reader should tell: the store returned
// bytes whose checksum holds but which this program cannot read.
var ErrBad = errors.New("not a record")
