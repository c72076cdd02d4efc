package main

import "github.com/spf13/cobra"

func newCheck(w world) *cobra.Command {
	return &cobra.Command{Use: "check", Short: "Verify everything in the data folder while no hub runs on it", Args: cobra.NoArgs}
}
