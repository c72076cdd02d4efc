package wire

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"telemetryhub/device"

	"github.com/fxamacker/cbor/v2"
)

// Arg is one argument of a command: a number, a truth value or a text.
type Arg struct {
	Name  string
	Value device.Value
}

// Cmd asks a device to do something. It may come more than once with the same ID; the device must then answer with the
// result it gave before and not do it again.
type Cmd struct {
	ID   string // opaque
	Name string
	Args []Arg // sorted by name, no name twice
	// TTLMS is how long the command is good for after it was sent, in milliseconds. Zero means for ever.
	TTLMS uint64
}

type cmdBody struct {
	ID   string `json:"id"`
	Name string `json:"n"`
	Args args   `json:"a,omitempty"`
	TTL  uint64 `json:"ttl,omitempty"`
}

// AppendCmd appends c to dst.
func AppendCmd(dst []byte, f Format, c *Cmd) []byte {
	return appendControl(dst, f, TypeCmd, &cmdBody{ID: c.ID, Name: c.Name, Args: c.Args, TTL: c.TTLMS})
}

// DecodeCmd decodes and checks a command.
func DecodeCmd(f Format, frame []byte) (Cmd, error) {
	b, err := decodeAs[cmdBody](f, frame, TypeCmd)
	return Cmd{ID: b.ID, Name: b.Name, Args: b.Args, TTLMS: b.TTL}, err
}

func (b *cmdBody) check() error {
	if b.TTL > MaxTimeMS {
		return protocolError("cmd: ttl is over 2^53-1")
	}
	return firstError(checkOpaque("id", b.ID, MaxWord), CheckCommand(b.Name), b.Args.check())
}

// The states of a command or an update. All but the first two are final.
const (
	ResultAccepted = "accepted"
	ResultRunning  = "running"
	ResultDone     = "done"
	ResultFailed   = "failed"
	ResultRejected = "rejected"
	ResultExpired  = "expired"
)

// Result is what became of a command or an update.
type Result struct {
	// ID is that of the Cmd or OTA.
	ID    string
	State string
	// Percent is how far it is, from 0 to 100.
	Percent uint8
	// Value is what the command returns, absent if nothing.
	Value device.Value
	// Err says what went wrong, at most MaxText bytes; more is cut off.
	Err string
}

type resultBody struct {
	ID      string  `json:"id"`
	State   string  `json:"st"`
	Percent uint8   `json:"pc,omitempty"`
	Value   *scalar `json:"v,omitempty"`
	Err     string  `json:"err,omitempty"`
}

// AppendResult appends r to dst.
func AppendResult(dst []byte, f Format, r *Result) []byte {
	b := &resultBody{ID: r.ID, State: r.State, Percent: r.Percent, Err: clean(r.Err)}
	if r.Value.Type != device.Absent {
		b.Value = &scalar{r.Value}
	}
	return appendControl(dst, f, TypeResult, b)
}

// DecodeResult decodes and checks a result.
func DecodeResult(f Format, frame []byte) (Result, error) {
	b, err := decodeAs[resultBody](f, frame, TypeResult)
	r := Result{ID: b.ID, State: b.State, Percent: b.Percent, Err: b.Err}
	if b.Value != nil {
		r.Value = b.Value.Value
	}
	return r, err
}

func (b *resultBody) check() error {
	switch b.State {
	case ResultAccepted, ResultRunning, ResultDone, ResultFailed, ResultRejected, ResultExpired:
	default:
		return protocolError("result: unknown state %q", b.State)
	}
	if b.Percent > 100 {
		return protocolError("result: pc is over 100")
	}
	return firstError(checkOpaque("id", b.ID, MaxWord), checkText("err", b.Err))
}

// args are arguments as they go over the wire: a map from name to value.
type args []Arg

func (a args) check() error {
	if len(a) > MaxArgs {
		return protocolError("%d arguments, the limit is %d", len(a), MaxArgs)
	}
	for _, arg := range a {
		if err := CheckCommand(arg.Name); err != nil {
			return err
		}
	}
	return nil
}

func (a args) MarshalJSON() ([]byte, error) {
	dst := []byte{'{'}
	for i, arg := range a {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendJSONString(dst, strings.ToValidUTF8(arg.Name, "\uFFFD")), ':')
		dst = scalar{arg.Value}.appendJSON(dst)
	}
	return append(dst, '}'), nil
}

