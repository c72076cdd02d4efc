package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// newRoot returns the command tree.
func newRoot(w world) *cobra.Command {
	root := &cobra.Command{
		Use:           "firmware-sim",
		Short:         "Play devices that are not there",
		Long:          "firmware-sim plays devices into a hub, over the protocol that real devices speak.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       version,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetOut(w.out)
	root.SetErr(w.err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err.Error()} })
	root.AddCommand(newReplay(w), newBoard(w), newDemo(w), &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitHelp,
		RunE: func(c *cobra.Command, _ []string) error { _, err := fmt.Fprint(w.out, exitHelp); return err }})
	return root
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unknown command %q: see %s --help", args[0], c.CommandPath())
	}
	return nil
}
