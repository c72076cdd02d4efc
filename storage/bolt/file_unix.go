//go:build unix && !linux

package bolt

import (
	"math"
	"os"
)

// forget makes the file durable. The cache can be dropped only on Linux.
func forget(f *os.File) error { return f.Sync() }

// reserve makes the file n bytes long.
func reserve(f *os.File, n int64) error { return f.Truncate(n) }

// freeBytes is not known here: a full disk shows when it is met.
func freeBytes(string) (int64, error) { return math.MaxInt64, nil }

// renameNew renames a file and fails with an error that is os.ErrExist if the new name is taken.
func renameNew(from, to string) error { return renameByLink(from, to) }
