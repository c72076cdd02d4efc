package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"telemetryhub/device/sensor"
	"telemetryhub/device/sensor/simbus"
)

// simEnv names the variable with the socket of a simulated board. It stands in the environment and not in the configuration,
// so that the same configuration works on both.
const simEnv = "PERIPH_SIM"

// newRoot returns the command tree.
func newRoot(w world) *cobra.Command {
	root := &cobra.Command{
		Use:   "device",
		Short: "Read sensors and bring what they say to a hub",
		Long: "device reads the sensors of this machine on a schedule, keeps what they say in a spool on disk, and brings it to the\n" +
			"hub. It goes on without network, and what it had to drop it reports.\n\n" +
			"With " + simEnv + "=SOCKET it reads the simulated board of firmware-sim board instead of this machine.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(w.out)
	root.SetErr(w.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err.Error()} })
	root.AddCommand(newRun(w), newCheck(w), newRead(w), newScan(w), newHardware(w), &cobra.Command{
		Use: "exit-codes", Short: "What the exit codes mean", Long: exitHelp, Args: noArgs,
		RunE: func(*cobra.Command, []string) error { _, err := fmt.Fprint(w.out, exitHelp); return err },
	})
	return root
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q: see %s --help", args[0], c.CommandPath())
	}
	return nil
}

// machine is where the sensors are.
type machine struct {
	sensor.Buses
	simulated bool
	explain   []string
}

// openMachine finds the buses: those of this machine, or of a simulated board.
func openMachine(w world) (*machine, error) {
	if path, ok := w.env(simEnv); ok && path != "" {
		return &machine{simbus.Dial(path), true, []string{"found    simulated board at " + path}}, nil
	}
	host, err := sensor.OpenHost()
	if err != nil {
		return nil, err
	}
	return &machine{host, false, host.Explain()}, nil
}