func (a args) MarshalCBOR() ([]byte, error) {
	dst := appendCBORHead(nil, majorMap, uint64(len(a)))
	for _, arg := range a {
		dst = appendCBORText(dst, strings.ToValidUTF8(arg.Name, "\uFFFD"))
		dst = scalar{arg.Value}.appendCBOR(dst)
	}
	return dst, nil
}

func (a *args) UnmarshalCBOR(b []byte) error {
	var m map[string]scalar
	if err := decMode.Unmarshal(b, &m); err != nil {
		return err
	}
	for name, v := range m {
		*a = append(*a, Arg{Name: name, Value: v.Value})
	}
	slices.SortFunc(*a, func(x, y Arg) int { return strings.Compare(x.Name, y.Name) })
	return nil
}

var (
	_ cbor.Marshaler   = args{}
	_ cbor.Unmarshaler = (*args)(nil)
	_ cbor.Marshaler   = scalar{}
	_ cbor.Unmarshaler = (*scalar)(nil)
)

// scalar is a value outside of data: numbers are as they are, without scaling.
type scalar struct{ device.Value }

// sendable returns the value, or absent for a number that neither format can carry.
func (s scalar) sendable() device.Value {
	if f := s.Float(); s.Type == device.Number && f-f != 0 {
		return device.Value{}
	}
	if s.Type == device.String {
		return device.TextValue(strings.ToValidUTF8(s.Text(), "\uFFFD"))
	}
	return s.Value
}

func (s scalar) appendJSON(dst []byte) []byte { return appendJSONValue(dst, s.sendable()) }

func (s scalar) appendCBOR(dst []byte) []byte {
	switch v := s.sendable(); v.Type {
	case device.Number:
		return appendScaled(dst, &column{pow: 1}, v.Float())
	case device.Bool:
		return append(dst, cborFalse+byte(v.Float()))
	case device.String:
		return appendCBORText(dst, v.Text())
	}
	return append(dst, cborNull)
}

func (s scalar) MarshalJSON() ([]byte, error) { return s.appendJSON(nil), nil }

func (s scalar) MarshalCBOR() ([]byte, error) { return s.appendCBOR(nil), nil }

func (s *scalar) UnmarshalCBOR(b []byte) error {
	v, p, code := cborScalar(b, 0)
	if p != len(b) || code != 0 {
		return protocolError("a value is a number, true, false or a text (%s)", code)
	}
	s.Value = v
	return nil
}

// cborScalar reads a value outside of data, in a frame whose nesting is checked. The text is a copy. next is negative if
// the item is not well-formed.
func cborScalar(b []byte, start int) (v device.Value, next int, code BadCode) {
	ib, arg, p := cborHead(b, start)
	if p < 0 {
		return v, -1, 0
	}
	switch ib >> 5 {
	case majorUint, majorNint:
		f, exact := integer(ib>>5 == majorNint, arg)
		if !exact {
			return v, p, BadExact
		}
		return device.NumberValue(f), p, 0
	case majorText:
		text, p := cborText(b, start)
		if p < 0 {
			return v, -1, 0
		}
		if len(text) > device.MaxTextLen || !utf8.Valid(text) {
			return v, p, BadText
		}
		return device.TextValue(string(text)), p, 0
	}
	switch ib {
	case cborNull:
		return v, p, 0
	case cborTrue, cborFalse:
		return device.BoolValue(ib == cborTrue), p, 0
	}
	f, ok := cborFloat(ib, arg)
	if !ok {
		return v, cborSkip(b, start, MaxNesting), BadType
	}
	if f-f != 0 {
		return v, p, BadNumber
	}
	return device.NumberValue(f), p, 0
}

// clean makes s fit for a field of free text: valid UTF-8 without control characters, at most MaxText bytes.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if control(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= MaxText {
		return s
	}
	n := MaxText
	for !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func checkText(what, s string) error {
	if len(s) > MaxText {
		return protocolError("%s is longer than %d bytes", what, MaxText)
	}
	if i := strings.IndexFunc(s, control); i >= 0 {
		return protocolError("%s contains a control character at byte %d", what, i)
	}
	return nil
}

// control reports whether r would garble a log or a terminal: control characters, and the marks that change the direction
// of writing.
func control(r rune) bool { return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) }
