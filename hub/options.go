package hub

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"telemetryhub/storage"
)

// Stores are the three contracts that a hub works on. The caller opens them and closes them after Run has returned.
type Stores struct {
	Log     storage.Log
	Chunks  storage.Chunks
	Catalog storage.Catalog
}

// Options configures a Hub. The zero value works.
type Options struct {
	// CommitInterval is the least time from the beginning of one commit to the beginning of the next. Zero means 2 ms. An
	// idle hub commits at once. Negative is an error.
	CommitInterval time.Duration
	// QueueBytes bounds what waits for the committer. A session that finds it full waits, and so does its socket. Zero means
	// 4 MiB. Less than one group is an error.
	QueueBytes int
	// TailBytes bounds the newest groups that are kept in memory for the cursors; one that falls behind reads the log. Zero
	// means 8 MiB.
	TailBytes int
	// HeadBytes is how much of what is not in history files yet may be in memory before it is written; it takes up to three
	// times as much. Zero means 32 MiB.
	HeadBytes int64
	// OutboxBytes is about how much of the log, beyond what the history needs, is kept for outside cursors that are behind; what
	// is over they skip. When the log or the disk is full they skip before that. Zero means 1 GiB, negative none.
	OutboxBytes int64
	// Window is how many batches, and WindowBytes how many bytes of them, a device may have unacknowledged. Zero means 32
	// and 256 KiB.
	Window, WindowBytes int
	// Ping is how often the adapters ping a silent peer, as devices are told. Zero means 25 s.
	Ping time.Duration
	// MaxSessions is the most devices that may be connected at a time. Zero means 20,000.
	MaxSessions int
	// MaxViewers is the most viewers that may be subscribed at a time. Zero means 12,000.
	MaxViewers int
	// DrainTimeout bounds how long Run waits for sessions to end and for the last commits when it is stopped. Zero means 5 s.
	DrainTimeout time.Duration
	// Version is told to viewers. Empty means "dev".
	Version string
	// ReadOnly makes a hub that shows what there is and takes no readings: nothing is written, and the stores may be read-only.
	ReadOnly bool
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *Options) fill() error {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&o.QueueBytes, 4<<20)
	def(&o.TailBytes, 8<<20)
	def(&o.Window, 32)
	def(&o.WindowBytes, 256<<10)
	def(&o.MaxSessions, 20_000)
	def(&o.MaxViewers, 12_000)
	if o.OutboxBytes == 0 {
		o.OutboxBytes = 1 << 30
	}
	if o.CommitInterval == 0 {
		o.CommitInterval = 2 * time.Millisecond
	}
	if o.Ping == 0 {
		o.Ping = 25 * time.Second
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = 5 * time.Second
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.CommitInterval < 0, o.Ping < 0, o.DrainTimeout < 0:
		return errors.New("hub options: a duration is negative")
	case o.QueueBytes < storage.MaxGroup:
		return fmt.Errorf("hub options: QueueBytes is %d, at least %d is needed for one group", o.QueueBytes, storage.MaxGroup)
	case o.TailBytes < 0, o.HeadBytes < 0, o.Window < 0, o.WindowBytes < 0, o.MaxSessions < 0, o.MaxViewers < 0:
		return errors.New("hub options: a limit is negative")
	}
	return nil
}
