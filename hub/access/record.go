package access

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"telemetryhub/device"
	"telemetryhub/storage"
)

// The keys of the catalog. FORMAT.md describes the values.
const (
	allKeys     = "access/"
	tokenKeys   = allKeys + "token/"   // + id of the token
	usedKeys    = allKeys + "used/"    // + first two characters of the id
	userKeys    = allKeys + "user/"    // + name
	sessionKeys = allKeys + "session/" // + id of the session
	instanceKey = allKeys + "instance"
)

// recordVersion is the format of all values. A value with a greater one is refused: it may hold restrictions that
// this program would not enforce.
const recordVersion = 1

type tokenRecord struct {
	V       int       `json:"v"`
	ID      string    `json:"id"`
	Kind    Kind      `json:"kind"`
	Hash    digest    `json:"hash"`
	Label   string    `json:"label,omitempty"`
	Device  device.ID `json:"device,omitempty"`
	Role    string    `json:"role,omitempty"`
	Devices []string  `json:"devices,omitempty"`
	Created int64     `json:"created"`
	Expires int64     `json:"expires,omitempty"`
	By      string    `json:"by"`
	// Enrolment is the id of the enrolment token that a device token was given out for.
	Enrolment string `json:"enrolment,omitempty"`
	// Uses is what an enrolment token has left.
	Uses int `json:"uses,omitempty"`
}

type usedRecord struct {
	V    int              `json:"v"`
	Used map[string]int64 `json:"used"`
}

type userRecord struct {
	V    int    `json:"v"`
	UID  string `json:"uid"`
	Name string `json:"name"`
	Role string `json:"role"`
	// Password is in the argon2id form of password.go; empty means that none was set yet.
	Password string `json:"password,omitempty"`
	// Generation is part of every session: when it grows, the sessions from before are over.
	Generation uint64       `json:"gen"`
	Created    int64        `json:"created"`
	By         string       `json:"by"`
	Links      []linkRecord `json:"links,omitempty"`
}

type linkRecord struct {
	Hash    digest  `json:"hash"`
	Purpose Purpose `json:"purpose"`
	Expires int64   `json:"expires"`
}

type sessionRecord struct {
	V          int    `json:"v"`
	ID         string `json:"id"`
	Hash       digest `json:"hash"`
	User       string `json:"user"`
	UID        string `json:"uid"`
	Generation uint64 `json:"gen"`
	Created    int64  `json:"created"`
	Seen       int64  `json:"seen"`
	Source     string `json:"source,omitempty"`
	Agent      string `json:"agent,omitempty"`
}

type instanceRecord struct {
	V  int    `json:"v"`
	ID string `json:"id"`
}

// MarshalText returns the digest in hexadecimal.
func (d digest) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(d[:])), nil }

// UnmarshalText takes a digest in hexadecimal.
func (d *digest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("digest of %d characters", len(text))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

func (r tokenRecord) version() int    { return r.V }
func (r usedRecord) version() int     { return r.V }
func (r userRecord) version() int     { return r.V }
func (r sessionRecord) version() int  { return r.V }
func (r instanceRecord) version() int { return r.V }

// read decodes a value of the catalog. Errors wrap storage.ErrNewerFormat or storage.ErrCorrupt.
func read[T interface{ version() int }](key string, value []byte) (T, error) {
	var rec T
	err := json.Unmarshal(value, &rec)
	if err == nil && rec.version() == recordVersion {
		return rec, nil
	}
	// A newer record may have other types, so ask for its version alone.
	var head struct {
		V int `json:"v"`
	}
	if headErr := json.Unmarshal(value, &head); headErr == nil && head.V > recordVersion {
		return rec, fmt.Errorf("%s: %w: record version %d", key, storage.ErrNewerFormat, head.V)
	}
	return rec, fmt.Errorf("%s: %w: no record of version %d: %v", key, storage.ErrCorrupt, recordVersion, err)
}

// put makes a record durable.
func (r *Registry) put(ctx context.Context, key string, rec any, expect storage.Revision) (storage.Revision, error) {
	value, err := json.Marshal(rec)
	if err != nil {
		return 0, fmt.Errorf("encode %s: %w", key, err)
	}
	return r.catalog.Put(ctx, key, value, expect)
}

// putAll makes all records durable, with one fsync where the catalog can.
func (r *Registry) putAll(ctx context.Context, items []storage.Item) error {
	if bulk, ok := r.catalog.(storage.BulkPutter); ok {
		return bulk.PutAll(ctx, items)
	}
	for _, item := range items {
		if _, err := r.catalog.Put(ctx, item.Key, item.Value, storage.Any); err != nil {
			return err
		}
	}
	return nil
}

// remove makes sure that the key is gone.
func (r *Registry) remove(ctx context.Context, key string) error {
	if err := r.catalog.Delete(ctx, key, storage.Any); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return err
	}
	return nil
}

// stamp returns Unix milliseconds, and 0 for the zero time.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// moment is the opposite of stamp.
func moment(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
