package live

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"telemetryhub/device"
)

// Frame is what the feed tells at a time: *Welcome, *Snapshot, *Changes, *Readings or *Reset.
type Frame interface{ place() string }

// Welcome comes first on every connection.
type Welcome struct {
	Text    string `json:"text"`
	Version string `json:"version"`
	// StartedMS is when the hub was started.
	StartedMS int64 `json:"started"`
}

// Snapshot is the whole state, or with More a part of it. The first part of a snapshot takes the place of everything known
// before, also of the parts of one that broke off.
type Snapshot struct {
	NowMS   int64    `json:"now"`
	Devices []Device `json:"devices"`
	More    bool     `json:"more"`
	// Token resumes after this frame. It is empty if More is set.
	Token string `json:"token"`
}

// Changes are the devices and metrics that changed. It may repeat what is known already, but nothing older.
type Changes struct {
	Devices []Device `json:"devices"`
	More    bool     `json:"more"` // it belongs together with the next frame, and has no token
	Token   string   `json:"token"`
}

// Readings are readings in the order of the hub's log. In mode all none is missing and none comes twice from the snapshot on,
// whatever happens to connections in between, until a Reset.
type Readings struct {
	Readings []Reading `json:"readings"`
	Token    string    `json:"token"`
}

// Reset means that the hub does not know any more what came after the last frame. A snapshot follows.
type Reset struct{ Reason string }

func (*Welcome) place() string    { return "" }
func (s *Snapshot) place() string { return s.Token }
func (c *Changes) place() string  { return c.Token }
func (r *Readings) place() string { return r.Token }
func (*Reset) place() string      { return "" }

// Device is the state of a device, or what changed of it.
type Device struct {
	ID device.ID `json:"id"`
	// Name is the display name. In Changes it may be empty though there is one.
	Name string `json:"name"`
	// Presence is never, live, stale or offline.
	Presence string `json:"presence"`
	// SeenMS is when the device was heard of last, ChangedMS since when the presence is as it is. Zero if never.
	SeenMS    int64 `json:"seen"`
	ChangedMS int64 `json:"changed"`
	// Gone means that the device was deleted.
	Gone    bool             `json:"gone"`
	Metrics map[string]Value `json:"metrics"`
}

// Value is the newest value of a metric.
type Value struct {
	TimeMS  int64
	Value   device.Value
	Unit    string
	Quality device.Quality
}

// Reading is one reading.
type Reading struct {
	Device  device.ID
	Metric  string
	TimeMS  int64
	Value   device.Value
	Quality device.Quality
}

// UnmarshalJSON reads {"t":ms,"v":value,"u":unit,"q":quality}.
func (v *Value) UnmarshalJSON(b []byte) error {
	var raw struct {
		T int64           `json:"t"`
		V json.RawMessage `json:"v"`
		U string          `json:"u"`
		Q device.Quality  `json:"q"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	value, err := parseValue(raw.V)
	*v = Value{raw.T, value, raw.U, raw.Q}
	return err
}

// UnmarshalJSON reads ["device","metric",ms,value] with or without a quality.
func (r *Reading) UnmarshalJSON(b []byte) error {
	var raw []json.RawMessage
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if len(raw) < 4 {
		return fmt.Errorf("a reading of %d elements", len(raw))
	}
	var read Reading
	err1 := json.Unmarshal(raw[0], &read.Device)
	err2 := json.Unmarshal(raw[1], &read.Metric)
	err3 := json.Unmarshal(raw[2], &read.TimeMS)
	value, err4 := parseValue(raw[3])
	var err5 error
	if len(raw) > 4 {
		err5 = json.Unmarshal(raw[4], &read.Quality)
	}
	read.Value = value
	*r = read
	return errors.Join(err1, err2, err3, err4, err5)
}

// parseValue reads a number, true, false, a text, or null for none.
func parseValue(raw []byte) (device.Value, error) {
	if len(raw) == 0 {
		return device.Value{}, errors.New("a value is missing")
	}
	switch raw[0] {
	case 'n':
		return device.Value{}, nil
	case 't', 'f':
		return device.BoolValue(raw[0] == 't'), nil
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return device.TextValue(s), err
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	return device.NumberValue(f), err
}

// decode reads a frame. One of a type that is not known here is nil: the hub is newer.
func decode(raw []byte) (Frame, error) {
	var head struct {
		Type string `json:"type"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	var f Frame
	switch head.Type {
	case "":
		return nil, errors.New("a frame without a type")
	case "welcome":
		f = new(Welcome)
	case "snapshot":
		f = new(Snapshot)
	case "changes":
		f = new(Changes)
	case "readings":
		f = new(Readings)
	default:
		return nil, nil
	}
	return f, json.Unmarshal(raw, f)
}
