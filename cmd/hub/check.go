package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
	"telemetryhub/storage/record"
)

// checkReport is what hub check has found.
type checkReport struct {
	OK      bool     `json:"ok"`
	Keys    int      `json:"catalog_keys"`
	Slices  int      `json:"history_slices"`
	Blocks  int      `json:"history_blocks"`
	Bytes   int64    `json:"history_bytes"`
	Groups  int      `json:"log_groups"`
	Records int      `json:"log_records"`
	First   uint64   `json:"log_first"`
	Last    uint64   `json:"log_last"`
	Damage  []string `json:"damage"`
}

func newCheck(w world) *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Verify everything in the data folder while no hub runs on it",
		Long: "Verify every key, block and record in the data folder while no hub runs on it, and tell what is damaged (exit code 3).\n\n" +
			"Catalog and history are only read. A damaged log is treated as the start of the hub treats it: what is intact goes into\n" +
			"new files, and the damaged ones are kept beside them.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			s, err := loadClientSettings(c, w)
			if err != nil {
				return err
			}
			if s.data == "" {
				return usagef("which folder? Name it with --data DIR or HUB_DATA")
			}
			r, err := check(c.Context(), s.data)
			if err != nil {
				return err
			}
			return r.show(s, w)
		},
	}
}

func (r *checkReport) show(s clientSettings, w world) error {
	r.OK = len(r.Damage) == 0
	err := s.show(w, r, func(t *table) {
		t.row("catalog", fmt.Sprintf("%d keys", r.Keys))
		t.row("history", fmt.Sprintf("%d slices, %d blocks, %d bytes", r.Slices, r.Blocks, r.Bytes))
		t.row("log", fmt.Sprintf("%d groups, %d records, from %d to %d", r.Groups, r.Records, r.First, r.Last))
		for _, d := range r.Damage {
			t.row("DAMAGE", d)
		}
		if r.OK {
			t.row("result", "everything is intact")
		}
	})
	if err == nil && !r.OK {
		return fmt.Errorf("%w: %d damages", errPartial, len(r.Damage))
	}
	return err
}

// check reads everything that is in the data folder.
func check(ctx context.Context, dir string) (r *checkReport, err error) {
	if _, err := os.Stat(filepath.Join(dir, "catalog.bolt")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no data of a hub: %w", dir, storage.ErrNotFound)
	}
	lock, err := bolt.LockDir(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	r = &checkReport{Damage: []string{}}
	for _, part := range []struct {
		name string
		do   func(context.Context, string) error
	}{{"catalog", r.catalog}, {"history", r.history}, {"log", r.log}} {
		err := part.do(ctx, dir)
		switch {
		case errors.Is(err, storage.ErrCorrupt):
			for line := range strings.SplitSeq(err.Error(), "\n") {
				r.Damage = append(r.Damage, part.name+": "+line)
			}
		case err != nil:
			return nil, fmt.Errorf("check the %s: %w", part.name, err)
		}
	}
	return r, nil
}

func (r *checkReport) catalog(ctx context.Context, dir string) (err error) {
	c, err := bolt.OpenCatalog(filepath.Join(dir, "catalog.bolt"), bolt.CatalogOptions{ReadOnly: true, Logger: discard()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	return c.List(ctx, "", func(storage.Item) bool {
		r.Keys++
		return true
	})
}

func (r *checkReport) history(ctx context.Context, dir string) (err error) {
	c, err := bolt.OpenChunks(filepath.Join(dir, "history"), bolt.ChunksOptions{ReadOnly: true, Logger: discard()})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was ever flushed
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	slices, err := c.Slices(ctx)
	if err != nil {
		return err
	}
	r.Slices, r.Bytes = len(slices), c.Size()
	var bad []error
	for _, s := range slices {
		if err := r.slice(ctx, c, s); err != nil && !errors.Is(err, storage.ErrCorrupt) {
			return err
		} else if err != nil {
			bad = append(bad, fmt.Errorf("slice %d: %w", s, err))
		}
	}
	return errors.Join(bad...)
}

func (r *checkReport) slice(ctx context.Context, c storage.Chunks, s storage.Slice) error {
	var keys []storage.BlockKey
	bad := []error{c.Blocks(ctx, s, func(k storage.BlockKey, _ int) bool {
		keys = append(keys, k)
		return true
	})}
	for _, k := range keys {
		_, err := c.Block(ctx, s, k)
		if err != nil && !errors.Is(err, storage.ErrCorrupt) {
			return err
		}
		if bad = append(bad, err); err == nil {
			r.Blocks++
		}
	}
	return errors.Join(bad...)
}

func (r *checkReport) log(ctx context.Context, dir string) (err error) {
	l, err := bolt.OpenLog(filepath.Join(dir, "log"), bolt.LogOptions{Logger: discard()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	r.First, r.Last = uint64(l.First()), uint64(l.Last())
	var bad []error
	err = l.Read(ctx, l.First(), func(e storage.Entry) bool {
		if e.Damaged {
			bad = append(bad, fmt.Errorf("at %d: %w", e.Position, storage.ErrCorrupt))
			return true
		}
		r.Groups++
		g, err := record.Read(e.Group)
		if err == nil {
			for g.Next() {
				r.Records++
			}
			err = g.Err()
		}
		if err != nil {
			bad = append(bad, fmt.Errorf("at %d: %w: %w", e.Position, storage.ErrCorrupt, err))
		}
		return true
	})
	for _, d := range l.Damage() {
		r.Damage = append(r.Damage, d.String())
	}
	return errors.Join(append(bad, err)...)
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
