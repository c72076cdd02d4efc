//go:build !race

package bolt_test

import "testing"

func notUnderRace(*testing.T) {}
