package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// Errors that callers branch on.
var (
	// ErrNoSchema means that rows came before Declare.
	ErrNoSchema = errors.New("declare the schema before the first row")
	// ErrRow means that a row does not fit the schema or cannot be sent. Nothing was taken.
	ErrRow = errors.New("row refused")
	// ErrEnded means that Run has returned.
	ErrEnded = errors.New("the agent has ended")
)

// StopError means that the hub wants nothing from this device until somebody acts: the token is wrong or revoked, another
// agent uses it, or the two programs do not understand each other.
type StopError struct {
	Code   wire.CloseCode
	Reason string
}

func (e *StopError) Error() string {
	return fmt.Sprintf("the hub refused this device: %s", closeText(e.Code, e.Reason))
}

// Options configures an Agent.
type Options struct {
	// Device is the device's id. Empty leaves it to the token.
	Device device.ID
	// Firmware, Model and Boot are told to the hub, at most 64 bytes each.
	Firmware, Model, Boot string
	// Clock is what is known of the time. Nil means one that is kept by NTP.
	Clock *Clock
	// MaxRows closes a batch. Zero means 512, at most device.MaxRows.
	MaxRows int
	// MaxBytes closes a batch before its frame gets larger. Zero means 32 KiB, at most wire.MaxFrame - 64.
	MaxBytes int
	// MaxAge closes a batch when its first row has waited so long. Zero means 1 s. The hub can ask for more.
	MaxAge time.Duration
	// MinRetry and MaxRetry bound the growing time within which the next connection is tried, at random. Zero means 1 s
	// and 5 min.
	MinRetry, MaxRetry time.Duration
	// Answer is how long the hub may take to answer the hello. Zero means 10 s.
	Answer time.Duration
	// Rand returns a number in [0,1) to spread the tries with. Nil means math/rand. It is called by one goroutine.
	Rand func() float64
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *Options) fill() error {
	zero(&o.MaxRows, 512)
	zero(&o.MaxBytes, 32<<10)
	zero(&o.MaxAge, time.Second)
	zero(&o.MinRetry, time.Second)
	zero(&o.MaxRetry, 5*time.Minute)
	zero(&o.Answer, 10*time.Second)
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Device != "" {
		if _, err := device.ParseID(string(o.Device)); err != nil {
			return fmt.Errorf("agent options: device %q: %w", o.Device, err)
		}
	}
	switch {
	case o.MaxRows < 1 || o.MaxRows > device.MaxRows:
		return fmt.Errorf("agent options: MaxRows is %d, use 1 to %d", o.MaxRows, device.MaxRows)
	case o.MaxBytes < 256 || o.MaxBytes > wire.MaxFrame-frameRoom:
		return fmt.Errorf("agent options: MaxBytes is %d, use 256 to %d", o.MaxBytes, wire.MaxFrame-frameRoom)
	case o.MaxAge < 0 || o.MinRetry < 0 || o.MaxRetry < o.MinRetry || o.Answer < 0:
		return errors.New("agent options: times must not be negative, and MaxRetry not below MinRetry")
	case len(o.Firmware) > wire.MaxWord || len(o.Model) > wire.MaxWord || len(o.Boot) > wire.MaxWord:
		return fmt.Errorf("agent options: Firmware, Model and Boot have at most %d bytes", wire.MaxWord)
	}
	return nil
}

func zero[T comparable](v *T, def T) {
	var none T
	if *v == none {
		*v = def
	}
}
