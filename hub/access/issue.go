package access

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
)

const (
	// maxDeviceTokens is enough to replace a token without a break.
	maxDeviceTokens = 8
	maxUses         = 1_000_000
)

// NewToken is a token together with its secret, which nobody can find out later.
type NewToken struct {
	TokenInfo
	Secret Secret
}

// TokenSpec describes a token to be made.
type TokenSpec struct {
	// Label is for people: up to 128 bytes of printable text.
	Label string
	// Expires is when the token stops working. Zero means never; for enrolment tokens it means in 24 hours.
	Expires time.Time
	// Role is what an API token may do. It is not used for other tokens.
	Role Role
	// Devices limits API and enrolment tokens to these devices; see Identity.Devices. None means all.
	Devices []string
	// Uses is how many devices an enrolment token may enrol, 1 to 1,000,000. Zero means 1.
	Uses int
}

// CreateToken makes an API token.
func (r *Registry) CreateToken(ctx context.Context, by Identity, spec TokenSpec) (NewToken, error) {
	if spec.Role < Viewer || spec.Role > Admin {
		return NewToken{}, fmt.Errorf("%w role: use viewer, operator or admin", ErrInvalid)
	}
	rec := tokenRecord{Kind: KindAPI, Role: spec.Role.String(), Devices: spec.Devices}
	return r.createOne(ctx, by, spec, apiPrefix, rec)
}

// CreateEnrolment makes an enrolment token.
func (r *Registry) CreateEnrolment(ctx context.Context, by Identity, spec TokenSpec) (NewToken, error) {
	if spec.Uses == 0 {
		spec.Uses = 1
	}
	if spec.Uses < 0 || spec.Uses > maxUses {
		return NewToken{}, fmt.Errorf("%w number of uses %d: use 1 to %d", ErrInvalid, spec.Uses, maxUses)
	}
	if spec.Expires.IsZero() {
		spec.Expires = r.opts.Now().Add(24 * time.Hour)
	}
	rec := tokenRecord{Kind: KindEnrolment, Uses: spec.Uses, Devices: spec.Devices}
	return r.createOne(ctx, by, spec, enrolmentPrefix, rec)
}

// CreateDeviceToken makes a token for one device, besides those that it has.
func (r *Registry) CreateDeviceToken(ctx context.Context, by Identity, dev device.ID, spec TokenSpec) (NewToken, error) {
	made, err := r.CreateDeviceTokens(ctx, by, []device.ID{dev}, spec)
	if err != nil {
		return NewToken{}, err
	}
	return made[0], nil
}

// CreateDeviceTokens makes a token for each of the devices, for the price of one where the catalog can. When it fails,
// tokens that nobody has seen may be left over; they can be listed and revoked after the next start.
func (r *Registry) CreateDeviceTokens(ctx context.Context, by Identity, devices []device.ID, spec TokenSpec,
) ([]NewToken, error) {
	recs := make([]tokenRecord, len(devices))
	for i, dev := range devices {
		recs[i] = tokenRecord{Kind: KindDevice, Device: dev}
	}
	return r.create(ctx, by, spec, devicePrefix, recs)
}

func (r *Registry) createOne(ctx context.Context, by Identity, spec TokenSpec, p prefix, rec tokenRecord,
) (NewToken, error) {
	made, err := r.create(ctx, by, spec, p, []tokenRecord{rec})
	if err != nil {
		return NewToken{}, err
	}
	return made[0], nil
}

// create completes the records, makes them durable and puts them in force.
func (r *Registry) create(ctx context.Context, by Identity, spec TokenSpec, p prefix, recs []tokenRecord,
) ([]NewToken, error) {
	if err := by.Require(ManageTokens); err != nil {
		return nil, err
	}
	if err := r.checkSpec(spec, recs); err != nil {
		return nil, err
	}
	done, err := r.change(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if err := r.checkRoom(recs); err != nil {
		return nil, err
	}
	made := make([]*token, len(recs))
	secrets := make([]Secret, len(recs))
	for i, rec := range recs {
		rec.Label, rec.Expires, rec.By = spec.Label, stamp(spec.Expires), by.Name()
		if made[i], secrets[i], err = r.issue(p, rec); err != nil {
			return nil, err
		}
	}
	if err := r.storeTokens(ctx, made); err != nil {
		return nil, fmt.Errorf("store the token: %w", err)
	}
	r.mu.Lock()
	for _, t := range made {
		r.tokens.add(t)
	}
	r.mu.Unlock()
	result := make([]NewToken, len(made))
	for i, t := range made {
		result[i] = NewToken{TokenInfo: t.info(), Secret: secrets[i]}
	}
	r.note(ctx, by, ManageTokens, describe(made), "create "+string(made[0].rec.Kind))
	return result, nil
}

func (r *Registry) checkSpec(spec TokenSpec, recs []tokenRecord) error {
	if err := checkLabel(spec.Label); err != nil {
		return err
	}
	if err := checkPatterns(spec.Devices); err != nil {
		return err
	}
	if !spec.Expires.IsZero() && !spec.Expires.After(r.opts.Now()) {
		return fmt.Errorf("%w expiry: %s has passed", ErrInvalid, spec.Expires.UTC().Format(time.RFC3339))
	}
	if len(recs) == 0 {
		return fmt.Errorf("%w: no device named", ErrInvalid)
	}
	for _, rec := range recs {
		if rec.Kind != KindDevice {
			continue
		}
		if _, err := device.ParseID(string(rec.Device)); err != nil {
			return fmt.Errorf("%w device: %w", ErrInvalid, err)
		}
	}
	return nil
}

// checkRoom returns an error if a device would have too many tokens.
func (r *Registry) checkRoom(recs []tokenRecord) error {
	more := map[device.ID]int{}
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, rec := range recs {
		if rec.Kind != KindDevice {
			continue
		}
		more[rec.Device]++
		if len(r.tokens.byDevice[rec.Device])+more[rec.Device] > maxDeviceTokens {
			return fmt.Errorf("%w: %s has %d tokens already: revoke one first", ErrInvalid, rec.Device, maxDeviceTokens)
		}
	}
	return nil
}

// issue gives the record an id and a secret.
func (r *Registry) issue(p prefix, rec tokenRecord) (*token, Secret, error) {
	secret, hash := mint(p)
	rec.V, rec.ID, rec.Hash, rec.Created = recordVersion, newID(), hash, stamp(r.opts.Now())
	t, err := newToken(rec, storage.Absent)
	return t, secret, err
}

// storeTokens makes new tokens durable. Their ids are random, so nothing stands under their keys.
func (r *Registry) storeTokens(ctx context.Context, tokens []*token) error {
	items := make([]storage.Item, len(tokens))
	for i, t := range tokens {
		value, err := json.Marshal(t.rec)
		if err != nil {
			return fmt.Errorf("encode token %s: %w", t.rec.ID, err)
		}
		items[i] = storage.Item{Key: tokenKeys + t.rec.ID, Value: value}
	}
	return r.putAll(ctx, items)
}
