package main

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

// unsureCatalog does not know what became of a write.
type unsureCatalog struct{ storage.Catalog }

func (c unsureCatalog) Delete(context.Context, string, storage.Revision) error {
	return fmt.Errorf("delete: %w", storage.ErrUnknown)
}

// Whoever starts the hub again must learn of a catalog that failed, also when it fails as the hub is told to stop.
func TestACatalogThatFailsWhileTheHubStopsIsTold(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 { // a select takes either
		f := newFailStop(unsureCatalog{mem.NewCatalog()})
		if err := f.run(ctx); err != nil {
			t.Fatalf("without a failure it ends with %v", err)
		}
		_ = f.Delete(ctx, "x", storage.Any) // which tells f
		if err := f.run(ctx); !errors.Is(err, storage.ErrUnknown) {
			t.Fatalf("it ends with %v", err)
		}
	}
}
