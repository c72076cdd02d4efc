package hub

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"strings"

	"telemetryhub/storage"
)

// twinned are the records that a device's history cannot be understood without. Each is kept twice, under its key and under
// another far from it, so that damage to one place of the catalog makes no device unknown and no history unreadable. None
// of them is ever deleted.
var twinned = []string{keyDevice, keySchema, keyStream}

// keyTwin stands before the key of a copy.
const keyTwin = "~"

// twins is a catalog that keeps records twice. The copy follows the record in a write of its own; mend, at the start, makes
// up for a crash between the two, and for damage.
type twins struct {
	storage.Catalog
	logger *slog.Logger
}

var _ storage.BulkPutter = (*twins)(nil)

// Put implements storage.Catalog. The record counts; if only its copy cannot be written, the next start does it.
func (t *twins) Put(ctx context.Context, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
	rev, err := t.Catalog.Put(ctx, key, value, expect)
	if err != nil {
		return rev, err
	}
	for _, prefix := range twinned {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		if _, err := t.Catalog.Put(context.WithoutCancel(ctx), keyTwin+key, value, storage.Any); err != nil {
			t.logger.Warn("the copy of a record is not written yet; the next start writes it", "key", key, "err", err)
		}
	}
	return rev, nil
}

// PutAll implements storage.BulkPutter. It is not for records that are kept twice.
func (t *twins) PutAll(ctx context.Context, items []storage.Item) error {
	return putAll(ctx, t.Catalog, items)
}

// mend restores records from their copies where they are lost, and copies from their records where those are missing, damaged
// or old.
func (t *twins) mend(ctx context.Context) error {
	seed := maphash.MakeSeed()
	for _, prefix := range twinned {
		sums := map[string]uint64{} // of the records whose copy has not been seen to be the same
		if err := t.each(ctx, prefix, func(it storage.Item) { sums[it.Key] = maphash.Bytes(seed, it.Value) }); err != nil {
			return err
		}
		var lost []storage.Item
		err := t.each(ctx, keyTwin+prefix, func(it storage.Item) {
			it.Key = it.Key[len(keyTwin):]
			if sum, ok := sums[it.Key]; !ok {
				lost = append(lost, it)
			} else if sum == maphash.Bytes(seed, it.Value) {
				delete(sums, it.Key)
			}
		})
		if err != nil {
			return err
		}
		for _, it := range lost {
			t.logger.Error("a record was lost; it is restored from its copy", "key", it.Key)
		}
		if len(sums) > 0 {
			err := t.each(ctx, prefix, func(it storage.Item) {
				if _, ok := sums[it.Key]; ok {
					it.Key = keyTwin + it.Key
					lost = append(lost, it)
				}
			})
			if err != nil {
				return err
			}
		}
		if err := t.PutAll(ctx, lost); noRoom(err) {
			t.logger.Warn("lost records and copies of records are not written yet; the next start does it", "records", len(lost), "err", err)
		} else if err != nil {
			return fmt.Errorf("restore %d records: %w", len(lost), err)
		}
	}
	return nil
}

// each calls yield for what is intact under the prefix.
func (t *twins) each(ctx context.Context, prefix string, yield func(storage.Item)) error {
	err := t.Catalog.List(ctx, prefix, func(it storage.Item) bool {
		yield(it)
		return true
	})
	if err != nil && !errors.Is(err, storage.ErrCorrupt) {
		return fmt.Errorf("compare records with their copies: %w", err)
	}
	return nil
}
