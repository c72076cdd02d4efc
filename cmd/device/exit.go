package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"telemetryhub/device/agent"
	"telemetryhub/device/sensor"
	"telemetryhub/device/spool"
)

// The exit codes. Scripts and service managers rely on them: never change them. Where hub has the same case it has the same
// code.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitPartial     = 3
	exitRefused     = 5
	exitLocked      = 10
	exitNewer       = 11
	exitHung        = 13
	exitInterrupted = 130
)

const exitHelp = `Exit codes:

    0  it was told to end, and everything that was read is in the spool
    1  an error that is none of those below
    2  the command line or the configuration cannot be used
    3  a sensor could not be read
    5  the hub refused the token or the device: somebody must act, to start again does not help
   10  another process uses the spool: is device run already running?
   11  the spool was written by a newer version of this program
   13  a bus hung when the program ended
  130  interrupted twice
`

// usageError means that the command line or the configuration is wrong.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errPartial means that a part was done; what was not has been reported.
var errPartial = errors.New("not every sensor could be read")

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	var (
		usage *usageError
		stop  *agent.StopError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &stop):
		return exitRefused
	case errors.Is(err, errPartial):
		return exitPartial
	case errors.Is(err, spool.ErrLocked):
		return exitLocked
	case errors.Is(err, spool.ErrNewerFormat):
		return exitNewer
	case errors.Is(err, sensor.ErrHung):
		return exitHung
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitError
}

// report tells the person at the terminal about the error and returns the exit code.
func report(w io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(w, "device: %v\n", err)
	}
	return exitCode(err)
}
