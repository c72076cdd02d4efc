package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// deviceAnswer is what the API says about a device, as far as tables show it.
type deviceAnswer struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Labels   map[string]string `json:"labels"`
	Presence string            `json:"presence"`
	LastSeen int64             `json:"last_seen"`
	Firmware string            `json:"firmware"`
	Model    string            `json:"model"`
	Created  int64             `json:"created"`
	Token    string            `json:"token"`
	Metrics  []struct {
		Name   string `json:"name"`
		Unit   string `json:"unit"`
		Kind   string `json:"kind"`
		Latest *struct {
			T     int64           `json:"t"`
			Value json.RawMessage `json:"value"`
		} `json:"latest"`
	} `json:"metrics"`
}

// deviceSpec is a device to be added.
type deviceSpec struct {
	ID     string            `json:"id"`
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

func newDevice(w world) *cobra.Command {
	c := &cobra.Command{Use: "device", Short: "Devices: add, list, show, remove"}
	add := &cobra.Command{
		Use:   "add [ID]",
		Short: "Add a device and print its token, which is shown this once",
		Long: "Add a device and print its token, which is shown this once.\n\n--from FILE adds many (- is standard input): one device a line, " +
			"its ID, then the name in quotes if there is one,\nthen labels as key=value, with spaces between; # begins a comment. " +
			"Devices that exist already are reported and skipped.",
		Example: "  hub device add greenhouse-1 --name 'Greenhouse, north' --label site=farm\n  hub device add --from devices.txt --output json",
		Args:    cobra.MaximumNArgs(1),
	}
	add.Flags().String("name", "", "name for people")
	add.Flags().StringArray("label", nil, "label as key=value; may be repeated")
	add.Flags().String("from", "", "file with one device a line; - is standard input")
	add.RunE = remote(w, addDevices)
	list := &cobra.Command{Use: "list", Short: "List devices", Args: cobra.NoArgs, RunE: remote(w, listDevices)}
	show := &cobra.Command{Use: "show ID", Short: "Show a device and its newest readings", Args: cobra.ExactArgs(1), RunE: remote(w, showDevice)}
	rm := &cobra.Command{Use: "rm ID", Short: "Delete a device with all its history", Args: cobra.ExactArgs(1),
		Long: "Delete a device with all its history. Its ID is never given again. On a terminal it asks first, unless --yes is given.",
		RunE: remote(w, removeDevice)}
	rm.Flags().Bool("yes", false, "do not ask")
	c.AddCommand(add, list, show, rm)
	return c
}

func addDevices(j *job) error {
	flags := j.cmd.Flags()
	name, _ := flags.GetString("name") // the flag exists, and so below
	labels, _ := flags.GetStringArray("label")
	from, _ := flags.GetString("from")
	switch {
	case from != "" && (len(j.args) > 0 || name != "" || len(labels) > 0):
		return usagef("--from stands alone: put IDs, names and labels into the file")
	case from == "" && len(j.args) == 0:
		return usagef("name the device to add, or a file with --from")
	case from == "":
		spec := deviceSpec{ID: j.args[0], Name: name}
		for _, l := range labels {
			if err := spec.label(l); err != nil {
				return err
			}
		}
		d, raw, err := send[deviceAnswer](j.ctx(), j.client, http.MethodPost, "/api/v1/devices", spec)
		if err != nil {
			return err
		}
		return j.show(j.w, raw, func(t *table) {
			t.row("DEVICE", "TOKEN")
			t.row(d.ID, d.Token)
		})
	}
	specs, err := readDevices(j.w.in, from)
	if err != nil {
		return err
	}
	return addAll(j, specs)
}

// addAll adds devices one by one and reports those that could not be added.
func addAll(j *job, specs []deviceSpec) error {
	var (
		raws   = []json.RawMessage{}
		made   []deviceAnswer
		failed error
		errs   int
	)
	for _, spec := range specs {
		d, raw, err := send[deviceAnswer](j.ctx(), j.client, http.MethodPost, "/api/v1/devices", spec)
		if err != nil {
			fmt.Fprintf(j.w.err, "hub: %s: %v\n", spec.ID, err)
			errs++
			if failed = err; exitCode(err) != exitConflict && exitCode(err) != exitUsage {
				break // the next one would fare no better
			}
			continue
		}
		made, raws = append(made, d), append(raws, raw)
	}
	err := j.show(j.w, raws, func(t *table) {
		t.row("DEVICE", "TOKEN")
		for _, d := range made {
			t.row(d.ID, d.Token)
		}
	})
	switch {
	case err != nil:
		return err
	case errs > 0 && len(made) > 0:
		return fmt.Errorf("%w: %d of %d devices were added", errPartial, len(made), len(specs))
	}
	return failed
}

func (d *deviceSpec) label(text string) error {
	k, v, ok := strings.Cut(text, "=")
	if !ok || k == "" {
		return usagef("label %q: write key=value", text)
	}
	if d.Labels == nil {
		d.Labels = map[string]string{}
	}
	d.Labels[k] = v
	return nil
}

// readDevices reads the file of hub device add --from.
func readDevices(in io.Reader, path string) ([]deviceSpec, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usagef("--from: %v", err)
		}
		defer f.Close() // only read
		in = f
	}
	var specs []deviceSpec
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		fields, err := splitFields(lines.Text())
		if err != nil {
			return nil, usagef("%s:%d: %v", path, n, err)
		}
		if len(fields) == 0 {
			continue
		}
		spec := deviceSpec{ID: fields[0].text}
		for _, f := range fields[1:] {
			switch {
			case f.quoted && spec.Name == "":
				spec.Name = f.text
			case f.quoted:
				return nil, usagef("%s:%d: a second name %q", path, n, f.text)
			default:
				if err := spec.label(f.text); err != nil {
					return nil, usagef("%s:%d: %v", path, n, err)
				}
			}
		}
		specs = append(specs, spec)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(specs) == 0 {
		return nil, usagef("%s names no device", path)
	}
	return specs, nil
}

