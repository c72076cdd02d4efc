//go:build race

package bolt_test

import "testing"

// notUnderRace skips tests that start this program hundreds of times under strace: with the race detector in it that takes
// minutes and shows nothing more. make test runs them without it.
func notUnderRace(t *testing.T) { t.Skip("runs without the race detector: go test ./storage/bolt") }
