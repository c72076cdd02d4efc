package main

import (
	"runtime/debug"

	"github.com/spf13/cobra"
)

// newRoot returns the command tree.
func newRoot(w world) *cobra.Command {
	root := &cobra.Command{
		Use:   "hub",
		Short: "Keep what devices measure",
		Long: "hub takes readings from devices over WebSocket and HTTP, makes each batch durable before it acknowledges it, and gives\n" +
			"every reading back exactly. hub serve starts it; the other commands administer the hub that runs on --data.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version(),
	}
	root.SetIn(w.in)
	root.SetOut(w.out)
	root.SetErr(w.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err.Error()} })
	flags := root.PersistentFlags()
	flags.String("data", "", "data folder of the hub (HUB_DATA)")
	flags.String("output", "table", "form of the result: table or json (HUB_OUTPUT)")
	root.AddCommand(newServe(w), newDevice(w), newToken(w), newEnrol(w), newUser(w), newStatus(w), newLive(w), newFlush(w), newCheck(w), newBench(w), newVersion(w),
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitHelp})
	root.InitDefaultCompletionCmd() // here, so that its arguments are checked too
	refuseArgs(root)
	return root
}

// refuseArgs makes wrong arguments usage errors, also those of commands that only group others.
func refuseArgs(c *cobra.Command) {
	check := c.Args
	switch {
	case c.HasSubCommands() && !c.Runnable():
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q for %s: see %s --help", args[0], c.CommandPath(), c.CommandPath())
			}
			return c.Help()
		}
		c.Args = cobra.ArbitraryArgs
	case check != nil:
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usagef("%v: see %s --help", err, c.CommandPath())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		refuseArgs(sub)
	}
}

// version returns what the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "dev"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 && v == "dev" {
			v += "-" + s.Value[:12]
		}
	}
	return v
}

func newVersion(w world) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Say which version this is", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			set, err := loadClientSettings(c, w)
			if err != nil {
				return err
			}
			info, _ := debug.ReadBuildInfo()
			goVersion := ""
			if info != nil {
				goVersion = info.GoVersion
			}
			return set.show(w, map[string]string{"version": version(), "go": goVersion}, func(t *table) {
				t.row("hub", version())
				t.row("built with", goVersion)
			})
		}}
}
