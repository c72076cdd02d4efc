package access

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"telemetryhub/storage"
)

// setupName is the account that the setup link is for.
const setupName = "admin"

// maxLinks is how many links a person can have at a time; a new one replaces the oldest.
const maxLinks = 4

// Purpose is what a link is good for. The texts are stored: never change them.
type Purpose string

// The purposes.
const (
	// SetPassword lets the person choose a password, which ends all other links and sessions, and logs in.
	SetPassword Purpose = "password"
	// LogIn logs in without a password. Only the control socket makes such links.
	LogIn Purpose = "login"
	// setup is a SetPassword link made at a start. It also makes its owner an administrator, and is void as soon as
	// there is one.
	setup Purpose = "setup"
)

// Link is a one-time link. The secret belongs into the fragment of a URL, which browsers keep to themselves.
type Link struct {
	User    string
	Purpose Purpose
	Secret  Secret
	Expires time.Time
}

// ClaimRequest spends a link.
type ClaimRequest struct {
	Secret Secret
	// Password is the new password. It is not used for a link that only logs in.
	Password Secret
	// Source is where the request comes from, Agent what the browser calls itself: shown with the session.
	Source netip.Addr
	Agent  string
}

// UserLink makes a link for a person. Links made before stay good, up to four. The password, if there is one, stays good
// until the link is claimed.
func (r *Registry) UserLink(ctx context.Context, by Identity, name string, purpose Purpose) (Link, error) {
	if err := by.Require(ManageUsers); err != nil {
		return Link{}, err
	}
	if purpose != SetPassword && purpose != LogIn {
		return Link{}, fmt.Errorf("%w purpose of a link %q", ErrInvalid, purpose)
	}
	if purpose == LogIn && by.Kind != KindLocal {
		return Link{}, fmt.Errorf("%w: only the control socket makes links that need no password", ErrDenied)
	}
	name, err := parseName(name)
	if err != nil {
		return Link{}, err
	}
	done, err := r.change(ctx)
	if err != nil {
		return Link{}, err
	}
	defer done()
	link, err := r.addLink(ctx, name, purpose)
	if err != nil {
		return Link{}, fmt.Errorf("make a link for %s: %w", name, err)
	}
	r.note(ctx, by, ManageUsers, name, "link "+string(purpose))
	return link, nil
}

// SetupLink makes the link with which the first administrator, named admin, claims the hub. Links from earlier starts are
// void. It returns ErrClaimed if there is an administrator with a password, and an error that wraps storage.ErrCorrupt if
// some record is damaged, because it could be an administrator's.
func (r *Registry) SetupLink(ctx context.Context) (Link, error) {
	done, err := r.change(ctx)
	if err != nil {
		return Link{}, err
	}
	defer done()
	r.mu.RLock()
	claimed := r.people.administrators("") > 0
	damaged := r.people.damaged
	absent := r.people.byName[setupName] == nil
	r.mu.RUnlock()
	switch {
	case claimed:
		return Link{}, ErrClaimed
	case damaged:
		return Link{}, fmt.Errorf("no setup link, because some records are damaged: restore a backup, or use"+
			" `hub user link`: %w", storage.ErrCorrupt)
	case absent:
		err = r.addUser(ctx, setupName, Admin, "setup")
	}
	if err != nil {
		return Link{}, fmt.Errorf("make the setup link: %w", err)
	}
	link, err := r.addLink(ctx, setupName, setup)
	if err != nil {
		return Link{}, fmt.Errorf("make the setup link: %w", err)
	}
	return link, nil
}

// addLink stores a new link. The caller holds the right to change.
func (r *Registry) addLink(ctx context.Context, name string, purpose Purpose) (Link, error) {
	secret, hash := mint(linkPrefix)
	now := r.opts.Now()
	deadline := now.Add(r.opts.LinkAge)
	err := r.changeUser(ctx, name, func(rec *userRecord) error {
		rec.Links = slices.DeleteFunc(rec.Links, func(l linkRecord) bool {
			return !r.linkGood(l, now) || l.Purpose == setup && purpose == setup
		})
		rec.Links = append(rec.Links, linkRecord{Hash: hash, Purpose: purpose, Expires: stamp(deadline)})
		rec.Links = rec.Links[max(0, len(rec.Links)-maxLinks):]
		return nil
	})
	if err != nil {
		return Link{}, err
	}
	r.mu.Lock()
	r.people.deadlines[hash] = deadline
	r.mu.Unlock()
	if purpose == setup {
		purpose = SetPassword
	}
	return Link{User: name, Purpose: purpose, Secret: secret, Expires: deadline}, nil
}