type field struct {
	text   string
	quoted bool
}

// splitFields splits a line at spaces; quotes hold a text together, # begins a comment.
func splitFields(line string) ([]field, error) {
	var fields []field
	for {
		line = strings.TrimLeft(line, " \t\r")
		if line == "" || line[0] == '#' {
			return fields, nil
		}
		if line[0] == '"' {
			text, rest, ok := strings.Cut(line[1:], `"`)
			if !ok {
				return nil, fmt.Errorf("a quote is not closed")
			}
			fields, line = append(fields, field{text, true}), rest
			continue
		}
		end := strings.IndexAny(line, " \t\r")
		if end < 0 {
			end = len(line)
		}
		fields, line = append(fields, field{text: line[:end]}), line[end:]
	}
}

func listDevices(j *job) error {
	v, raw, err := get[struct {
		Devices []deviceAnswer `json:"devices"`
	}](j.ctx(), j.client, "/api/v1/devices")
	if err != nil {
		return err
	}
	return j.show(j.w, raw, func(t *table) {
		t.row("DEVICE", "NAME", "STATE", "LAST SEEN", "METRICS", "LABELS")
		for _, d := range v.Devices {
			t.row(d.ID, d.Name, d.Presence, moment(d.LastSeen), len(d.Metrics), joinLabels(d.Labels))
		}
	})
}

func joinLabels(labels map[string]string) string {
	var list []string
	for k, v := range labels {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}

func showDevice(j *job) error {
	d, raw, err := get[deviceAnswer](j.ctx(), j.client, "/api/v1/devices/"+url.PathEscape(j.args[0]))
	if err != nil {
		return err
	}
	return j.show(j.w, raw, func(t *table) {
		t.row("device", d.ID)
		t.row("name", d.Name)
		t.row("state", d.Presence)
		t.row("last seen", moment(d.LastSeen))
		t.row("created", moment(d.Created))
		t.row("labels", joinLabels(d.Labels))
		t.row("model", d.Model)
		t.row("firmware", d.Firmware)
		for _, m := range d.Metrics {
			value, at := "", ""
			if m.Latest != nil {
				value, at = string(m.Latest.Value), moment(m.Latest.T)
			}
			t.row(m.Name, value, m.Unit, m.Kind, at)
		}
	})
}

func removeDevice(j *job) error {
	id := j.args[0]
	if yes, _ := j.cmd.Flags().GetBool("yes"); !yes { // the flag exists
		if err := confirm(j.w, fmt.Sprintf("Delete %s with all its history, for ever?", id)); err != nil {
			return err
		}
	}
	_, err := j.call(j.ctx(), http.MethodDelete, "/api/v1/devices/"+url.PathEscape(id), nil)
	return err
}

// confirm asks a person. A program that runs the command knows what it does.
func confirm(w world, question string) error {
	f, ok := w.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	fmt.Fprintf(w.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(w.in).ReadString('\n')
	if err != nil && answer == "" {
		return fmt.Errorf("no answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return usagef("nothing was done")
	}
	return nil
}
