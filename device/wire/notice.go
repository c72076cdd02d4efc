package wire

// Slow asks a device to send less for a while.
type Slow struct {
	// Win and Bytes are the limits while it lasts. Win zero means: send no data at all.
	Win   uint32 `json:"win"`
	Bytes uint32 `json:"bytes,omitempty"`
	// BatchMS is the least time between two batches that the hub would like, in milliseconds. Zero means no wish.
	BatchMS uint32 `json:"batch,omitempty"`
	// ForMS is how long it lasts, in milliseconds; after that the limits from before are valid again. Another slow
	// replaces it. Zero ends it now.
	ForMS uint32 `json:"for"`
	// Why is one of the SlowWhy texts or another short word.
	Why string `json:"why,omitempty"`
}

// Reasons for a slow.
const (
	SlowLoad = "load" // the hub has too much to do
	SlowFull = "full" // the hub's disk is full
	SlowRate = "rate" // the device sends more than it may
)

// AppendSlow appends s to dst.
func AppendSlow(dst []byte, f Format, s *Slow) []byte { return appendControl(dst, f, TypeSlow, s) }

// DecodeSlow decodes and checks a slow.
func DecodeSlow(f Format, frame []byte) (Slow, error) { return decodeAs[Slow](f, frame, TypeSlow) }

func (s *Slow) check() error { return checkPrintable("why", s.Why, MaxWord) }

// Time compares clocks. The device sends T0, its own time; the hub returns it with T1, its time of arrival, and T2, its
// time of sending. All are Unix milliseconds. With T3, the device's time when the answer comes, the device's clock must
// be set forward by ((T1-T0)+(T2-T3))/2.
type Time struct {
	T0 int64 `json:"t0"`
	T1 int64 `json:"t1,omitempty"`
	T2 int64 `json:"t2,omitempty"`
}

// AppendTime appends t to dst.
func AppendTime(dst []byte, f Format, t *Time) []byte { return appendControl(dst, f, TypeTime, t) }

// DecodeTime decodes and checks a time.
func DecodeTime(f Format, frame []byte) (Time, error) { return decodeAs[Time](f, frame, TypeTime) }

func (t *Time) check() error {
	return firstError(checkTime("t0", t.T0), checkTime("t1", t.T1), checkTime("t2", t.T2))
}

// Levels of an event.
const (
	LevelInfo  = "info"
	LevelWarn  = "warn"
	LevelError = "error"
)

// Event tells that something happened on a device, for people to see. It is not stored with the readings.
type Event struct {
	// TimeMS is when it happened; relative to arrival as for data if zero or negative.
	TimeMS int64  `json:"t,omitempty"`
	Level  string `json:"lvl"`
	// Code is a short word for programs ("sensor_fault"), Msg a text for people of at most MaxText bytes.
	Code string `json:"code"`
	Msg  string `json:"msg,omitempty"`
	// Alias is the metric that is concerned, zero if none.
	Alias uint16 `json:"a,omitempty"`
}

// AppendEvent appends e to dst. Msg is cut to MaxText bytes.
func AppendEvent(dst []byte, f Format, e *Event) []byte {
	c := *e
	c.Msg = clean(c.Msg)
	return appendControl(dst, f, TypeEvent, &c)
}

// DecodeEvent decodes and checks an event.
func DecodeEvent(f Format, frame []byte) (Event, error) { return decodeAs[Event](f, frame, TypeEvent) }

func (e *Event) check() error {
	switch e.Level {
	case LevelInfo, LevelWarn, LevelError:
	default:
		return protocolError("event: unknown level %q", e.Level)
	}
	return firstError(checkTime("t", e.TimeMS), checkOpaque("code", e.Code, MaxWord), checkText("msg", e.Msg))
}

// Codes of an err.
const (
	ErrCodeUnknown = "unknown" // a message of a type that this side does not know
	ErrCodeInvalid = "invalid" // a message that breaks a rule; it was ignored
	ErrCodeRefused = "refused" // a message that is understood and not allowed
)

// Err says that a message was not accepted. The connection goes on.
type Err struct {
	Code string `json:"code"`
	// Re is the name or number of the message that it is about.
	Re  string `json:"re,omitempty"`
	Msg string `json:"msg,omitempty"`
}

// AppendErr appends e to dst. Msg is cut to MaxText bytes.
func AppendErr(dst []byte, f Format, e *Err) []byte {
	c := *e
	c.Msg = clean(c.Msg)
	return appendControl(dst, f, TypeErr, &c)
}

// DecodeErr decodes and checks an err.
func DecodeErr(f Format, frame []byte) (Err, error) { return decodeAs[Err](f, frame, TypeErr) }

func (e *Err) check() error {
	return firstError(checkOpaque("code", e.Code, MaxWord), checkPrintable("re", e.Re, MaxWord), checkText("msg", e.Msg))
}

// Bye announces that the sender is about to close the connection, or asks the other side to do so.
type Bye struct {
	Code CloseCode `json:"code"`
	// RetryMS is the earliest time to connect again, in milliseconds from now. Zero leaves it to the usual back-off.
	RetryMS uint32 `json:"retry,omitempty"`
	Why     string `json:"why,omitempty"`
}

// AppendBye appends b to dst. Why is cut to MaxText bytes.
func AppendBye(dst []byte, f Format, b *Bye) []byte {
	c := *b
	c.Why = clean(c.Why)
	return appendControl(dst, f, TypeBye, &c)
}

// DecodeBye decodes and checks a bye. Codes that this version does not know are kept.
func DecodeBye(f Format, frame []byte) (Bye, error) { return decodeAs[Bye](f, frame, TypeBye) }

func (b *Bye) check() error {
	if b.Code != 1000 && (b.Code < 4000 || b.Code > 4999) {
		return protocolError("bye: %d is not a close code", b.Code)
	}
	return checkText("why", b.Why)
}