// linkGood reports whether a link is still in time. The monotonic clock decides where this process made the link.
func (r *Registry) linkGood(l linkRecord, now time.Time) bool {
	r.mu.RLock()
	deadline, ours := r.people.deadlines[l.Hash]
	r.mu.RUnlock()
	if ours {
		return now.Before(deadline)
	}
	return now.UnixMilli() < l.Expires
}

// PeekLink says who a link is for and what for, without spending it. The secret is not in the answer. Errors: ErrLink.
func (r *Registry) PeekLink(secret Secret) (Link, error) {
	hash, err := linkDigest(secret)
	if err != nil {
		return Link{}, err
	}
	u, l := r.findLink(hash)
	if u == nil || !r.linkGood(l, r.opts.Now()) {
		return Link{}, ErrLink
	}
	purpose := l.Purpose
	if purpose == setup {
		purpose = SetPassword
	}
	return Link{User: u.rec.Name, Purpose: purpose, Expires: moment(l.Expires)}, nil
}

func linkDigest(secret Secret) (digest, error) {
	p, hash, err := parse(secret.Reveal())
	if err != nil || p != linkPrefix {
		return digest{}, ErrLink
	}
	return hash, nil
}

func (r *Registry) findLink(hash digest) (*user, linkRecord) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, u := range r.people.byName {
		for _, l := range u.rec.Links {
			if l.Hash == hash {
				return u, l
			}
		}
	}
	return nil, linkRecord{}
}

// ClaimLink spends a link: it sets the password if the link is for that, and logs in. Of several claims of one link one
// wins. Errors: ErrLink, ErrPassword (the link stays good), ErrBusy.
func (r *Registry) ClaimLink(ctx context.Context, claim ClaimRequest) (NewSession, error) {
	link, err := r.PeekLink(claim.Secret)
	if err != nil {
		return NewSession{}, err
	}
	hash, err := linkDigest(claim.Secret)
	if err != nil {
		return NewSession{}, err
	}
	var password string
	if link.Purpose == SetPassword {
		if err := checkPassword(link.User, claim.Password); err != nil {
			return NewSession{}, err
		}
		// A link proves who it is, so the claim does not wait behind strangers.
		if password, err = r.hasher.make(ctx, claim.Password, known); err != nil {
			return NewSession{}, err
		}
	}
	if err := r.spendLink(ctx, link, hash, password); err != nil {
		return NewSession{}, err
	}
	r.mu.RLock()
	u := r.people.byName[link.User]
	r.mu.RUnlock()
	if u == nil {
		return NewSession{}, ErrLink
	}
	r.throttle.succeeded(claim.Source, link.User, r.opts.Now())
	s, err := r.startSession(ctx, u, claim.Source, claim.Agent)
	if err != nil {
		return NewSession{}, err
	}
	r.note(ctx, s.Identity, OwnAccount, link.User, "claim link "+string(link.Purpose))
	return s, nil
}

// spendLink removes the link and sets the password in one compare-and-set, so that one claim wins.
func (r *Registry) spendLink(ctx context.Context, link Link, hash digest, password string) error {
	done, err := r.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	now := r.opts.Now()
	err = r.changeUser(ctx, link.User, func(rec *userRecord) error {
		i := slices.IndexFunc(rec.Links, func(l linkRecord) bool { return l.Hash == hash })
		if i < 0 || !r.linkGood(rec.Links[i], now) {
			return ErrLink
		}
		if rec.Links[i].Purpose == setup {
			r.mu.RLock()
			claimed := r.people.administrators("") > 0
			r.mu.RUnlock()
			if claimed {
				return ErrLink
			}
			rec.Role = Admin.String()
		}
		rec.Links = slices.Delete(rec.Links, i, i+1)
		if password != "" {
			rec.Links = nil
			rec.Password = password
			rec.Generation++
		}
		return nil
	})
	if errors.Is(err, storage.ErrNotFound) {
		return ErrLink // the person was deleted meanwhile
	}
	if err != nil && !errors.Is(err, ErrLink) {
		return fmt.Errorf("claim the link of %s: %w", link.User, err)
	}
	return err
}
