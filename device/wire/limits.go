package wire

import "telemetryhub/device"

// Limits of the protocol. Both sides check them. The limits of a schema stand in package device.
const (
	// MaxFrame is the largest frame in bytes. A welcome may state a smaller limit.
	MaxFrame = 64 << 10
	// MaxNesting is how deep arrays and maps may be nested in a frame, the outermost counted as 1.
	MaxNesting = 8
	// MaxSeq is the largest sequence number. Larger ones are not exact in JavaScript.
	MaxSeq = 1<<53 - 1
	// MaxTimeMS bounds every time on the wire: from -MaxTimeMS to MaxTimeMS milliseconds.
	MaxTimeMS = 1<<53 - 1
	// MaxWord is the longest short string in bytes: firmware, model, boot, command names, result ids, codes.
	MaxWord = 64
	// MaxText is the longest free text in bytes that explains something to a person.
	MaxText = 512
	// MaxURL is the longest address in bytes.
	MaxURL = 2048
	// MaxCaps is the largest number of capabilities one side may name.
	MaxCaps = 32
	// MaxArgs is the largest number of arguments of one command.
	MaxArgs = 32
	// MaxCommands is the largest number of commands that a birth may declare.
	MaxCommands = 64
	// MaxConfig is the largest configuration document in bytes.
	MaxConfig = 32 << 10
	// MaxBad is the largest number of entries in a list of bad rows; the last one counts the rest.
	MaxBad = 32
	// MaxSource is the longest Metric.Source in bytes.
	MaxSource = 128
	// MaxIntervalMS is the longest expected interval of a metric: 366 days.
	MaxIntervalMS = 366 * 24 * 3600 * 1000
	// MaxExp is the largest Metric.Exp, and its negative the smallest.
	MaxExp = 15
	// MaxExactInt is the largest integer up to which every integer is exact in a float64.
	MaxExactInt = 1 << 53
)

// SubprotocolCBOR and SubprotocolJSON say in what form the hub sends. A client that offers neither gets JSON. What a
// client sends is told by the opcode of each frame, whatever was agreed: text is JSON, binary is CBOR.
const (
	SubprotocolCBOR = "hub.v1.cbor"
	SubprotocolJSON = "hub.v1.json"
)

// Capabilities that hello and welcome may name. A side uses only what both named.
const (
	CapCommands = "cmd"
	CapConfig   = "cfg"
	CapOTA      = "ota"
	CapTime     = "time"
	CapState    = "state"
)

// Relative reports whether t is relative to the arrival of the frame, as a device without a clock sends it: zero is the
// moment of sending, -5000 is five seconds before. Times of 1 and more are Unix milliseconds.
func Relative(t int64) bool { return t <= 0 }

// Resolve moves the times of a batch that are relative to arrival to Unix milliseconds and reports whether it did so.
func Resolve(b *device.Batch, arrivalMS int64) bool {
	if !Relative(b.BaseMS) {
		return false
	}
	b.BaseMS += arrivalMS
	for i := range b.Rows {
		b.Rows[i].TimeMS += arrivalMS
	}
	return true
}
