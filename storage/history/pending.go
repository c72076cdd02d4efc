package history

import (
	"context"
	"errors"

	"telemetryhub/storage"
)

// Flush makes everything that was applied before the call durable in chunks and moves the checkpoint. Apply goes on
// meanwhile. When it fails the heads stay as they are and in every answer; the next Flush tries again. With
// storage.ErrFull and storage.ErrReadOnly that is all; after storage.ErrUnknown the process should end.
func (s *Store) Flush(ctx context.Context) error { return errors.ErrUnsupported }

// Gaps returns the gaps of a device that overlap [fromMS, toMS), by time.
func (s *Store) Gaps(ctx context.Context, deviceNum uint32, fromMS, toMS int64) ([]Gap, error) {
	return nil, errors.ErrUnsupported
}

// Latest calls yield with the newest reading of every metric of every device, by filed time, until yield returns false:
// arrivalMS and pos are those of the record that it came in. The readings of one device follow each other.
func (s *Store) Latest(ctx context.Context, yield func(deviceNum uint32, p Point, arrivalMS int64, pos storage.Position) bool) error {
	return errors.ErrUnsupported
}

// DropDevice forgets a device for ever: its history is in no answer any more, and what the log still brings of it is
// passed over. The number must never be given to another device.
func (s *Store) DropDevice(ctx context.Context, deviceNum uint32) error { return errors.ErrUnsupported }

// Close releases the memory of the store. It does not flush, and it closes neither chunks nor catalog.
func (s *Store) Close() error { return nil }
