package history

import (
	"fmt"
	"log/slog"
	"time"
)

// Options configures a [Store]. The zero value works.
type Options struct {
	// HeadBytes is the size of the rows in memory from which on a flush is due. The heads take up at most about twice as
	// much. Zero means 32 MiB. Negative is an error.
	HeadBytes int64
	// MaxBytes limits the size of all rows in memory, those that are being flushed included: from there on Apply takes
	// no more. Zero means three times HeadBytes. Less than twice HeadBytes is an error.
	MaxBytes int64
	// LogBytes is the size of the log since the last flush from which on the next one is due. Zero means 128 MiB.
	// Negative is an error.
	LogBytes int64
	// MaxAge is how long a row may wait in memory before a flush is due. Zero means 5 minutes. Negative is an error.
	MaxAge time.Duration
	// IndexBytes limits the memory of the directories that are kept from one question to the next. Zero means 16 MiB.
	// Negative is an error.
	IndexBytes int64
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *Options) fill() error {
	for _, f := range []struct {
		name  string
		value *int64
		zero  int64
	}{
		{"HeadBytes", &o.HeadBytes, 32 << 20},
		{"LogBytes", &o.LogBytes, 128 << 20},
		{"IndexBytes", &o.IndexBytes, 16 << 20},
		{"MaxAge", (*int64)(&o.MaxAge), int64(5 * time.Minute)},
	} {
		if *f.value < 0 {
			return fmt.Errorf("history: %s is negative", f.name)
		}
		if *f.value == 0 {
			*f.value = f.zero
		}
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 3 * o.HeadBytes
	}
	if o.MaxBytes < 2*o.HeadBytes {
		return fmt.Errorf("history: MaxBytes is %d, less than twice HeadBytes (%d)", o.MaxBytes, o.HeadBytes)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}
