package history

import (
	"context"
	"fmt"
	"slices"

	"telemetryhub/storage"
)

// DropDevice forgets a device for ever: when it returns nil its history is in no answer any more, and what the log still
// brings of it is passed over. The number must never be given to another device.
//
// Its newest readings and its gaps are removed at once. Its chunks stay on the disk, unreachable, until their slices are
// rewritten or dropped, and its records stay in the log until the log is trimmed.
func (s *Store) DropDevice(ctx context.Context, deviceNum uint32) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("drop device %d: %w", deviceNum, err)
	}
	defer s.release()
	if err := s.drop(ctx, deviceNum); err != nil {
		return fmt.Errorf("drop device %d: %w", deviceNum, err)
	}
	return nil
}

func (s *Store) drop(ctx context.Context, num uint32) error {
	key := fmt.Sprintf("%s%010d", prefixDropped, num)
	if _, err := s.catalog.Put(ctx, key, sealValue(newValue()), storage.Any); err != nil {
		return err
	}
	s.heads.drop(num)
	if err := s.catalog.Delete(ctx, gapsKey(num), storage.Any); err != nil {
		return err
	}
	group := num / latestGroup
	list, err := s.loadLatest(ctx, group)
	if err != nil || !slices.ContainsFunc(list, func(n newest) bool { return n.device == num }) {
		return err
	}
	_, err = s.catalog.Put(ctx, latestKey(group), encodeLatest(s.trimLatest(list)), storage.Any)
	return err
}
