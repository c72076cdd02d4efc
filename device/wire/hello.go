package wire

import (
	"telemetryhub/device"
)

// Hello is the first message of a device.
type Hello struct {
	// Device is who the device says it is. Empty means: whoever the token names.
	Device device.ID `json:"dev,omitempty"`
	// Firmware is the version of the program on the device, Model its hardware, Boot an opaque id of this boot.
	Firmware string `json:"fw,omitempty"`
	Model    string `json:"model,omitempty"`
	Boot     string `json:"boot,omitempty"`
	// UptimeS is the time since the boot in seconds.
	UptimeS uint64 `json:"up,omitempty"`
	// Stream names the spool whose batches the device will send. Empty means that it sends none with a number.
	Stream string `json:"st,omitempty"`
	// Next is the number that the next new batch will get, and Have that of the oldest batch still in the spool, equal
	// to Next if the spool is empty. Both are zero without a stream, and at least 1 with one.
	Next uint64 `json:"next,omitempty"`
	Have uint64 `json:"have,omitempty"`
	// Schema is the id of the schema that the device will use, empty if it will use none.
	Schema string `json:"schema,omitempty"`
	// Config is the revision of the configuration in use, zero if it has none from the hub.
	Config uint64 `json:"cfg,omitempty"`
	// Clock is the quality of the device's clock now.
	Clock device.TimeQuality `json:"tq,omitempty"`
	Caps  []string           `json:"caps,omitempty"`
}

// AppendHello appends h to dst.
func AppendHello(dst []byte, f Format, h *Hello) []byte { return appendControl(dst, f, TypeHello, h) }

// DecodeHello decodes and checks a hello. The error wraps ErrProtocol or ErrTooBig, as for every decoder here.
func DecodeHello(f Format, frame []byte) (Hello, error) { return decodeAs[Hello](f, frame, TypeHello) }

func (h *Hello) check() error {
	if h.Device != "" {
		if _, err := device.ParseID(string(h.Device)); err != nil {
			return protocolError("hello: dev: %v", err)
		}
	}
	if h.Clock > device.ClockNTP {
		return protocolError("hello: tq is not 0, 1 or 2")
	}
	if h.Config > MaxSeq || h.UptimeS > MaxSeq {
		return protocolError("hello: cfg or up is over 2^53-1")
	}
	if h.Stream == "" && (h.Next != 0 || h.Have != 0) {
		return protocolError("hello: next and have need a stream")
	}
	if h.Stream != "" && (h.Have < 1 || h.Have > h.Next || h.Next > MaxSeq) {
		return protocolError("hello: 1 ≤ have ≤ next < 2^53 is not true of have %d and next %d", h.Have, h.Next)
	}
	return firstError(
		checkPrintable("stream id", h.Stream, device.MaxStreamIDLen),
		checkPrintable("schema id", h.Schema, device.MaxSchemaIDLen),
		checkPrintable("firmware", h.Firmware, MaxWord),
		checkPrintable("model", h.Model, MaxWord),
		checkPrintable("boot id", h.Boot, MaxWord),
		checkCaps(h.Caps),
	)
}

func checkCaps(caps []string) error {
	if len(caps) > MaxCaps {
		return protocolError("%d capabilities, the limit is %d", len(caps), MaxCaps)
	}
	for _, c := range caps {
		if err := checkOpaque("capability", c, MaxWord); err != nil {
			return err
		}
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Limits is what a device may have in flight.
type Limits struct {
	// Win is how many batches and gaps may be sent and not yet acknowledged, Bytes how many bytes of their frames. One
	// message may always be in flight, however large.
	Win   uint32 `json:"win"`
	Bytes uint32 `json:"bytes"`
	// Max is the largest frame in bytes, at most MaxFrame.
	Max uint32 `json:"max"`
}

// Answers of a welcome about the schema that the hello named.
const (
	SchemaOK   = "ok"   // the hub knows it: no birth is needed
	SchemaNeed = "need" // send a birth before any data
)

// Welcome is the hub's answer to a hello.
type Welcome struct {
	// NowMS is the hub's time in Unix milliseconds.
	NowMS int64 `json:"now"`
	// Ack is the last batch of the stream that is durable, zero if there is none. The device goes on after it.
	Ack uint64 `json:"ack"`
	// Schema is SchemaOK or SchemaNeed, empty if the hello named none.
	Schema string `json:"schema,omitempty"`
	Limits Limits `json:"lim"`
	// PingS is how often the hub pings, in seconds. No frame for 2.5 times as long means a dead connection.
	PingS uint32 `json:"ping"`
	// Config is the revision of the configuration that the hub has for the device, zero if it has none.
	Config uint64   `json:"cfg,omitempty"`
	Caps   []string `json:"caps,omitempty"`
}

// AppendWelcome appends w to dst.
func AppendWelcome(dst []byte, f Format, w *Welcome) []byte {
	return appendControl(dst, f, TypeWelcome, w)
}

// DecodeWelcome decodes and checks a welcome.
func DecodeWelcome(f Format, frame []byte) (Welcome, error) {
	return decodeAs[Welcome](f, frame, TypeWelcome)
}

func (w *Welcome) check() error {
	switch {
	case w.Ack > MaxSeq || w.Config > MaxSeq:
		return protocolError("welcome: ack or cfg is over 2^53-1")
	case w.Schema != "" && w.Schema != SchemaOK && w.Schema != SchemaNeed:
		return protocolError("welcome: schema is not %q or %q", SchemaOK, SchemaNeed)
	case w.Limits.Win == 0 || w.Limits.Bytes == 0 || w.Limits.Max == 0 || w.Limits.Max > MaxFrame:
		return protocolError("welcome: a limit is missing, or max is over %d", MaxFrame)
	case w.PingS == 0:
		return protocolError("welcome: ping is missing")
	}
	return firstError(checkTime("now", w.NowMS), checkCaps(w.Caps))
}

func checkTime(what string, ms int64) error {
	if ms < -MaxTimeMS || ms > MaxTimeMS {
		return protocolError("%s is not between -2^53 and 2^53 ms", what)
	}
	return nil
}
