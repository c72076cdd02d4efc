package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"telemetryhub/storage"
)

const (
	// sweepEvery bounds how late an expiry is noticed after the wall clock was set.
	sweepEvery = time.Minute
	// flushEvery is how often times of last use are written.
	flushEvery = time.Hour
	// flushSoon is how soon the first use of a token is written, together with those that come meanwhile.
	flushSoon = time.Second
	// flushLast bounds the last flush when the hub stops.
	flushLast = 2 * time.Second
	// keepExpired is how long the list of tokens shows those whose time is over.
	keepExpired = 30 * 24 * time.Hour
)

// Run ends what has expired, tells who watches it, and stores times of last use every hour and when ctx ends. It returns
// nil when ctx ends.
func (r *Registry) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	flush := time.Now().Add(flushEvery) // monotonic
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushLast)
			defer cancel()
			if err := r.flush(last); err != nil {
				r.log.Warn("times of last use are not stored", "err", err)
			}
			return nil
		case <-r.wake:
			if soon := time.Now().Add(flushSoon); soon.Before(flush) {
				flush = soon
			}
		case <-timer.C:
		}
		next := r.sweep()
		if wait := time.Until(flush); wait <= 0 {
			if err := r.flush(ctx); err != nil && ctx.Err() == nil {
				r.log.Warn("times of last use are not stored, trying again in an hour", "err", err)
			}
			flush = time.Now().Add(flushEvery)
		} else {
			next = min(next, wait)
		}
		timer.Reset(next)
	}
}

// hurry lets Run look soon.
func (r *Registry) hurry() {
	select {
	case r.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// sweep tells the watchers of what has expired and returns when to look again. Sessions that are watched are used.
func (r *Registry) sweep() time.Duration {
	now := r.opts.Now()
	next := now.Add(sweepEvery)
	var told []func(Reason)
	r.mu.Lock()
	for credential := range r.watches {
		if s := r.sessions.byID[credential]; s != nil && now.Before(r.sessionExpiry(s)) {
			touch(&s.seen, now)
		}
		switch expiry := r.expiryLocked(credential); {
		case !now.Before(expiry):
			told = append(told, r.watches.take(credential)...)
		case expiry.Before(next):
			next = expiry
		}
	}
	r.mu.Unlock()
	tell(told, Expired)
	return next.Sub(now)
}

// flush stores times of last use and removes what is over.
func (r *Registry) flush(ctx context.Context) error {
	done, err := r.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	r.purgeDeadlines()
	return errors.Join(r.flushTokens(ctx), r.flushSessions(ctx), r.purgeTokens(ctx))
}

// flushTokens stores the last uses of tokens in values that share the first two characters of their ids, so that a hub
// with many devices writes few values and no value becomes large.
func (r *Registry) flushTokens(ctx context.Context) error {
	shards := map[string]map[string]int64{}
	dirty := map[string]bool{}
	written := map[*token]int64{}
	r.mu.RLock()
	for id, t := range r.tokens.byID {
		used := t.used.Load()
		if used == 0 {
			continue
		}
		shard := id[:min(2, len(id))]
		if shards[shard] == nil {
			shards[shard] = map[string]int64{}
		}
		shards[shard][id] = used
		if used != t.flushed {
			dirty[shard] = true
			written[t] = used
		}
	}
	r.mu.RUnlock()
	if len(dirty) == 0 {
		return nil
	}
	items := make([]storage.Item, 0, len(dirty))
	for shard := range dirty {
		value, err := json.Marshal(usedRecord{V: recordVersion, Used: shards[shard]})
		if err != nil {
			return fmt.Errorf("encode the last uses of tokens: %w", err)
		}
		items = append(items, storage.Item{Key: usedKeys + shard, Value: value})
	}
	if err := r.putAll(ctx, items); err != nil {
		return fmt.Errorf("store the last uses of tokens: %w", err)
	}
	for t, used := range written {
		t.flushed = used
	}
	return nil
}

// flushSessions stores the last uses of sessions and removes those that are over.
func (r *Registry) flushSessions(ctx context.Context) error {
	now := r.opts.Now()
	var over, used []*session
	r.mu.Lock()
	for _, s := range r.sessions.byID {
		switch {
		case r.people.owner(s) == nil || !now.Before(r.sessionExpiry(s)):
			over = append(over, s)
		case s.seen.Load() != s.flushed && s.rev != storage.Absent:
			used = append(used, s)
		}
	}
	for _, s := range over {
		r.sessions.drop(s)
	}
	r.mu.Unlock()
	if err := r.discard(ctx); err != nil {
		return err
	}
	for _, s := range used {
		rec := s.rec
		rec.Seen = s.seen.Load()
		rev, err := r.put(ctx, sessionKeys+rec.ID, rec, s.rev)
		if errors.Is(err, storage.ErrConflict) {
			continue // ended meanwhile
		}
		if err != nil {
			return fmt.Errorf("store the last use of session %s: %w", rec.ID, err)
		}
		s.rev, s.flushed = rev, rec.Seen
	}
	return nil
}

// purgeTokens removes tokens whose time has long been over.
func (r *Registry) purgeTokens(ctx context.Context) error {
	before := r.opts.Now().Add(-keepExpired)
	var over []*token
	r.mu.RLock()
	for _, t := range r.tokens.byID {
		if t.expired(before) {
			over = append(over, t)
		}
	}
	r.mu.RUnlock()
	for _, t := range over {
		if err := r.revoke(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// purgeDeadlines forgets the deadlines of links that nobody has any more.
func (r *Registry) purgeDeadlines() {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := map[digest]time.Time{}
	for _, u := range r.people.byName {
		for _, l := range u.rec.Links {
			if deadline, ok := r.people.deadlines[l.Hash]; ok {
				left[l.Hash] = deadline
			}
		}
	}
	r.people.deadlines = left
}
