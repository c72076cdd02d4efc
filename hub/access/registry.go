package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"telemetryhub/hub/access/audit"
	"telemetryhub/storage"
)

// Limits.
const (
	maxLabel    = 128 // bytes
	maxPatterns = 64
	// maxTries bounds how often a change is made again because another writer was faster.
	maxTries = 8
)

// Options configures a Registry. The zero value works. Negative values are errors.
type Options struct {
	// SessionIdle ends a session that was not used for so long. Zero means 30 days.
	SessionIdle time.Duration
	// SessionMax ends a session so long after its login even if it is used. Zero means 365 days.
	SessionMax time.Duration
	// LinkAge is how long a one-time link is good. Zero means 15 minutes.
	LinkAge time.Duration
	// AuditMax is the number of audit entries kept. Zero means 10,000.
	AuditMax int
	// Hash says what a password hash costs. The zero value means 19 MiB, 2 passes: about 50 ms on a Pi 5.
	Hash HashCost
	// HashQueue is how many callers may wait for the one password hash that runs at a time. Callers from addresses
	// from which somebody has logged in before have a second queue of that length. Zero means 8.
	HashQueue int
	// Now is the wall clock. Nil means time.Now.
	Now func() time.Time
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *Options) fill() error {
	if o.SessionIdle < 0 || o.SessionMax < 0 || o.LinkAge < 0 || o.AuditMax < 0 || o.HashQueue < 0 {
		return errors.New("access options: durations, counts and queues cannot be negative")
	}
	o.SessionIdle = cmp.Or(o.SessionIdle, 30*24*time.Hour)
	o.SessionMax = cmp.Or(o.SessionMax, 365*24*time.Hour)
	o.LinkAge = cmp.Or(o.LinkAge, 15*time.Minute)
	o.HashQueue = cmp.Or(o.HashQueue, 8)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o.Hash.fill()
}

// Registry knows all credentials. It is safe for use by many goroutines at once. Methods without a context answer from
// memory and never wait for the catalog.
type Registry struct {
	opts     Options
	catalog  storage.Catalog
	log      *slog.Logger
	audit    *audit.Log
	hasher   *hasher
	throttle *throttle
	instance string

	changing chan struct{} // holds one element while somebody makes a change
	wake     chan struct{} // tells Run that there is something to do soon

	mu       sync.RWMutex // guards the fields below; never held during catalog operations or callbacks
	tokens   tokenIndex
	people   peopleIndex
	sessions sessionIndex
	watches  watchIndex
}

// Open loads the registry from the catalog, which stays the caller's and must outlive it. Damaged values are reported to
// the log and left where they are: what they stood for is refused. An error that wraps storage.ErrNewerFormat means that
// a newer version of the program wrote some.
func Open(ctx context.Context, catalog storage.Catalog, opts Options) (*Registry, error) {
	if err := opts.fill(); err != nil {
		return nil, err
	}
	entries, err := audit.Open(ctx, catalog, audit.Options{Max: opts.AuditMax, Now: opts.Now})
	if err != nil {
		return nil, err
	}
	r := &Registry{
		opts: opts, catalog: catalog, log: opts.Logger.With("component", "access"), audit: entries,
		hasher: newHasher(opts.Hash, opts.HashQueue), throttle: newThrottle(),
		changing: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		tokens: newTokenIndex(), people: newPeopleIndex(), sessions: newSessionIndex(), watches: watchIndex{},
	}
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("load tokens and users: %w", err)
	}
	return r, nil
}

