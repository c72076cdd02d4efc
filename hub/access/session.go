package access

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"telemetryhub/storage"
)

const (
	// maxSessions bounds how often a person can be logged in at a time; a new login ends the one longest unused.
	maxSessions = 32
	maxAgent    = 256
)

// session is one login in memory. All but seen, flushed and rev is immutable.
type session struct {
	rec  sessionRecord
	seen atomic.Int64 // Unix milliseconds of about the last use

	rev     storage.Revision // of the durable record; Absent if there is none. Owned by who has the right to change
	flushed int64            // what of seen is durable; owned likewise
}

func newSession(rec sessionRecord, rev storage.Revision) *session {
	s := &session{rec: rec, rev: rev, flushed: rec.Seen}
	s.seen.Store(rec.Seen)
	return s
}

// sessionIndex finds sessions. It is guarded by Registry.mu.
type sessionIndex struct {
	byHash map[digest]*session
	byID   map[string]*session
	// over are the ids of sessions that have ended and may still have a record on disk.
	over map[string]struct{}
}

func newSessionIndex() sessionIndex {
	return sessionIndex{byHash: map[digest]*session{}, byID: map[string]*session{}, over: map[string]struct{}{}}
}

func (x *sessionIndex) add(s *session) {
	x.byHash[s.rec.Hash] = s
	x.byID[s.rec.ID] = s
}

func (x *sessionIndex) drop(s *session) {
	x.over[s.rec.ID] = struct{}{}
	delete(x.byHash, s.rec.Hash)
	delete(x.byID, s.rec.ID)
}

// sessionExpiry returns when the session ends if it is not used any more.
func (r *Registry) sessionExpiry(s *session) time.Time {
	idle := moment(s.seen.Load()).Add(r.opts.SessionIdle)
	if last := moment(s.rec.Created).Add(r.opts.SessionMax); last.Before(idle) {
		return last
	}
	return idle
}

// NewSession is a session together with its cookie, which nobody can find out later.
type NewSession struct {
	Identity
	Cookie Secret
	// Expires is when the session ends at the latest. Unused it ends earlier.
	Expires time.Time
}

// SessionInfo is what may be known about a session.
type SessionInfo struct {
	ID, User string
	Created  time.Time
	// LastSeen is the minute of the last use; Expires is when the session ends if it is not used any more.
	LastSeen, Expires time.Time
	// Source and Agent are what the login came from.
	Source, Agent string
}

// Session returns who a cookie belongs to. The only error is ErrNoSession. It answers from memory.
func (r *Registry) Session(cookie Secret) (Identity, error) {
	p, hash, err := parse(cookie.Reveal())
	if err != nil || p != sessionPrefix {
		return Identity{}, ErrNoSession
	}
	now := r.opts.Now()
	r.mu.RLock()
	defer r.mu.RUnlock()
	s := r.sessions.byHash[hash]
	if s == nil || !now.Before(r.sessionExpiry(s)) {
		return Identity{}, ErrNoSession
	}
	u := r.people.owner(s)
	if u == nil {
		return Identity{}, ErrNoSession
	}
	touch(&s.seen, now)
	return s.identity(u), nil
}

func (s *session) identity(u *user) Identity {
	return Identity{Kind: KindPerson, User: u.rec.Name, Role: u.role, Credential: s.rec.ID}
}

// startSession logs a person in. A session that cannot be stored because the disk is full or read-only lives in memory:
// that is just when somebody has to look after the hub.
func (r *Registry) startSession(ctx context.Context, u *user, source netip.Addr, agent string) (NewSession, error) {
	secret, hash := mint(sessionPrefix)
	now := r.opts.Now()
	rec := sessionRecord{V: recordVersion, ID: newID(), Hash: hash, User: u.rec.Name, UID: u.rec.UID,
		Generation: u.rec.Generation, Created: stamp(now), Seen: stamp(now), Agent: clip(agent, maxAgent)}
	if source.IsValid() {
		rec.Source = source.Unmap().String()
	}
	rev, err := r.put(ctx, sessionKeys+rec.ID, rec, storage.Absent)
	switch {
	case errors.Is(err, storage.ErrFull), errors.Is(err, storage.ErrReadOnly):
		r.log.Warn("a session is kept in memory only, because it cannot be stored", "user", u.rec.Name, "err", err)
	case err != nil:
		return NewSession{}, fmt.Errorf("store the session of %s: %w", u.rec.Name, err)
	}
	s := newSession(rec, rev)
	r.mu.Lock()
	r.sessions.add(s)
	var told []func(Reason)
	for _, s := range r.oldestLocked(u) {
		r.sessions.drop(s)
		told = append(told, r.watches.take(s.rec.ID)...)
	}
	r.mu.Unlock()
	tell(told, Revoked)
	r.discardSoon(ctx)
	r.log.Info("logged in", "user", u.rec.Name, "session", rec.ID, "source", rec.Source)
	return NewSession{Identity: s.identity(u), Cookie: secret, Expires: now.Add(r.opts.SessionMax)}, nil
}

