package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"telemetryhub/device"
	"telemetryhub/device/agent"
	"telemetryhub/device/wire"
	"telemetryhub/hub/live"
)

func newLive(w world) *cobra.Command {
	c := &cobra.Command{
		Use: "live", Short: "Print readings as they come", Args: cobra.NoArgs,
		Long: "Print readings as they come, until Ctrl+C. The hub is the one that runs on --data, or any that --url names, with a viewer's\n" +
			"token from a file. Mode latest begins with the newest values and prints what changes, mode all prints every reading from now on.\n" +
			"When the connection is lost it is made anew, and nothing is left out; lines on stderr say so.",
		Example: "  hub live --data /var/lib/hub --device greenhouse-1\n  hub live --url https://hub.local:8443 --pin sha256//… --token-file viewer --mode all --output ndjson",
	}
	f := c.Flags()
	f.String("url", "", "address of the hub, instead of --data")
	f.String("token-file", "", "file that holds a viewer's token, for --url")
	f.String("pin", "", "fingerprint of the hub's certificate, as the hub prints it")
	f.StringArray("device", nil, "device, or the beginning of several with * after it; may be given several times")
	f.StringArray("metric", nil, "metric, in the same way")
	f.String("mode", "latest", "latest or all")
	f.String("output", "text", "form of the lines: text or ndjson")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if _, err := resolve(c, w); err != nil {
			return err
		}
		return followLive(c, w)
	}
	return c
}

func followLive(c *cobra.Command, w world) error {
	o, err := liveOptions(c)
	if err != nil {
		return err
	}
	if err := o.Check(); err != nil {
		return usagef("%v", err)
	}
	p := &livePrinter{out: bufio.NewWriter(w.out), all: o.Mode == live.All}
	switch output, _ := c.Flags().GetString("output"); output { // the flag exists, and so below
	case "text", "table":
		p.append = appendLiveText
	case "ndjson", "json":
		p.append = appendLiveJSON
	default:
		return usagef("--output %s: use text or ndjson", output)
	}
	if o.Dial != nil { // a hub that is not running is more likely a mistake than one that is restarting
		hub, err := newClient(clientSettings{data: c.Flag("data").Value.String()})
		if err != nil {
			return err
		}
		if _, err := hub.call(c.Context(), http.MethodGet, "/healthz", nil); err != nil {
			return err
		}
	}
	lost := false
	o.Status = func(s live.Status) {
		switch {
		case s.Connected && lost:
			fmt.Fprintln(w.err, "hub: connected again")
			lost = false
		case s.Err != nil && s.Retry > 0:
			fmt.Fprintf(w.err, "hub: no connection: %v; trying again\n", s.Err)
			lost = true
		}
	}
	err = live.Follow(c.Context(), o, p.frame)
	var stop *live.StopError
	switch {
	case errors.Is(err, context.Canceled):
		return nil // as it was meant to end
	case errors.As(err, &stop) && (stop.Code == wire.CloseWho || stop.Code == wire.CloseRevoked):
		return &apiError{Status: http.StatusUnauthorized, Detail: stop.Error()}
	case errors.As(err, &stop):
		return &apiError{Status: http.StatusUnprocessableEntity, Detail: stop.Error()}
	}
	return err
}

