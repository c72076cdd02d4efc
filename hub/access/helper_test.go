package access_test

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
	"telemetryhub/storage/storagetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is a wall clock that stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// cheap makes password hashing fast enough for hundreds of logins.
func cheap() access.HashCost { return access.HashCost{KiB: 8, Passes: 1} }

func open(t *testing.T, catalog storage.Catalog, opts access.Options) *access.Registry {
	t.Helper()
	if opts.Hash == (access.HashCost{}) {
		opts.Hash = cheap()
	}
	r, err := access.Open(t.Context(), catalog, opts)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return r
}

// fresh returns an empty registry, its catalog and its clock.
func fresh(t *testing.T) (*access.Registry, *mem.Catalog, *clock) {
	t.Helper()
	catalog, c := mem.NewCatalog(), newClock()
	return open(t, catalog, access.Options{Now: c.Now}), catalog, c
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func wantErr(t *testing.T, deed string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got error %v, want %v", deed, got, want)
	}
}

const goodPassword = "correct horse battery"

func secret(s string) access.Secret { return access.NewSecret(s) }

func source(s string) netip.Addr { return netip.MustParseAddr(s) }

// person makes a user with goodPassword.
func person(t *testing.T, r *access.Registry, name string, role access.Role) access.NewSession {
	t.Helper()
	must[access.UserInfo](t)(r.CreateUser(t.Context(), access.Local(), name, role))
	link := must[access.Link](t)(r.UserLink(t.Context(), access.Local(), name, access.SetPassword))
	return must[access.NewSession](t)(r.ClaimLink(t.Context(),
		access.ClaimRequest{Secret: link.Secret, Password: secret(goodPassword), Source: source("192.0.2.200")}))
}

func login(t *testing.T, r *access.Registry, name, password, from string) (access.NewSession, error) {
	t.Helper()
	return r.Login(t.Context(), access.LoginRequest{Name: name, Password: secret(password), Source: source(from)})
}

// newFaults returns faults that are switched on with Break.
func newFaults() *storagetest.Faults { return storagetest.NewFaults(storagetest.Plan{}) }

func value(t *testing.T, catalog storage.Catalog, key string) ([]byte, error) {
	t.Helper()
	v, _, err := catalog.Get(t.Context(), key)
	return v, err
}

// snapshot returns what a crash would leave of the catalog.
func snapshot(t *testing.T, catalog storage.Catalog) *mem.Catalog {
	t.Helper()
	left := mem.NewCatalog()
	for _, item := range items(t, catalog, "") {
		must[storage.Revision](t)(left.Put(t.Context(), item.Key, item.Value, storage.Any))
	}
	return left
}

func items(t *testing.T, catalog storage.Catalog, prefix string) (list []storage.Item) {
	t.Helper()
	err := catalog.List(t.Context(), prefix, func(item storage.Item) bool {
		list = append(list, item)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func count(t *testing.T, catalog storage.Catalog, prefix string) int {
	t.Helper()
	return len(items(t, catalog, prefix))
}
