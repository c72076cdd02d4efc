package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"telemetryhub/storage"
)

// The exit codes. Scripts rely on them: never change them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitPartial     = 3
	exitNotFound    = 4
	exitAuth        = 5
	exitConflict    = 6
	exitUnavailable = 7
	exitLocked      = 10
	exitNewer       = 11
	exitStorage     = 12
	exitInterrupted = 130
)

const exitHelp = `Exit codes:

    0  all is well
    1  an error that is none of those below
    2  the command line or the configuration cannot be used
    3  only a part was done, or damage was found
    4  there is no such thing
    5  not allowed
    6  exists already, or was changed by somebody else
    7  the hub cannot be reached, is stopping or has no room
   10  another process has the data folder open
   11  the data was written by a newer version of this program, and was left untouched
   12  the disk failed while writing: nothing more was acknowledged, and the hub has stopped
  130  interrupted
`

// usageError means that the command line or the configuration is wrong.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// errPartial means that a part was done; what was not has been reported.
var errPartial = errors.New("only a part was done")

// errUnreachable means that no hub answers on the control socket.
var errUnreachable = errors.New("no hub is running on this data folder")

// exitCode is the one place where an error becomes an exit code.
func exitCode(err error) int {
	var (
		usage  *usageError
		answer *apiError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errPartial):
		return exitPartial
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &answer):
		return exitOfStatus(answer.Status)
	case errors.Is(err, storage.ErrNotFound):
		return exitNotFound
	case errors.Is(err, errUnreachable):
		return exitUnavailable
	case errors.Is(err, storage.ErrLocked):
		return exitLocked
	case errors.Is(err, storage.ErrNewerFormat):
		return exitNewer
	case errors.Is(err, storage.ErrUnknown):
		return exitStorage
	case errors.Is(err, fs.ErrPermission):
		return exitAuth
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitError
}

func exitOfStatus(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return exitUsage
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitAuth
	case http.StatusNotFound, http.StatusGone:
		return exitNotFound
	case http.StatusConflict:
		return exitConflict
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		return exitUnavailable
	}
	return exitError
}

// report tells the person at the terminal about the error and returns the exit code. It does not wait for ever for somebody
// to read it: a hub whose disk has failed must end.
func report(w io.Writer, err error) int {
	code := exitCode(err)
	if err != nil && code != exitPartial {
		lines := startWriter(w)
		fmt.Fprintf(lines, "hub: %v\n", err)
		lines.stop()
	}
	return code
}
