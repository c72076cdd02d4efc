package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"telemetryhub/device/agent"
	"telemetryhub/device/spool"
	"telemetryhub/firmware-sim"
)

// The exit codes. Scripts rely on them: never change them. Where hub has the same case it has the same code.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitLost        = 3
	exitNotFound    = 4
	exitRefused     = 5
	exitUnavailable = 7
	exitLocked      = 10
	exitNewer       = 11
	exitInterrupted = 130
)

const exitHelp = `Exit codes:

    0  every reading that was played is acknowledged by the hub
    1  an error that is none of those below
    2  the command line cannot be used, or the file is not a recording
    3  readings are missing in the hub: it refused them, or a spool lost them
    4  there is no such file
    5  the hub refused the token or a device
    7  the hub cannot be reached
   10  another process uses the spool
   11  the spool was written by a newer version of this program
  130  interrupted before everything was acknowledged
`

// usageError means that the command line is wrong.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	var (
		usage *usageError
		stop  *agent.StopError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage), errors.Is(err, firmwaresim.ErrRecording), errors.Is(err, firmwaresim.ErrAddress):
		return exitUsage
	case errors.Is(err, firmwaresim.ErrRefused), errors.As(err, &stop):
		return exitRefused
	case errors.Is(err, firmwaresim.ErrUnreachable):
		return exitUnavailable
	case errors.Is(err, firmwaresim.ErrLost):
		return exitLost
	case errors.Is(err, spool.ErrLocked):
		return exitLocked
	case errors.Is(err, spool.ErrNewerFormat):
		return exitNewer
	case errors.Is(err, fs.ErrNotExist):
		return exitNotFound
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitError
}

// report tells the person at the terminal about the error and returns the exit code.
func report(w io.Writer, err error) int {
	code := exitCode(err)
	switch code {
	case exitOK:
	case exitInterrupted:
		fmt.Fprintln(w, "firmware-sim: interrupted before everything was acknowledged; with --spool the same command goes on where it stopped")
	default:
		fmt.Fprintf(w, "firmware-sim: %v\n", err)
	}
	return code
}
