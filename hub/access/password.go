package access

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Limits of passwords, in bytes. The upper one keeps a request from costing more than the hash itself.
const (
	minPassword = 10
	maxPassword = 256
)

const (
	saltLen = 16
	hashLen = 32
	// maxHashKiB and maxHashPasses bound what a stored hash can make the hub do.
	maxHashKiB    = 1 << 20
	maxHashPasses = 64
)

// HashCost says what an argon2id hash costs. A changed cost applies to each password from its next login on.
type HashCost struct {
	// KiB is the memory. Zero means 19,456 (19 MiB).
	KiB uint32
	// Passes over the memory. Zero means 2.
	Passes uint32
}

func (c *HashCost) fill() error {
	c.KiB, c.Passes = cmp.Or(c.KiB, 19<<10), cmp.Or(c.Passes, 2)
	if c.KiB < 8 || c.KiB > maxHashKiB || c.Passes > maxHashPasses {
		return fmt.Errorf("password hash cost: use 8 to %d KiB and 1 to %d passes", maxHashKiB, maxHashPasses)
	}
	return nil
}

// passwordHash is a stored password. The zero value belongs to nobody: no password fits it.
type passwordHash struct {
	cost HashCost
	salt [saltLen]byte
	sum  [hashLen]byte
}

// String returns the customary text: $argon2id$v=19$m=KiB,t=passes,p=1$salt$sum.
func (h passwordHash) String() string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, h.cost.KiB, h.cost.Passes,
		b64.EncodeToString(h.salt[:]), b64.EncodeToString(h.sum[:]))
}

// parsePasswordHash reads the customary text. The empty text, for no password, gives the zero value.
func parsePasswordHash(text string) (passwordHash, error) {
	var h passwordHash
	if text == "" {
		return h, nil
	}
	var version int
	head, tail, _ := strings.Cut(strings.TrimPrefix(text, "$argon2id$"), ",p=1$")
	if _, err := fmt.Sscanf(head, "v=%d$m=%d,t=%d", &version, &h.cost.KiB, &h.cost.Passes); err != nil {
		return passwordHash{}, errors.New("password hash: no argon2id text")
	}
	salt, sum, _ := strings.Cut(tail, "$")
	b64 := base64.RawStdEncoding.Strict()
	rawSalt, saltErr := b64.DecodeString(salt)
	rawSum, sumErr := b64.DecodeString(sum)
	if saltErr != nil || sumErr != nil || len(rawSalt) != saltLen || len(rawSum) != hashLen {
		return passwordHash{}, errors.New("password hash: salt or sum cannot be read")
	}
	copy(h.salt[:], rawSalt)
	copy(h.sum[:], rawSum)
	if h.cost.KiB > maxHashKiB || h.cost.Passes < 1 || h.cost.Passes > maxHashPasses || h.String() != text {
		return passwordHash{}, errors.New("password hash: form or cost that this program does not make")
	}
	return h, nil
}

func (h passwordHash) compute(password Secret) (sum [hashLen]byte) {
	copy(sum[:], argon2.IDKey([]byte(password.Reveal()), h.salt[:], h.cost.Passes, h.cost.KiB, 1, hashLen))
	return sum
}

// lane says in which queue a caller waits for its hash.
type lane int

const (
	stranger lane = iota // anybody
	known                // from where somebody has logged in before, or with a link
	lanes
)

// hasher hashes one password at a time: a hash takes 19 MiB and a tenth of a second on a small machine. Strangers cannot
// fill the queue of those who have been here before.
type hasher struct {
	cost    HashCost
	queue   int64
	busy    chan struct{}
	waiting [lanes]atomic.Int64
}

func newHasher(cost HashCost, queue int) *hasher {
	return &hasher{cost: cost, queue: int64(queue), busy: make(chan struct{}, 1)}
}

// do runs hash when no other runs. It returns ErrBusy at once if too many wait.
func (h *hasher) do(ctx context.Context, from lane, hash func()) error {
	defer h.waiting[from].Add(-1)
	if h.waiting[from].Add(1) > h.queue {
		return ErrBusy
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case h.busy <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.busy }()
	hash()
	return nil
}

// make returns the stored form of a new password.
func (h *hasher) make(ctx context.Context, password Secret, from lane) (string, error) {
	fresh := passwordHash{cost: h.cost}
	_, _ = rand.Read(fresh.salt[:]) // never fails: it ends the program instead
	err := h.do(ctx, from, func() { fresh.sum = fresh.compute(password) })
	if err != nil {
		return "", err
	}
	return fresh.String(), nil
}

// check reports whether the password fits. For the zero hash it does the same work and says no.
func (h *hasher) check(ctx context.Context, stored passwordHash, password Secret, from lane) (right bool, err error) {
	exists := 1
	if stored.cost == (HashCost{}) {
		stored.cost, exists = h.cost, 0
	}
	err = h.do(ctx, from, func() {
		sum := stored.compute(password)
		right = subtle.ConstantTimeCompare(sum[:], stored.sum[:])&exists == 1
	})
	return right, err
}

// checkPassword returns an error that wraps ErrPassword if a person should not have the password.
func checkPassword(name string, password Secret) error {
	text := password.Reveal()
	switch {
	case len(text) < minPassword:
		return fmt.Errorf("%w: use at least %d characters", ErrPassword, minPassword)
	case len(text) > maxPassword:
		return fmt.Errorf("%w: use at most %d bytes", ErrPassword, maxPassword)
	case !utf8.ValidString(text):
		return fmt.Errorf("%w: it is not valid UTF-8", ErrPassword)
	case strings.EqualFold(text, name):
		return fmt.Errorf("%w: it is the user name", ErrPassword)
	case strings.Count(text, text[:1]) == len(text):
		return fmt.Errorf("%w: it is one character again and again", ErrPassword)
	}
	return nil
}