// load fills the indexes. Nobody else knows the registry yet.
func (r *Registry) load(ctx context.Context) error {
	var l loader
	err := r.catalog.List(ctx, allKeys, func(item storage.Item) bool {
		l.take(r, item)
		return l.err == nil
	})
	if l.err != nil {
		return l.err
	}
	if err != nil && !errors.Is(err, storage.ErrCorrupt) {
		return err
	}
	if err != nil {
		l.damaged = append(l.damaged, err)
	}
	for id, ms := range l.used {
		if t := r.tokens.byID[id]; t != nil {
			t.used.Store(ms)
			t.flushed = ms
		}
	}
	if len(l.damaged) > 0 {
		r.people.damaged = true // nobody can say whose record it was
		r.log.Error("some tokens or users cannot be read and are refused: restore a backup, or make them anew",
			"count", len(l.damaged), "err", errors.Join(l.damaged...))
	}
	if r.instance == "" {
		r.instance = newID()[:8]
		_, err := r.put(ctx, instanceKey, instanceRecord{V: recordVersion, ID: r.instance}, storage.Any)
		if err != nil && !errors.Is(err, storage.ErrReadOnly) && !errors.Is(err, storage.ErrFull) {
			return err
		}
	}
	return nil
}

// loader sorts the values of the catalog into the indexes.
type loader struct {
	used    map[string]int64
	damaged []error
	err     error // ends the loading
}

func (l *loader) take(r *Registry, item storage.Item) {
	err := l.sort(r, item)
	switch {
	case errors.Is(err, storage.ErrNewerFormat):
		l.err = err
	case err != nil:
		l.damaged = append(l.damaged, err)
	}
}

func (l *loader) sort(r *Registry, item storage.Item) error {
	switch {
	case strings.HasPrefix(item.Key, tokenKeys):
		rec, err := read[tokenRecord](item.Key, item.Value)
		if err != nil {
			return err
		}
		t, err := newToken(rec, item.Revision)
		if err != nil {
			return err
		}
		r.tokens.add(t)
	case strings.HasPrefix(item.Key, usedKeys):
		rec, err := read[usedRecord](item.Key, item.Value)
		if err != nil {
			return err
		}
		if l.used == nil {
			l.used = map[string]int64{}
		}
		for id, ms := range rec.Used {
			l.used[id] = ms
		}
	case strings.HasPrefix(item.Key, userKeys):
		rec, err := read[userRecord](item.Key, item.Value)
		if err != nil {
			return err
		}
		u, err := newUser(rec, item.Revision)
		if err != nil {
			return err
		}
		r.people.byName[rec.Name] = u
	case strings.HasPrefix(item.Key, sessionKeys):
		rec, err := read[sessionRecord](item.Key, item.Value)
		if err != nil {
			return err
		}
		r.sessions.add(newSession(rec, item.Revision))
	case item.Key == instanceKey:
		rec, err := read[instanceRecord](item.Key, item.Value)
		if err != nil {
			return err
		}
		r.instance = rec.ID
	}
	return nil
}

// change waits until no other change is being made. The caller calls done when its own is over.
func (r *Registry) change(ctx context.Context) (done func(), err error) {
	select {
	case r.changing <- struct{}{}:
		return func() { <-r.changing }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Record writes what somebody changed elsewhere in the hub into the audit log. No text may hold a secret.
func (r *Registry) Record(ctx context.Context, by Identity, what Action, target, detail string) error {
	return r.audit.Record(ctx, audit.Entry{Who: by.Name(), Credential: by.Credential, What: string(what), Target: target,
		Detail: detail})
}

// note records a change that has been made. It cannot be taken back, so a failure only goes to the log.
func (r *Registry) note(ctx context.Context, by Identity, what Action, target, detail string) {
	if err := r.Record(ctx, by, what, target, detail); err != nil {
		r.log.Error("a change is missing in the audit log", "who", by.Name(), "what", what, "target", target, "err", err)
	}
}

// Audit returns up to limit entries of the audit log, newest first; see audit.Log.List.
func (r *Registry) Audit(ctx context.Context, by Identity, before string, limit int) ([]audit.Entry, error) {
	if err := by.Require(ReadAudit); err != nil {
		return nil, err
	}
	return r.audit.List(ctx, before, limit)
}

// checkLabel returns an error that wraps ErrInvalid unless the label is short and printable.
func checkLabel(label string) error {
	if len(label) > maxLabel {
		return fmt.Errorf("%w label: %d bytes, at most %d can be stored", ErrInvalid, len(label), maxLabel)
	}
	if !utf8.ValidString(label) || strings.ContainsFunc(label, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return fmt.Errorf("%w label: use printable characters only", ErrInvalid)
	}
	return nil
}
