package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/spf13/cobra"

	"telemetryhub/device/sensor/simbus"
	"telemetryhub/firmware-sim"
)

func newBoard(w world) *cobra.Command {
	var path string
	var seed uint64
	c := &cobra.Command{
		Use: "board", Short: "Be the hardware of a device: a board with sensors in a simulated room", Args: noArgs,
		Long: "board is a machine with the bus I2C1 and a BME280 at 0x76, emulated at register level, in a room with a day outside, a\n" +
			"window and a heater. A device program reads it as its own hardware when PERIPH_SIM names the socket.",
		Example: "  firmware-sim board --socket board.sock &\n  PERIPH_SIM=board.sock device scan",
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := firmwaresim.NewBoard(seed)
			if err != nil {
				return err
			}
			l, err := listenSocket(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(w.err, "board %d is ready: PERIPH_SIM=%s\n", seed, path)
			return simbus.Serve(c.Context(), l, b)
		},
	}
	c.Flags().StringVar(&path, "socket", "board.sock", "the Unix socket to serve")
	c.Flags().Uint64Var(&seed, "seed", 1, "which room: each number is another one")
	return c
}

// listenSocket binds a Unix socket. One that nobody serves any more is replaced.
func listenSocket(path string) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(usagef("another board serves %s", path), c.Close())
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSocket == 0 {
		return nil, usagef("%s is there and no socket: choose another path", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("serve the board: %w", err)
	}
	return l, nil
}
