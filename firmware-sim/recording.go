package firmwaresim

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// ErrRecording means that a file is not a recording that can be played. The error says what is wrong with it and where.
var ErrRecording = errors.New("not a recording that can be played")

// Recording is a table of what devices measured, in the order in which they were heard. It is read from the file anew each time
// it is played.
type Recording struct {
	Path string
	// Devices are the devices in it, in order of appearance.
	Devices []device.ID
	// Metrics are the columns: a row is one sample of all of them. Exp is derived from the decimals in the file.
	Metrics []device.Metric
	// Rows and Readings count what it holds.
	Rows, Readings int
	// Early counts the rows from before the year 2000, which a hub files under the time of arrival.
	Early int
	// IntervalMS is the median time between two rows of one device.
	IntervalMS int64

	layout *layout
	number map[string]int // of a device in Devices
	text   []bool         // columns that are not numbers
}

// Inspect reads the whole file, which may be gzipped, and checks that each row can be played. Errors wrap ErrRecording, or are
// those of the file system.
func Inspect(path string) (*Recording, error) {
	r := &Recording{Path: path, number: make(map[string]int)}
	var places, last []int64
	var gaps []int64
	var numeric []bool
	err := r.scan(func(fields []string, at int64) error {
		if numeric == nil {
			places, numeric = make([]int64, len(fields)), make([]bool, len(fields))
			for i := range numeric {
				numeric[i] = true
			}
		}
		d, err := r.deviceOf(fields)
		if err != nil {
			return err
		}
		if at < device.EarliestMS {
			r.Early++
		}
		if d == len(last) {
			last = append(last, at)
		} else if gap := at - last[d]; gap > 0 && len(gaps) < 10_000 {
			gaps = append(gaps, gap)
		}
		last[d] = at
		for i, c := range r.layout.columns {
			s := fields[c.index]
			if s == "" {
				continue
			}
			f, err := strconv.ParseFloat(s, 64)
			if math.IsInf(f, 0) {
				return fmt.Errorf("%w: %s is beyond the range of a number", ErrRecording, c.metric.Name)
			}
			numeric[i] = numeric[i] && err == nil
			if n, plain := decimals(s); plain {
				places[i] = max(places[i], int64(n))
			}
			if len(s) > device.MaxTextLen {
				return fmt.Errorf("%w: %s has %d characters", ErrRecording, c.metric.Name, len(s))
			}
			r.Readings++
		}
		r.Rows++
		return nil
	})
	if err != nil {
		return nil, err
	}
	if r.Rows == 0 {
		return nil, fmt.Errorf("%s: %w: it has no rows", path, ErrRecording)
	}
	for i, c := range r.layout.columns {
		m := c.metric
		m.Alias = uint16(i + 1)
		m.Exp = -int8(min(places[i], device.MaxExp))
		if !numeric[i] {
			m.Kind, m.Exp = device.Text, 0
		}
		r.Metrics = append(r.Metrics, m)
		r.text = append(r.text, !numeric[i])
	}
	if len(gaps) > 0 {
		slices.Sort(gaps)
		r.IntervalMS = gaps[len(gaps)/2]
	}
	return r, nil
}

// Texts returns the names of the columns in which a field is no number, and which are therefore played as text.
func (r *Recording) Texts() []string {
	var names []string
	for i := range r.Metrics {
		if r.text[i] {
			names = append(names, r.Metrics[i].Name)
		}
	}
	return names
}

// deviceOf returns the number of the row's device, new ones get the next.
func (r *Recording) deviceOf(fields []string) (int, error) {
	name := r.layout.id
	if r.layout.device >= 0 {
		name = fields[r.layout.device]
	}
	if n, ok := r.number[name]; ok {
		return n, nil
	}
	id, err := device.ParseID(name)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrRecording, err)
	}
	n := len(r.Devices)
	r.number[string(id)] = n // the string in fields is reused
	r.Devices = append(r.Devices, id)
	return n, nil
}

// Schema declares the columns as one set. Interval is the expected time between two rows in ms, zero for not declared.
func (r *Recording) Schema(intervalMS int64) *device.Schema {
	s := &device.Schema{Metrics: slices.Clone(r.Metrics), Sets: []device.Set{{Index: 1}}}
	for i := range s.Metrics {
		s.Metrics[i].IntervalMS = min(intervalMS, wire.MaxIntervalMS)
		s.Sets[0].Metrics = append(s.Sets[0].Metrics, i)
	}
	return s
}

// Play calls f for each row from the row numbered skip on, in order, until f returns an error, which it then returns. dev is
// the place in Devices. The values are valid during the call; a field that is empty or "NaN" is absent.
func (r *Recording) Play(skip int, f func(dev int, timeMS int64, values []device.Value) error) error {
	values := make([]device.Value, len(r.Metrics))
	n := 0
	return r.scan(func(fields []string, at int64) error {
		if n++; n <= skip {
			return nil
		}
		dev, err := r.deviceOf(fields)
		if err != nil {
			return err
		}
		for i, c := range r.layout.columns {
			s := fields[c.index]
			switch {
			case s == "":
				values[i] = device.Value{}
			case r.text[i]:
				values[i] = device.TextValue(string([]byte(s)))
			default:
				v, err := strconv.ParseFloat(s, 64)
				if err != nil {
					return fmt.Errorf("%w: %w", ErrRecording, err)
				}
				if values[i] = device.NumberValue(v); math.IsNaN(v) {
					values[i] = device.Value{}
				}
			}
		}
		return f(dev, at, values)
	})
}

// scan calls f for each row until it returns an error. One that wraps ErrRecording gets the line in front.
func (r *Recording) scan(f func(fields []string, timeMS int64) error) (err error) {
	file, err := os.Open(r.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	in, err := unpack(file)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", r.Path, ErrRecording, err)
	}
	table := csv.NewReader(in)
	table.ReuseRecord = true
	header, err := table.Read()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w: it is empty", r.Path, ErrRecording)
	}
	if err != nil {
		return fmt.Errorf("%s: %w: header: %w", r.Path, ErrRecording, err)
	}
	if r.layout, err = readLayout(header, r.Path); err != nil {
		return fmt.Errorf("%s: %w: %w", r.Path, ErrRecording, err)
	}
	for {
		fields, err := table.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w: %w", r.Path, ErrRecording, err)
		}
		at, err := r.layout.timeMS(fields[r.layout.time])
		if err == nil && (at < 1 || at > wire.MaxTimeMS) {
			err = fmt.Errorf("time %d is out of range", at)
		}
		if err != nil {
			line, _ := table.FieldPos(r.layout.time)
			return fmt.Errorf("%s:%d: %w: %w", r.Path, line, ErrRecording, err)
		}
		if err := f(fields, at); errors.Is(err, ErrRecording) {
			line, _ := table.FieldPos(0)
			return fmt.Errorf("%s:%d: %w", r.Path, line, err)
		} else if err != nil {
			return err
		}
	}
}

// unpack returns the text of a file that may be gzipped, without a byte order mark.
func unpack(file io.Reader) (io.Reader, error) {
	in := bufio.NewReaderSize(file, 64<<10)
	if head, err := in.Peek(2); err == nil && bytes.Equal(head, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		in = bufio.NewReaderSize(z, 64<<10)
	}
	if head, err := in.Peek(3); err == nil && string(head) == "\ufeff" {
		if _, err := in.Discard(3); err != nil {
			return nil, err
		}
	}
	return in, nil
}