// liveOptions reads the flags.
func liveOptions(c *cobra.Command) (live.Options, error) {
	f := c.Flags()
	url, _ := f.GetString("url")
	file, _ := f.GetString("token-file")
	pin, _ := f.GetString("pin")
	mode, _ := f.GetString("mode")
	data, _ := f.GetString("data")
	o := live.Options{URL: url, Mode: live.Mode(mode)}
	o.Devices, _ = f.GetStringArray("device")
	o.Metrics, _ = f.GetStringArray("metric")
	switch {
	case mode != string(live.Latest) && mode != string(live.All):
		return o, usagef("--mode %s: use latest or all", mode)
	case url == "" && (file != "" || pin != ""):
		return o, usagef("--token-file and --pin are for --url")
	case url == "" && data == "":
		return o, usagef("which hub? Name its data folder with --data DIR or HUB_DATA, or its address with --url")
	case url == "":
		var d net.Dialer
		o.URL, o.Transports = "http://localhost", []live.Transport{live.WebSocket}
		o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return withSocketPath(data, func(path string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) })
		}
		return o, nil
	case file == "":
		return o, usagef("--url needs --token-file: a file with a token of hub token create --role viewer")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return o, usagef("--token-file: %v", err)
	}
	o.Token = strings.TrimSpace(string(text))
	if o.TLS, err = (agent.Endpoint{URL: url, Pin: pin}).TLS(); err != nil {
		return o, usagef("--pin: %v", err)
	}
	if pin != "" && o.TLS == nil {
		return o, usagef("--pin: a certificate can be pinned only with https")
	}
	o.Proxy = http.ProxyFromEnvironment
	return o, nil
}

// livePrinter writes a line for each reading.
type livePrinter struct {
	out    *bufio.Writer
	all    bool
	append func(dst []byte, r *live.Reading, unit string) []byte
	line   []byte
}

func (p *livePrinter) frame(f live.Frame) error {
	switch f := f.(type) {
	case *live.Snapshot:
		if !p.all { // in mode all it tells what came before
			p.devices(f.Devices)
		}
	case *live.Changes:
		p.devices(f.Devices)
	case *live.Readings:
		for i := range f.Readings {
			p.reading(&f.Readings[i], "")
		}
	}
	if err := p.out.Flush(); err != nil {
		return fmt.Errorf("write the readings: %w", err)
	}
	return nil
}

func (p *livePrinter) devices(list []live.Device) {
	for _, d := range list {
		names := make([]string, 0, len(d.Metrics))
		for name := range d.Metrics {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			v := d.Metrics[name]
			p.reading(&live.Reading{Device: d.ID, Metric: name, TimeMS: v.TimeMS, Value: v.Value, Quality: v.Quality}, v.Unit)
		}
	}
}

func (p *livePrinter) reading(r *live.Reading, unit string) {
	p.line = append(p.append(p.line[:0], r, unit), '\n')
	_, _ = p.out.Write(p.line) // Flush returns the error
}

func liveValue(v device.Value) any {
	switch v.Type {
	case device.Number:
		return v.Float()
	case device.Bool:
		return v.Float() != 0
	case device.String:
		return v.Text()
	}
	return nil
}

func appendLiveJSON(dst []byte, r *live.Reading, unit string) []byte {
	line, err := json.Marshal(struct {
		Device  device.ID      `json:"device"`
		Metric  string         `json:"metric"`
		T       int64          `json:"t"`
		V       any            `json:"v"`
		Unit    string         `json:"u,omitempty"`
		Quality device.Quality `json:"q,omitempty"`
	}{r.Device, r.Metric, r.TimeMS, liveValue(r.Value), unit, r.Quality})
	if err != nil {
		panic(err) // a float64 that came as JSON always marshals
	}
	return append(dst, line...)
}

// appendLiveText writes for a person. Texts of devices may hold anything, so they are quoted.
func appendLiveText(dst []byte, r *live.Reading, unit string) []byte {
	dst = time.UnixMilli(r.TimeMS).AppendFormat(dst, "2006-01-02 15:04:05.000")
	dst = fmt.Appendf(dst, "  %s  %s  ", r.Device, r.Metric)
	switch v := r.Value; v.Type {
	case device.Number:
		dst = strconv.AppendFloat(dst, v.Float(), 'g', -1, 64)
	case device.String:
		dst = strconv.AppendQuote(dst, v.Text())
	default:
		dst = fmt.Append(dst, liveValue(v))
	}
	if unit != "" {
		dst = append(append(dst, ' '), strings.TrimFunc(strconv.Quote(unit), func(c rune) bool { return c == '"' })...)
	}
	if r.Quality != 0 {
		dst = fmt.Appendf(dst, "  quality %d", r.Quality)
	}
	return dst
}
