package main

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"telemetryhub/hub"
	"telemetryhub/storage"
	"telemetryhub/storage/mem"
)

// fullCatalog is a catalog that takes no more writes, once that is said.
type fullCatalog struct {
	storage.Catalog
	full bool
}

func (c *fullCatalog) Delete(ctx context.Context, key string, expect storage.Revision) error {
	if c.full {
		return fmt.Errorf("delete %s: %w", key, storage.ErrFull)
	}
	return c.Catalog.Delete(ctx, key, expect)
}

// TestFullDiskDoesNotKeepAHubWithoutMQTTFromStarting has a cursor that a bridge has left, which nobody can remove now.
func TestFullDiskDoesNotKeepAHubWithoutMQTTFromStarting(t *testing.T) {
	catalog := &fullCatalog{Catalog: mem.NewCatalog()}
	core, err := hub.Open(t.Context(), hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: catalog}, hub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cursorEmbedded, cursorElsewhere} {
		c, err := core.OpenCursor(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	catalog.full = true
	m, err := newMQTT(t.Context(), &serveSettings{}, &bindings{}, core, nil, &counts{}, slog.New(slog.DiscardHandler))
	if err != nil || m.broker != nil || len(m.bridges) != 0 {
		t.Errorf("got %+v, %v", m, err)
	}
	catalog.full = false
	if _, err = newMQTT(t.Context(), &serveSettings{}, &bindings{}, core, nil, &counts{}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if left := core.Status().Cursors; len(left) != 0 {
		t.Errorf("there is room again, but the cursors are still there: %v", left)
	}
}