// oldestLocked returns the sessions that a person has too many, those longest unused.
func (r *Registry) oldestLocked(u *user) []*session {
	var own []*session
	for _, s := range r.sessions.byID {
		if s.rec.User == u.rec.Name {
			own = append(own, s)
		}
	}
	if len(own) <= maxSessions {
		return nil
	}
	slices.SortFunc(own, func(a, b *session) int {
		if c := int(a.seen.Load() - b.seen.Load()); c != 0 {
			return c
		}
		return int(a.rec.Created - b.rec.Created)
	})
	return own[:len(own)-maxSessions]
}

// discard removes the records of all sessions that are over.
func (r *Registry) discard(ctx context.Context) error {
	r.mu.RLock()
	over := slices.Collect(maps.Keys(r.sessions.over))
	r.mu.RUnlock()
	for _, id := range over {
		if err := r.remove(ctx, sessionKeys+id); err != nil {
			return fmt.Errorf("remove the record of session %s: %w", id, err)
		}
		r.mu.Lock()
		delete(r.sessions.over, id)
		r.mu.Unlock()
	}
	return nil
}

// discardSoon is discard for those who need not wait for it: if it fails, Run does it.
func (r *Registry) discardSoon(ctx context.Context) {
	if err := r.discard(ctx); err != nil {
		r.log.Warn("records of ended sessions are removed later", "err", err)
	}
}

// Logout ends the session of a cookie. A cookie without a session is no error.
func (r *Registry) Logout(ctx context.Context, cookie Secret) error {
	p, hash, err := parse(cookie.Reveal())
	if err != nil || p != sessionPrefix {
		return nil
	}
	r.mu.RLock()
	s := r.sessions.byHash[hash]
	r.mu.RUnlock()
	if s == nil {
		return nil
	}
	return r.endSession(ctx, s)
}

// Sessions returns where a person is logged in, the newest login first. People may ask for their own.
func (r *Registry) Sessions(by Identity, name string) ([]SessionInfo, error) {
	name = strings.ToLower(name)
	if err := requireSelf(by, name); err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := []SessionInfo{}
	now := r.opts.Now()
	for _, s := range r.sessions.byID {
		if s.rec.User != name || r.people.owner(s) == nil || !now.Before(r.sessionExpiry(s)) {
			continue
		}
		list = append(list, SessionInfo{ID: s.rec.ID, User: name, Created: moment(s.rec.Created),
			LastSeen: moment(s.seen.Load()), Expires: r.sessionExpiry(s), Source: s.rec.Source, Agent: s.rec.Agent})
	}
	slices.SortFunc(list, func(a, b SessionInfo) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// EndSession ends one session of a person, whose name guards against mistakes. People may end their own.
func (r *Registry) EndSession(ctx context.Context, by Identity, name, id string) error {
	name = strings.ToLower(name)
	if err := requireSelf(by, name); err != nil {
		return err
	}
	r.mu.RLock()
	s := r.sessions.byID[id]
	r.mu.RUnlock()
	if s == nil || s.rec.User != name {
		return fmt.Errorf("%s has no session with this id: %w", name, storage.ErrNotFound)
	}
	if err := r.endSession(ctx, s); err != nil {
		return err
	}
	if by.User != name { // people could fill the audit log with their own comings and goings
		r.note(ctx, by, ManageUsers, name, "end session "+id)
	}
	return nil
}

// endSession ends a session in memory first: whoever asks for it wants it to be over, whatever the disk says.
func (r *Registry) endSession(ctx context.Context, s *session) error {
	r.mu.Lock()
	r.sessions.drop(s)
	told := r.watches.take(s.rec.ID)
	r.mu.Unlock()
	tell(told, Revoked)
	if err := r.discard(ctx); err != nil {
		return fmt.Errorf("the session is over, but a restart before it is removed from disk brings it back: %w", err)
	}
	return nil
}

// requireSelf lets people do what concerns their own account, and administrators what concerns any.
func requireSelf(by Identity, name string) error {
	if by.Kind == KindPerson && by.User == name && by.Can(OwnAccount) {
		return nil
	}
	return by.Require(ManageUsers)
}

// clip cuts a text to n bytes of valid UTF-8.
func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
