package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// LoginRequest is an attempt to log in.
type LoginRequest struct {
	Name     string
	Password Secret
	// Source is where the attempt comes from. Behind a proxy it must be the client's address, or else strangers and
	// people share one throttle.
	Source netip.Addr
	// Agent is what the browser calls itself: shown with the session.
	Agent string
	// Previous is the cookie that came with the attempt, if any. Its session ends when the login succeeds.
	Previous Secret
}

// Login checks name and password and starts a new session. Errors: ErrCredentials, ErrThrottled, ErrBusy. Whether the
// name exists shows neither in the answer nor in its time.
func (r *Registry) Login(ctx context.Context, req LoginRequest) (NewSession, error) {
	// A name that cannot exist is an unknown one like any other.
	name, err := parseName(req.Name)
	if err != nil {
		name = "?"
	}
	u, guess, err := r.verify(ctx, name, req.Password, req.Source)
	if err != nil {
		return NewSession{}, err
	}
	r.throttle.giveBack(guess)
	r.throttle.succeeded(req.Source, name, r.opts.Now())
	s, err := r.startSession(ctx, u, req.Source, req.Agent)
	if err != nil {
		return NewSession{}, err
	}
	if err := r.Logout(ctx, req.Previous); err != nil {
		r.log.Warn("the session before this login is still on disk", "user", name, "err", err)
	}
	return s, nil
}

// verify returns the person if the password is right. Every guess costs the same and counts in the throttle.
func (r *Registry) verify(ctx context.Context, name string, password Secret, source netip.Addr) (*user, attempt, error) {
	guess, err := r.throttle.begin(source, name, r.opts.Now())
	if err != nil {
		return nil, guess, err
	}
	if len(password.Reveal()) > maxPassword {
		return nil, guess, ErrCredentials
	}
	r.mu.RLock()
	u := r.people.byName[name]
	r.mu.RUnlock()
	var hash passwordHash
	if u != nil {
		hash = u.hash
	}
	from := stranger
	if guess.known {
		from = known
	}
	right, err := r.hasher.check(ctx, hash, password, from)
	if err != nil {
		r.throttle.giveBack(guess) // nothing was guessed
		return nil, guess, err
	}
	if !right || u == nil {
		r.log.Info("login refused", "source", source)
		return nil, guess, ErrCredentials
	}
	if hash.cost != r.hasher.cost {
		r.rehash(ctx, u, password)
	}
	return u, guess, nil
}

// rehash stores the password at today's cost. That can wait until the next login, so a failure is no error.
func (r *Registry) rehash(ctx context.Context, u *user, password Secret) {
	fresh, err := r.hasher.make(ctx, password, known)
	if err != nil {
		return
	}
	done, err := r.change(ctx)
	if err != nil {
		return
	}
	defer done()
	err = r.changeUser(ctx, u.rec.Name, func(rec *userRecord) error {
		if rec.Password == u.rec.Password {
			rec.Password = fresh
		}
		return nil
	})
	if err != nil {
		r.log.Warn("a password is still stored at the former cost", "user", u.rec.Name, "err", err)
	}
}

// PasswordChange is a person's wish for another password.
type PasswordChange struct {
	// Old is the password until now; empty for a person who never had one.
	Old, New Secret
	Source   netip.Addr
	Agent    string
}

// ChangePassword sets a person's own password, ends all sessions of that person and starts a new one. Errors:
// ErrCredentials if the old password is wrong, ErrPassword, ErrThrottled, ErrBusy, ErrDenied.
func (r *Registry) ChangePassword(ctx context.Context, by Identity, change PasswordChange) (NewSession, error) {
	if err := by.Require(OwnAccount); err != nil {
		return NewSession{}, err
	}
	if err := checkPassword(by.User, change.New); err != nil {
		return NewSession{}, err
	}
	r.mu.RLock()
	u := r.people.byName[by.User]
	r.mu.RUnlock()
	if u == nil {
		return NewSession{}, ErrNoSession
	}
	var err error
	if u.rec.Password != "" {
		// A right guess counts too: whoever changes the password all day would fill the audit log.
		if u, _, err = r.verify(ctx, by.User, change.Old, change.Source); err != nil {
			return NewSession{}, err
		}
	}
	password, err := r.hasher.make(ctx, change.New, known)
	if err != nil {
		return NewSession{}, err
	}
	if err := r.storePassword(ctx, u, password); err != nil {
		return NewSession{}, err
	}
	r.mu.RLock()
	u = r.people.byName[by.User]
	r.mu.RUnlock()
	if u == nil {
		return NewSession{}, ErrNoSession
	}
	s, err := r.startSession(ctx, u, change.Source, change.Agent)
	if err != nil {
		return NewSession{}, err
	}
	r.note(ctx, by, OwnAccount, by.User, "change password")
	return s, nil
}

// storePassword replaces the password that u was seen with, and with it ends all links and sessions.
func (r *Registry) storePassword(ctx context.Context, u *user, password string) error {
	done, err := r.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = r.changeUser(ctx, u.rec.Name, func(rec *userRecord) error {
		if rec.UID != u.rec.UID || rec.Generation != u.rec.Generation {
			return ErrCredentials // somebody else has changed it meanwhile
		}
		rec.Password, rec.Links = password, nil
		rec.Generation++
		return nil
	})
	if err != nil && !errors.Is(err, ErrCredentials) {
		return fmt.Errorf("change the password of %s: %w", u.rec.Name, err)
	}
	return err
}
