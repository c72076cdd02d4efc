package wire

import (
	"errors"
	"fmt"
)

// Errors of a whole message. Faults of single rows are [Bad] and no error.
var (
	// ErrProtocol means that a frame is not well-formed or breaks a rule of the protocol.
	ErrProtocol = errors.New("protocol error")
	// ErrTooBig means that a frame is larger than [MaxFrame].
	ErrTooBig = errors.New("frame too big")
)

// CloseFor returns the code to close a connection with after a decoder returned err.
func CloseFor(err error) CloseCode {
	if errors.Is(err, ErrTooBig) {
		return CloseTooBig
	}
	return CloseProtocol
}

func protocolError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

func malformed(f Format) error {
	return protocolError("the frame is not well-formed %s", f)
}

func checkSize(frame []byte) error {
	if len(frame) > MaxFrame {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooBig, len(frame), MaxFrame)
	}
	return nil
}
