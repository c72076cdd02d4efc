package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"telemetryhub/device/wire"
)

// Conn is a framed connection to the hub.
type Conn interface {
	// Serve reads frames in the calling goroutine and gives each to handle, until the connection ends; it is called once.
	// The frame is valid during the call. If handle returns an error the connection is closed and Serve returns that error.
	// If the other side closed, the error is a *CloseError. Pings are answered.
	Serve(handle func(f wire.Format, frame []byte) error) error
	// Write sends one frame. It has a deadline of its own. One goroutine at a time calls it.
	Write(f wire.Format, frame []byte) error
	// SetIdle ends the connection when nothing has come for d, not even a ping.
	SetIdle(d time.Duration)
	// Close ends the connection from any goroutine, telling the other side the code if that works at once. Serve returns.
	// It may be called more than once.
	Close(code wire.CloseCode)
}

// Dialer makes a connection. It gives up when ctx ends. If the hub refuses for good the error wraps a *StopError.
type Dialer func(ctx context.Context) (Conn, error)

// CloseNormal is the WebSocket code for an end without a fault.
const CloseNormal wire.CloseCode = 1000

// CloseError means that the hub closed the connection.
type CloseError struct {
	Code   wire.CloseCode
	Reason string
}

func (e *CloseError) Error() string {
	return "the hub closed the connection: " + closeText(e.Code, e.Reason)
}

func closeText(code wire.CloseCode, reason string) string {
	if known := code.Reason(); reason == "" || reason == known {
		return code.String()
	}
	return fmt.Sprintf("%s (%s)", code, reason)
}

// final returns a StopError if err is a close after which nobody may connect again by himself.
func final(err error) error {
	var stop *StopError
	if errors.As(err, &stop) {
		return err
	}
	var c *CloseError
	if errors.As(err, &c) && c.Code >= 4000 && c.Code < 5000 && !c.Code.Reconnect() {
		return &StopError{c.Code, c.Reason}
	}
	return nil
}
