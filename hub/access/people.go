package access

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"telemetryhub/storage"
)

// maxName is the longest name of a person in bytes.
const maxName = 64

// user is one person in memory. It is immutable; a change makes a new one.
type user struct {
	rec  userRecord
	rev  storage.Revision
	role Role
	hash passwordHash
}

// newUser checks what the program relies on. Errors wrap storage.ErrCorrupt.
func newUser(rec userRecord, rev storage.Revision) (*user, error) {
	u := &user{rec: rec, rev: rev}
	role, err := ParseRole(rec.Role)
	if err == nil {
		u.role = role
		u.hash, err = parsePasswordHash(rec.Password)
	}
	if err == nil {
		_, err = parseName(rec.Name)
	}
	if err != nil || rec.UID == "" {
		return nil, fmt.Errorf("user %s: %w: %v", rec.Name, storage.ErrCorrupt, err)
	}
	return u, nil
}

// administers reports whether the user can log in as administrator with a password.
func (u *user) administers() bool { return u.role == Admin && u.rec.Password != "" }

// peopleIndex finds people. It is guarded by Registry.mu.
type peopleIndex struct {
	byName map[string]*user
	// deadlines are the ends of the links made by this process, with a monotonic clock reading: a Pi sets its wall
	// clock, perhaps by years, just after it has shown the setup link.
	deadlines map[digest]time.Time
	// damaged means that some record could not be read, perhaps that of the administrator.
	damaged bool
}

func newPeopleIndex() peopleIndex {
	return peopleIndex{byName: map[string]*user{}, deadlines: map[digest]time.Time{}}
}

// owner returns whose session it is, nil if the session is over because its owner has changed the password or is gone.
func (x *peopleIndex) owner(s *session) *user {
	u := x.byName[s.rec.User]
	if u == nil || u.rec.UID != s.rec.UID || u.rec.Generation != s.rec.Generation {
		return nil
	}
	return u
}

// administrators counts who can log in as administrator, besides one.
func (x *peopleIndex) administrators(besides string) int {
	n := 0
	for name, u := range x.byName {
		if name != besides && u.administers() {
			n++
		}
	}
	return n
}

// parseName returns a name as it is stored, in lower case, or an error that wraps ErrInvalid.
func parseName(name string) (string, error) {
	if len(name) == 0 || len(name) > maxName {
		return "", fmt.Errorf("%w name: use 1 to %d of a-z 0-9 . _ - @ +", ErrInvalid, maxName)
	}
	for i := range len(name) {
		c := name[i]
		word := 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9'
		if !word && (i == 0 || !strings.Contains("._-@+", string(rune(c)))) {
			return "", fmt.Errorf("%w name %q: use a-z 0-9 . _ - @ + and start with a letter or a digit", ErrInvalid, name)
		}
	}
	return strings.ToLower(name), nil
}

// UserInfo is what may be known about a person.
type UserInfo struct {
	Name string
	Role Role
	// HasPassword is false until the first link is claimed.
	HasPassword bool
	Created     time.Time
	// By names who made the account.
	By string
	// Sessions counts where the person is logged in; LastSeen is the last use of these, zero for none.
	Sessions int
	LastSeen time.Time
}

// CreateUser makes an account without a password: the person needs a link to log in. Errors: ErrExists, ErrInvalid.
func (r *Registry) CreateUser(ctx context.Context, by Identity, name string, role Role) (UserInfo, error) {
	if err := by.Require(ManageUsers); err != nil {
		return UserInfo{}, err
	}
	if role < Viewer || role > Admin {
		return UserInfo{}, fmt.Errorf("%w role: use viewer, operator or admin", ErrInvalid)
	}
	name, err := parseName(name)
	if err != nil {
		return UserInfo{}, err
	}
	done, err := r.change(ctx)
	if err != nil {
		return UserInfo{}, err
	}
	defer done()
	if err := r.addUser(ctx, name, role, by.Name()); err != nil {
		return UserInfo{}, err
	}
	r.note(ctx, by, ManageUsers, name, "create "+role.String())
	return UserInfo{Name: name, Role: role, Created: r.opts.Now(), By: by.Name()}, nil
}

// addUser stores a new person. The caller holds the right to change.
func (r *Registry) addUser(ctx context.Context, name string, role Role, by string) error {
	rec := userRecord{V: recordVersion, UID: newID(), Name: name, Role: role.String(), Generation: 1,
		Created: stamp(r.opts.Now()), By: by}
	rev, err := r.put(ctx, userKeys+name, rec, storage.Absent)
	if errors.Is(err, storage.ErrConflict) {
		return fmt.Errorf("user %s: %w", name, ErrExists)
	}
	if err != nil {
		return fmt.Errorf("create user %s: %w", name, err)
	}
	u, err := newUser(rec, rev)
	if err != nil {
		return err
	}
	r.apply(name, u)
	return nil
}

