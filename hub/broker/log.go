package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// quiet is the logger of mochi, which logs whole packets and calls at Warn what any client can cause. It passes on the
// texts and the values of a few keys, at Debug.
type quiet struct{ slog.Handler }

// quietKeys are the keys that hold nothing of what a client sent but its id, which was checked.
var quietKeys = map[string]bool{"error": true, "client": true, "remote": true, "listener": true}

func (q quiet) Enabled(ctx context.Context, _ slog.Level) bool {
	return q.Handler.Enabled(ctx, slog.LevelDebug)
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	out := slog.NewRecord(r.Time, slog.LevelDebug, "mochi: "+r.Message, 0)
	r.Attrs(func(a slog.Attr) bool {
		if quietKeys[a.Key] {
			out.AddAttrs(a)
		}
		return true
	})
	return q.Handler.Handle(ctx, out)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler {
	var kept []slog.Attr
	for _, a := range attrs {
		if quietKeys[a.Key] {
			kept = append(kept, a)
		}
	}
	return quiet{q.Handler.WithAttrs(kept)}
}

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

// Lines that clients can cause are written logBurst at once and one every logEvery in the long run.
const (
	logBurst = 20
	logEvery = 2 * time.Second
)

// limitedLog writes lines that clients can cause as often as they like.
type limitedLog struct {
	log *slog.Logger

	mu      sync.Mutex // guards the fields below
	left    float64
	at      time.Time
	omitted int
}

func (l *limitedLog) info(msg string, args ...any) {
	now := time.Now()
	l.mu.Lock()
	if l.at.IsZero() {
		l.left = logBurst
	} else {
		l.left = min(logBurst, l.left+now.Sub(l.at).Seconds()/logEvery.Seconds())
	}
	l.at = now
	if l.left < 1 {
		l.omitted++
		l.mu.Unlock()
		return
	}
	l.left--
	if l.omitted > 0 {
		args = append(args, "omitted_before", l.omitted)
		l.omitted = 0
	}
	l.mu.Unlock()
	l.log.Info(msg, args...)
}
