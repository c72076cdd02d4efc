package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"

	"telemetryhub/hub"
	"telemetryhub/storage/bolt"
)

// maxLog is how large the log may grow while the history cannot be written, besides what is kept for the outside cursors: then
// ingest pauses. It bounds how long a start after a crash takes, since all of it is verified.
const maxLog = 256 << 20

// stores are the files of a hub.
type stores struct {
	hub.Stores
	damage []func() []bolt.Damage
	opened []io.Closer
}

// openStores opens what is in the data folder, and makes what is missing unless it is only read. The folder must be locked.
func openStores(dir string, outbox int64, readOnly bool, log *slog.Logger) (_ *stores, err error) {
	log = log.With("component", "storage")
	s := &stores{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	catalog, err := bolt.OpenCatalog(filepath.Join(dir, "catalog.bolt"), bolt.CatalogOptions{ReadOnly: readOnly, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("open the catalog: %w", err)
	}
	s.Catalog, s.opened, s.damage = catalog, append(s.opened, catalog), append(s.damage, catalog.Damage)
	chunks, err := bolt.OpenChunks(filepath.Join(dir, "history"), bolt.ChunksOptions{ReadOnly: readOnly, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	s.Chunks, s.opened, s.damage = chunks, append(s.opened, chunks), append(s.damage, chunks.Damage)
	wal, err := bolt.OpenLog(filepath.Join(dir, "log"), bolt.LogOptions{MaxBytes: maxLog + max(outbox, 0), ReadOnly: readOnly, Logger: log})
	if err != nil {
		return nil, err
	}
	s.Log, s.opened, s.damage = wal, append(s.opened, wal), append(s.damage, wal.Damage)
	return s, nil
}

// found returns what was found damaged, a line each.
func (s *stores) found() []string {
	var lines []string
	for _, damage := range s.damage {
		for _, d := range damage() {
			lines = append(lines, d.String())
		}
	}
	return lines
}

// close closes in reverse.
func (s *stores) close() error {
	var errs []error
	for _, c := range slices.Backward(s.opened) {
		errs = append(errs, c.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the store: %w", err)
	}
	return nil
}