// Users returns everybody, by name.
func (r *Registry) Users(by Identity) ([]UserInfo, error) {
	if err := by.Require(ManageUsers); err != nil {
		return nil, err
	}
	r.mu.RLock()
	sessions := map[*user][]*session{}
	for _, s := range r.sessions.byID {
		if u := r.people.owner(s); u != nil {
			sessions[u] = append(sessions[u], s)
		}
	}
	list := make([]UserInfo, 0, len(r.people.byName))
	for _, u := range r.people.byName {
		list = append(list, u.info(sessions[u]))
	}
	r.mu.RUnlock()
	slices.SortFunc(list, func(a, b UserInfo) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (u *user) info(sessions []*session) UserInfo {
	info := UserInfo{Name: u.rec.Name, Role: u.role, HasPassword: u.rec.Password != "", Created: moment(u.rec.Created),
		By: u.rec.By, Sessions: len(sessions)}
	for _, s := range sessions {
		if seen := moment(s.seen.Load()); seen.After(info.LastSeen) {
			info.LastSeen = seen
		}
	}
	return info
}

// SetRole gives a person another role. Sessions go on with it; connections are told through Watch. Errors: ErrLastAdmin.
func (r *Registry) SetRole(ctx context.Context, by Identity, name string, role Role) error {
	if err := by.Require(ManageUsers); err != nil {
		return err
	}
	if role < Viewer || role > Admin {
		return fmt.Errorf("%w role: use viewer, operator or admin", ErrInvalid)
	}
	done, err := r.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	name = strings.ToLower(name)
	if role != Admin {
		if err := r.checkLastAdmin(name); err != nil {
			return err
		}
	}
	err = r.changeUser(ctx, name, func(rec *userRecord) error {
		rec.Role = role.String()
		return nil
	})
	if err != nil {
		return fmt.Errorf("change the role of %.64s: %w", name, err)
	}
	r.note(ctx, by, ManageUsers, name, "role "+role.String())
	return nil
}

// DeleteUser removes a person and ends all that the person has open. Tokens that the person made stay. Errors:
// ErrLastAdmin.
func (r *Registry) DeleteUser(ctx context.Context, by Identity, name string) error {
	if err := by.Require(ManageUsers); err != nil {
		return err
	}
	done, err := r.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	name = strings.ToLower(name)
	if err := r.checkLastAdmin(name); err != nil {
		return err
	}
	r.mu.RLock()
	u := r.people.byName[name]
	r.mu.RUnlock()
	if u == nil {
		return noPerson(name)
	}
	err = r.remove(ctx, userKeys+name)
	if err == nil || errors.Is(err, storage.ErrUnknown) {
		r.apply(name, nil)
		r.discardSoon(ctx)
	}
	if err != nil {
		return fmt.Errorf("delete user %s: %w", name, err)
	}
	r.note(ctx, by, ManageUsers, name, "delete")
	return nil
}

// noPerson says that a name is nobody's. The error wraps storage.ErrNotFound.
func noPerson(name string) error {
	return fmt.Errorf("no person is called %.64q (hub user list shows who there is): %w", name, storage.ErrNotFound)
}

// checkLastAdmin returns ErrLastAdmin if nobody but the named person can administer.
func (r *Registry) checkLastAdmin(name string) error {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if u := r.people.byName[name]; u != nil && u.administers() && r.people.administrators(name) == 0 {
		return fmt.Errorf("%s: %w", name, ErrLastAdmin)
	}
	return nil
}

// changeUser changes a record by compare-and-set and puts it in force. The caller holds the right to change. edit may be
// called more than once, each time with the record as it is on disk.
func (r *Registry) changeUser(ctx context.Context, name string, edit func(*userRecord) error) error {
	key := userKeys + name
	for range maxTries {
		value, rev, err := r.catalog.Get(ctx, key)
		if errors.Is(err, storage.ErrNotFound) {
			return noPerson(name)
		}
		if err != nil {
			return err
		}
		rec, err := read[userRecord](key, value)
		if err != nil {
			return err
		}
		if err := edit(&rec); err != nil {
			return err
		}
		rev, err = r.put(ctx, key, rec, rev)
		if errors.Is(err, storage.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		u, err := newUser(rec, rev)
		if err != nil {
			return err
		}
		r.apply(name, u)
		r.discardSoon(ctx)
		return nil
	}
	return storage.ErrConflict
}

// apply puts a changed person (nil: none) in force, ends the sessions that are over by that, and tells their watchers.
// The records of the sessions are left on disk for discard; they are worth nothing there.
func (r *Registry) apply(name string, fresh *user) {
	var revoked, changed []func(Reason)
	r.mu.Lock()
	stale := r.people.byName[name]
	delete(r.people.byName, name)
	if fresh != nil {
		r.people.byName[name] = fresh
	}
	for _, s := range r.sessions.byID {
		if s.rec.User != name {
			continue
		}
		switch {
		case r.people.owner(s) == nil:
			r.sessions.drop(s)
			revoked = append(revoked, r.watches.take(s.rec.ID)...)
		case stale == nil || stale.role != fresh.role:
			changed = append(changed, r.watches.take(s.rec.ID)...)
		}
	}
	r.mu.Unlock()
	tell(revoked, Revoked)
	tell(changed, Changed)
}
