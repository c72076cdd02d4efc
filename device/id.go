package device

import (
	"errors"
	"fmt"
)

// MaxIDLen is the longest device ID in bytes.
const MaxIDLen = 64

// ErrID reports that a string is not a device ID.
var ErrID = errors.New("not a device ID: use 1 to 64 of a-z 0-9 . _ - and start with a letter or a digit")

// ID names a device for its whole life: [a-z0-9][a-z0-9._-]{0,63}. It is immutable and never given to another device.
type ID string

// ParseID returns s as an ID, or an error that wraps [ErrID].
func ParseID(s string) (ID, error) {
	if len(s) == 0 || len(s) > MaxIDLen {
		return "", fmt.Errorf("%w (got %d bytes)", ErrID, len(s))
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case (c == '.' || c == '_' || c == '-') && i > 0:
		default:
			return "", fmt.Errorf("%w (byte %d is %q)", ErrID, i, c)
		}
	}
	return ID(s), nil
}
