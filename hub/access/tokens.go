package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// token is one token in memory. All but used and flushed is immutable; a change makes a new token.
type token struct {
	rec  tokenRecord
	rev  storage.Revision
	role Role

	used    atomic.Int64 // Unix milliseconds of about the last use, 0 for never
	flushed int64        // what of used is durable; owned by Run and Open
}

// newToken checks what the program relies on. Errors wrap storage.ErrCorrupt.
func newToken(rec tokenRecord, rev storage.Revision) (*token, error) {
	t := &token{rec: rec, rev: rev}
	var err error
	switch rec.Kind {
	case KindDevice:
		_, err = device.ParseID(string(rec.Device))
	case KindAPI:
		t.role, err = ParseRole(rec.Role)
	case KindEnrolment:
	default:
		err = fmt.Errorf("kind %q", rec.Kind)
	}
	if err = errors.Join(err, checkPatterns(rec.Devices)); err != nil || rec.ID == "" {
		return nil, fmt.Errorf("token %q: %w: %v", rec.ID, storage.ErrCorrupt, err)
	}
	return t, nil
}

func (t *token) identity() Identity {
	return Identity{Kind: t.rec.Kind, Device: t.rec.Device, Role: t.role, Credential: t.rec.ID, Devices: t.rec.Devices}
}

func (t *token) expired(now time.Time) bool {
	return t.rec.Expires != 0 && now.UnixMilli() >= t.rec.Expires
}

func (t *token) info() TokenInfo {
	return TokenInfo{
		ID: t.rec.ID, Kind: t.rec.Kind, Label: t.rec.Label, Device: t.rec.Device, Role: t.role,
		Devices: slices.Clone(t.rec.Devices), Created: moment(t.rec.Created), Expires: moment(t.rec.Expires),
		LastUsed: moment(t.used.Load()), Uses: t.rec.Uses, By: t.rec.By,
	}
}

// tokenIndex finds tokens. It is guarded by Registry.mu.
type tokenIndex struct {
	byHash   map[digest]*token
	byID     map[string]*token
	byDevice map[device.ID][]*token
}

func newTokenIndex() tokenIndex {
	return tokenIndex{byHash: map[digest]*token{}, byID: map[string]*token{}, byDevice: map[device.ID][]*token{}}
}

func (x *tokenIndex) add(t *token) {
	x.byHash[t.rec.Hash] = t
	x.byID[t.rec.ID] = t
	if t.rec.Kind == KindDevice {
		x.byDevice[t.rec.Device] = append(x.byDevice[t.rec.Device], t)
	}
}

func (x *tokenIndex) drop(t *token) {
	delete(x.byHash, t.rec.Hash)
	delete(x.byID, t.rec.ID)
	left := slices.DeleteFunc(slices.Clone(x.byDevice[t.rec.Device]), func(o *token) bool { return o == t })
	if len(left) == 0 {
		delete(x.byDevice, t.rec.Device)
	} else {
		x.byDevice[t.rec.Device] = left
	}
}

// TokenInfo is what may be known about a token.
type TokenInfo struct {
	ID    string
	Kind  Kind
	Label string
	// Device is the device of a device token.
	Device device.ID
	// Role is the role of an API token.
	Role Role
	// Devices limits API and enrolment tokens; see Identity.Devices.
	Devices []string
	Created time.Time
	// Expires is zero for a token that does not expire.
	Expires time.Time
	// LastUsed is the minute of the last use, zero for never. After a crash it may be up to an hour too early.
	LastUsed time.Time
	// Uses is how many devices may still be enrolled.
	Uses int
	// By names who made it.
	By string
}

