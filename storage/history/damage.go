package history

import (
	"fmt"

	"telemetryhub/storage"
)

// DamageError reports that parts of an answer are missing because they are damaged. It wraps storage.ErrCorrupt.
type DamageError struct {
	// Gaps are the ranges in which readings may be missing, with cause damaged, by time.
	Gaps []Gap
	// First is the first damage that was met.
	First error
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("%d ranges are damaged and were left out: %v", len(e.Gaps), e.First)
}

func (e *DamageError) Unwrap() []error { return []error{storage.ErrCorrupt, e.First} }
