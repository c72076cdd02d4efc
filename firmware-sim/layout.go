package firmwaresim

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"telemetryhub/device"
)

// layout says what the columns of a recording are.
type layout struct {
	time    int    // column
	perMS   bool   // times are in milliseconds, else in seconds
	device  int    // column, -1 if all rows are of one device
	id      string // of that device
	columns []column
}

// column is one metric.
type column struct {
	index  int
	metric device.Metric
}

// known says what a column of a room climate recording measures.
var known = map[string]device.Metric{
	"temperature": {Unit: "Cel", Kind: device.Gauge, Class: "temperature"},
	"humidity":    {Unit: "%RH", Kind: device.Gauge, Class: "humidity"},
	"light1":      {Kind: device.Gauge, Class: "light"},
	"light2":      {Kind: device.Gauge, Class: "light"},
	"occupants":   {Unit: "count", Kind: device.Gauge, Class: "occupancy"},
	"activity":    {Kind: device.State, Class: "activity"},
	"door":        {Kind: device.State, Class: "door"},
	"window":      {Kind: device.State, Class: "window"},
}

// piColumns says what a column of the Raspberry Pi recording measures; columns that are not here are left out.
var piColumns = map[string]device.Metric{
	"t1 (°C)":     {Name: "bme280-1/temperature", Unit: "Cel", Class: "temperature"},
	"RH1% (%)":    {Name: "bme280-1/humidity", Unit: "%RH", Class: "humidity"},
	"p1 (hPa)":    {Name: "bme280-1/pressure", Unit: "hPa", Class: "pressure"},
	"t2 (°C)":     {Name: "bme280-2/temperature", Unit: "Cel", Class: "temperature"},
	"RH2% (%)":    {Name: "bme280-2/humidity", Unit: "%RH", Class: "humidity"},
	"p2 (hPa)":    {Name: "bme280-2/pressure", Unit: "hPa", Class: "pressure"},
	"RHref (%RH)": {Name: "reference/humidity", Unit: "%RH", Class: "humidity"},
	"Tref (°C)":   {Name: "reference/temperature", Unit: "Cel", Class: "temperature"},
}

// readLayout understands the header of a recording. path gives a name to a device that has none.
func readLayout(header []string, path string) (*layout, error) {
	if len(header) > 2 && header[0] == "time_ms" && header[1] == "device" {
		return roomLayout(header)
	}
	if len(header) > 2 && header[1] == "Timestamp" {
		return piLayout(header, path)
	}
	return nil, fmt.Errorf("the header begins with %q: it must begin with time_ms,device and then name the metrics, "+
		"or be that of the BME280 recording", header[0])
}

func roomLayout(header []string) (*layout, error) {
	l := &layout{time: 0, perMS: true, device: 1}
	for i, name := range header[2:] {
		if err := device.CheckName(name); err != nil {
			return nil, fmt.Errorf("column %d: %w", i+3, err)
		}
		if slices.Contains(header[2:i+2], name) {
			return nil, fmt.Errorf("column %d: there is a column %s already", i+3, name)
		}
		m := device.NewMetric(name)
		if k, ok := known[name]; ok {
			m.Unit, m.Kind, m.Class = k.Unit, k.Kind, k.Class
		}
		l.columns = append(l.columns, column{i + 2, m})
	}
	return l.check()
}

func piLayout(header []string, path string) (*layout, error) {
	base, _, _ := strings.Cut(filepath.Base(path), ".")
	l := &layout{time: 1, device: -1, id: strings.ToLower(base)}
	if _, err := device.ParseID(l.id); err != nil {
		return nil, fmt.Errorf("the device is named after the file: %w", err)
	}
	for i, name := range header {
		k, ok := piColumns[name]
		if !ok {
			continue
		}
		m := device.NewMetric(k.Name)
		m.Unit, m.Class = k.Unit, k.Class
		l.columns = append(l.columns, column{i, m})
	}
	return l.check()
}

func (l *layout) check() (*layout, error) {
	if n := len(l.columns); n == 0 || n > device.MaxMetrics {
		return nil, fmt.Errorf("%d columns are metrics: 1 to %d can be played", n, device.MaxMetrics)
	}
	return l, nil
}

// timeMS reads a time.
func (l *layout) timeMS(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err == nil && l.perMS:
		return n, nil
	case err == nil && n < math.MaxInt64/1000 && n > 0:
		return n * 1000, nil
	case err == nil:
		return 0, fmt.Errorf("time %q is out of range", s)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f > 0 && f < 1e15) {
		return 0, fmt.Errorf("%q is not a time", s)
	}
	if l.perMS {
		return int64(math.Round(f)), nil
	}
	return int64(math.Round(f * 1000)), nil
}

// decimals returns how many digits stand behind the point, and false if s is not a plain decimal number.
func decimals(s string) (int, bool) {
	if strings.ContainsAny(s, "eEnNxX_") {
		return 0, false
	}
	if i := strings.IndexByte(s, '.'); i >= 0 {
		return len(s) - i - 1, true
	}
	return 0, true
}