// Authenticate returns who a bearer token (or an MQTT password) belongs to. Errors: ErrNotToken, ErrUnknownToken,
// ErrExpired. It answers from memory, in less than a microsecond.
func (r *Registry) Authenticate(text string) (Identity, error) {
	_, hash, err := parse(text)
	if err != nil {
		return Identity{}, err
	}
	r.mu.RLock()
	t := r.tokens.byHash[hash]
	r.mu.RUnlock()
	if t == nil {
		return Identity{}, ErrUnknownToken
	}
	now := r.opts.Now()
	if t.expired(now) {
		return Identity{}, ErrExpired
	}
	if touch(&t.used, now) {
		r.hurry() // the first use decides whether an enrolment may be repeated
	}
	return t.identity(), nil
}

// touch notes a use, to the minute, and reports whether it was the first.
func touch(used *atomic.Int64, now time.Time) (first bool) {
	ms, last := now.UnixMilli(), used.Load()
	if ms-last >= time.Minute.Milliseconds() || ms < last {
		return used.CompareAndSwap(last, ms) && last == 0
	}
	return false
}

// Tokens returns all tokens of the kinds (none means all kinds), by device and time of creation. Tokens whose time is
// over stay in the list for 30 days.
func (r *Registry) Tokens(by Identity, kinds ...Kind) ([]TokenInfo, error) {
	if err := by.Require(ManageTokens); err != nil {
		return nil, err
	}
	r.mu.RLock()
	list := make([]TokenInfo, 0, len(r.tokens.byID))
	for _, t := range r.tokens.byID {
		if len(kinds) == 0 || slices.Contains(kinds, t.rec.Kind) {
			list = append(list, t.info())
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(a, b TokenInfo) int {
		if c := strings.Compare(string(a.Device), string(b.Device)); c != 0 {
			return c
		}
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, nil
}

// RevokeToken ends a token. Connections that it opened are told through Watch before RevokeToken returns.
func (r *Registry) RevokeToken(ctx context.Context, by Identity, id string) error {
	if err := by.Require(ManageTokens); err != nil {
		return err
	}
	done, err := r.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	r.mu.RLock()
	t := r.tokens.byID[id]
	r.mu.RUnlock()
	if t == nil {
		// Without the text: somebody may have given the token in place of its id.
		return fmt.Errorf("no token has this id (hub token list shows those that exist): %w", storage.ErrNotFound)
	}
	if err := r.revoke(ctx, t); err != nil {
		return err
	}
	r.note(ctx, by, ManageTokens, describe([]*token{t}), "revoke "+string(t.rec.Kind))
	return nil
}

// RevokeDevice ends all tokens of a device and returns how many there were.
func (r *Registry) RevokeDevice(ctx context.Context, by Identity, dev device.ID) (int, error) {
	if err := by.Require(ManageTokens); err != nil {
		return 0, err
	}
	done, err := r.change(ctx)
	if err != nil {
		return 0, err
	}
	defer done()
	r.mu.RLock()
	tokens := slices.Clone(r.tokens.byDevice[dev])
	r.mu.RUnlock()
	for i, t := range tokens {
		if err := r.revoke(ctx, t); err != nil {
			return i, err
		}
	}
	if len(tokens) > 0 {
		r.note(ctx, by, ManageTokens, describe(tokens), "revoke device")
	}
	return len(tokens), nil
}

// revoke ends a token on disk and in memory. If nobody can say whether it is gone from disk, it is in memory.
func (r *Registry) revoke(ctx context.Context, t *token) error {
	err := r.remove(ctx, tokenKeys+t.rec.ID)
	if err != nil && !errors.Is(err, storage.ErrUnknown) {
		return fmt.Errorf("revoke token %s: %w", t.rec.ID, err)
	}
	r.mu.Lock()
	r.tokens.drop(t)
	told := r.watches.take(t.rec.ID)
	r.mu.Unlock()
	tell(told, Revoked)
	if err != nil {
		return fmt.Errorf("revoke token %s: %w", t.rec.ID, err)
	}
	return nil
}

// describe names tokens for the audit log.
func describe(tokens []*token) string {
	t := tokens[0].rec
	text := t.ID
	if t.Device != "" {
		text += " of " + string(t.Device)
	}
	if len(tokens) > 1 {
		text += fmt.Sprintf(" and %d more", len(tokens)-1)
	}
	return text
}
