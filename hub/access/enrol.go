package access

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// Enrol exchanges an enrolment token for a token of the device. Errors, besides those of Authenticate: ErrDenied if the
// token is not for this device, ErrSpent, ErrEnrolled.
//
// A device that did not get the answer may ask again: as long as the token that it was given has never been used, the
// same enrolment token replaces it and counts no further use. In every other case a device that has a token keeps it, so
// that an enrolment token that got into wrong hands cannot take over devices that are at work.
func (r *Registry) Enrol(ctx context.Context, enrolment Secret, dev device.ID) (NewToken, error) {
	by, err := r.Authenticate(enrolment.Reveal())
	if err != nil {
		return NewToken{}, err
	}
	if _, err := device.ParseID(string(dev)); err != nil {
		return NewToken{}, fmt.Errorf("%w device: %w", ErrInvalid, err)
	}
	if err := by.RequireOn(Enrol, dev); err != nil {
		return NewToken{}, err
	}
	done, err := r.change(ctx)
	if err != nil {
		return NewToken{}, err
	}
	defer done()

	r.mu.RLock()
	old := slices.Clone(r.tokens.byDevice[dev])
	revoked := r.tokens.byID[by.Credential] == nil // while this call waited
	r.mu.RUnlock()
	if revoked {
		return NewToken{}, ErrUnknownToken
	}
	for _, t := range old {
		if t.rec.Enrolment != by.Credential || t.used.Load() != 0 {
			return NewToken{}, fmt.Errorf("enrol %s: %w", dev, ErrEnrolled)
		}
	}
	// The use is counted first: a crash in between costs a use and never gives one away.
	if len(old) == 0 {
		if err := r.spend(ctx, by.Credential); err != nil {
			return NewToken{}, fmt.Errorf("enrol %s: %w", dev, err)
		}
	}
	t, secret, err := r.issue(devicePrefix, tokenRecord{
		Kind: KindDevice, Device: dev, Label: "enrolled", By: by.Name(), Enrolment: by.Credential,
	})
	if err != nil {
		return NewToken{}, err
	}
	if err := r.storeTokens(ctx, []*token{t}); err != nil {
		return NewToken{}, fmt.Errorf("enrol %s: %w", dev, err)
	}
	r.mu.Lock()
	r.tokens.add(t)
	r.mu.Unlock()
	for _, o := range old {
		if err := r.revoke(ctx, o); err != nil {
			return NewToken{}, fmt.Errorf("enrol %s: %w", dev, err)
		}
	}
	if len(old) == 0 { // what can be repeated without end must not fill the audit log
		r.note(ctx, by, Enrol, string(dev), "token "+t.rec.ID)
	}
	r.log.Info("device enrolled", "device", dev, "token", t.rec.ID, "enrolment", by.Credential)
	return NewToken{TokenInfo: t.info(), Secret: secret}, nil
}

// spend counts one use of an enrolment token. The caller holds the right to change.
func (r *Registry) spend(ctx context.Context, id string) error {
	key := tokenKeys + id
	for range maxTries {
		value, rev, err := r.catalog.Get(ctx, key)
		if errors.Is(err, storage.ErrNotFound) {
			return ErrUnknownToken
		}
		if err != nil {
			return err
		}
		rec, err := read[tokenRecord](key, value)
		if err != nil {
			return err
		}
		if rec.Uses < 1 {
			return ErrSpent
		}
		rec.Uses--
		rev, err = r.put(ctx, key, rec, rev)
		if errors.Is(err, storage.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		return r.replaceToken(rec, rev)
	}
	return storage.ErrConflict
}

// replaceToken puts a changed record in force.
func (r *Registry) replaceToken(rec tokenRecord, rev storage.Revision) error {
	fresh, err := newToken(rec, rev)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if stale := r.tokens.byID[rec.ID]; stale != nil {
		fresh.used.Store(stale.used.Load())
		fresh.flushed = stale.flushed
		r.tokens.drop(stale)
	}
	r.tokens.add(fresh)
	return nil
}
