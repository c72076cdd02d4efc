//go:build !linux

package bolt_test

import "testing"

// smallDisk skips: only Linux makes a small disk without tools.
func smallDisk(t *testing.T, _ int) string {
	t.Helper()
	t.Skip("a small disk can be made on Linux only")
	return ""
}
