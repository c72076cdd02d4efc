package main

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"telemetryhub/device"
	"telemetryhub/device/sensor"
)

func newHardware(w world) *cobra.Command {
	return &cobra.Command{
		Use: "hardware", Short: "Show what of this machine was found, and why the rest was not", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			m, err := openMachine(w)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(w.out, strings.Join(m.explain, "\n"))
			return err
		},
	}
}

func newScan(w world) *cobra.Command {
	var bus string
	c := &cobra.Command{
		Use: "scan", Short: "Look for chips on a bus, and print a configuration for those that are known", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			m, err := openMachine(w)
			if err != nil {
				return err
			}
			b, err := m.I2C(bus)
			if err != nil {
				return err
			}
			defer b.Close()
			found, err := sensor.Scan(b)
			if err != nil {
				return err
			}
			known := slices.DeleteFunc(slices.Clone(found), func(f sensor.Found) bool { return f.Ready == "" })
			for _, f := range found {
				what := "not known"
				switch {
				case f.Ready != "":
					what = f.Ready
				case len(f.Models) > 0:
					what = "no " + strings.Join(f.Models, " or ") + ", which are usual there"
				}
				fmt.Fprintf(w.out, "# %#02x  %s\n", f.Addr, what)
			}
			if len(known) > 0 {
				fmt.Fprintln(w.out, "sensors:")
			}
			for i, f := range known {
				fmt.Fprintf(w.out, "  - chip: %s\n    bus: %s\n    address: %#02x\n    every: 10s\n", f.Ready, busName(bus, b), f.Addr)
				if i > 0 {
					fmt.Fprintf(w.out, "    prefix: %d/\n", i+1)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&bus, "bus", "", "the bus, as I2C1 (default: the first one)")
	return c
}

// busName is the name of a bus in a configuration.
func busName(asked string, b fmt.Stringer) string {
	if asked != "" {
		return asked
	}
	return b.String()
}

func newRead(w world) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use: "read", Short: "Read every sensor of the configuration once, and print what it says", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			conf, err := loadConfig(path)
			if err != nil {
				return err
			}
			m, err := openMachine(w)
			if err != nil {
				return err
			}
			return readAll(w, conf, m)
		},
	}
	configFlag(c, &path)
	return c
}

// readAll reads each sensor once. One that fails is reported, the others are read all the same.
func readAll(w world, conf *config, m *machine) (err error) {
	s, err := sensor.NewSampler(conf.specs(), m, nil, sensor.Options{})
	if err != nil {
		return err
	}
	schema, failed := s.Schema(), false
	t := tabwriter.NewWriter(w.out, 0, 0, 2, ' ', 0)
	for i, spec := range conf.specs() {
		metrics := schema.Sets[i].Metrics
		values := make([]device.Value, len(metrics))
		if err := readOne(m, spec, values); err != nil {
			failed = true
			fmt.Fprintf(w.err, "device: %v\n", err)
			continue
		}
		for j, k := range metrics {
			fmt.Fprintf(t, "%s\t%v\t%s\t%s\n", schema.Metrics[k].Name, values[j].Float(), schema.Metrics[k].Unit, schema.Metrics[k].Source)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if failed {
		return errPartial
	}
	return nil
}

func readOne(m *machine, spec sensor.Spec, values []device.Value) error {
	bus, err := m.I2C(spec.Bus)
	if err != nil {
		return err
	}
	defer bus.Close()
	c, err := sensor.Open(bus, spec)
	if err != nil {
		return err
	}
	return c.Sense(values)
}
