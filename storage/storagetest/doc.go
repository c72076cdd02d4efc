// Package storagetest holds what every backend of the contracts in package storage must pass, and what breaks a
// backend on purpose.
//
// [RunLog], [RunCatalog] and [RunChunks] are the conformance suites. Each ends with a model test: random operations on
// the store and on a few lines of map and slice, with the store opened again in between; a failure prints the seed that
// repeats it (go test -run … -rapid.seed=N). [Faults] wraps a store and lets chosen operations fail.
package storagetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// Harness makes stores for a suite. Every test opens its own.
type Harness[S io.Closer] struct {
	// Open returns a fresh, empty store.
	Open func(t testing.TB) S
	// Reopen closes the store and opens again what it has stored. Nil for stores that forget.
	Reopen func(t testing.TB, store S) S
}

// suite runs every test of a suite in parallel under its name.
func suite[S io.Closer](t *testing.T, h Harness[S], tests map[string]func(*testing.T, Harness[S])) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, h)
		})
	}
}

// open opens a fresh store that is closed when the test ends.
func (h Harness[S]) open(t testing.TB) S {
	t.Helper()
	s := h.Open(t)
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// reopen closes the store and opens it again, or skips the test.
func (h Harness[S]) reopen(t testing.TB, s S) S {
	t.Helper()
	if h.Reopen == nil {
		t.Skip("this store forgets")
	}
	s = h.Reopen(t, s)
	t.Cleanup(func() { closeStore(t, s) })
	return s
}

// closeStore closes a store that the test may have closed already: closing again must do no harm.
func closeStore(t testing.TB, s io.Closer) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// wantError reports an error that is not the target. A nil target means success.
func wantError(t testing.TB, deed string, got, target error) {
	t.Helper()
	if !errors.Is(got, target) {
		t.Errorf("%s: got error %v, want %v", deed, got, target)
	}
}

func must(t testing.TB, deed string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", deed, err)
	}
}

func cancelled(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

// noise returns n bytes that depend on the seed only and do not compress.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, uint64(n)))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// diff says how two values differ, without printing kilobytes.
func diff(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	return fmt.Sprintf("got %d bytes, want %d, first difference at byte %d", len(got), len(want), at)
}
