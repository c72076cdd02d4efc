package main

import (
	"context"
	"errors"
	"fmt"

	"telemetryhub/storage"
)

// failStop is a catalog that tells when it can no longer say what is durable. Log and history end the hub themselves then.
type failStop struct {
	storage.Catalog
	bulk   storage.BulkPutter
	failed chan error // has room for one
}

var _ storage.BulkPutter = (*failStop)(nil)

// newFailStop returns c, which must be a storage.BulkPutter too.
func newFailStop(c storage.Catalog) *failStop {
	bulk, _ := c.(storage.BulkPutter) // that of package bolt is
	return &failStop{Catalog: c, bulk: bulk, failed: make(chan error, 1)}
}

func (f *failStop) note(err error) {
	if errors.Is(err, storage.ErrUnknown) {
		select {
		case f.failed <- err:
		default: // it has been told
		}
	}
}

// Put implements storage.Catalog.
func (f *failStop) Put(ctx context.Context, key string, value []byte, expect storage.Revision) (storage.Revision, error) {
	rev, err := f.Catalog.Put(ctx, key, value, expect)
	f.note(err)
	return rev, err
}

// Delete implements storage.Catalog.
func (f *failStop) Delete(ctx context.Context, key string, expect storage.Revision) error {
	err := f.Catalog.Delete(ctx, key, expect)
	f.note(err)
	return err
}

// PutAll implements storage.BulkPutter.
func (f *failStop) PutAll(ctx context.Context, items []storage.Item) error {
	err := f.bulk.PutAll(ctx, items)
	f.note(err)
	return err
}

// run returns the error of the catalog when there is one, and nil when ctx ends without.
func (f *failStop) run(ctx context.Context) error {
	select {
	case err := <-f.failed:
		return fmt.Errorf("the catalog: %w", err)
	case <-ctx.Done():
	}
	select { // both may have come at once
	case err := <-f.failed:
		return fmt.Errorf("the catalog: %w", err)
	default:
		return nil
	}
}
