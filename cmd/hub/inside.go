package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/storage"
	"telemetryhub/storage/record"
)

// inside is what stands behind the listeners.
type inside struct {
	stores *stores
	stop   *failStop
	people *access.Registry
	core   *hub.Hub
}

// openInside opens what is in the data folder. On a disk that takes no writes it opens a hub that shows what there is: ending
// would only have the service manager start it again and again.
func openInside(ctx context.Context, s *serveSettings, log *slog.Logger) (*inside, error) {
	in, err := tryInside(ctx, s, false, log)
	if err == nil || !refusesWrites(err) {
		return in, err
	}
	log.Error("the disk takes no writes: the hub shows what there is and takes no readings; check the disk, then start the hub again", "err", err)
	in, showErr := tryInside(ctx, s, true, log)
	if showErr != nil {
		return nil, errors.Join(err, fmt.Errorf("show what there is: %w", showErr))
	}
	return in, nil
}

// refusesWrites reports whether an error says that the disk takes no writes. A full disk will take them again.
func refusesWrites(err error) bool {
	for _, e := range []error{storage.ErrUnknown, storage.ErrReadOnly, syscall.EIO, syscall.EROFS} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func tryInside(ctx context.Context, s *serveSettings, readOnly bool, log *slog.Logger) (_ *inside, err error) {
	in := &inside{}
	if in.stores, err = openStores(s.data, s.outboxBytes(), readOnly, log); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, in.stores.close())
		}
	}()
	if !readOnly {
		if err := in.stores.tryWrites(ctx); err != nil {
			return nil, fmt.Errorf("try whether the disk takes writes: %w", err)
		}
	}
	in.stop = newFailStop(in.stores.Catalog)
	in.stores.Catalog = in.stop
	if in.people, err = access.Open(ctx, in.stores.Catalog, access.Options{Logger: log}); err != nil {
		return nil, fmt.Errorf("open the list of tokens and people: %w", err)
	}
	o := hub.Options{CommitInterval: s.commit, OutboxBytes: s.outboxBytes(), DrainTimeout: stopDevices, Version: version(), ReadOnly: readOnly, Logger: log}
	fitMemory(&o, memoryLimit())
	if in.core, err = hub.Open(ctx, in.stores.Stores, o); err != nil {
		return nil, fmt.Errorf("open the hub: %w", err)
	}
	if !readOnly {
		if err := in.tryHistory(ctx, s.data); err != nil {
			return nil, fmt.Errorf("try whether the disk takes writes: %w", err)
		}
	}
	return in, nil
}

// keyStart is where the catalog notes when the hub was started last.
const keyStart = "start"

// tryWrites commits to catalog and log, so that a disk that fails is noticed before the first device is served. In the log it
// is a group without records. A full disk has not failed.
func (s *stores) tryWrites(ctx context.Context) error {
	now := time.Now().UnixMilli()
	v, err := json.Marshal(struct {
		V  int   `json:"v"`
		At int64 `json:"at"`
	}{1, now})
	if err != nil {
		return err
	}
	if _, err := s.Catalog.Put(ctx, keyStart, v, storage.Any); err != nil && !errors.Is(err, storage.ErrFull) {
		return err
	}
	var empty record.Group
	empty.Reset(now)
	if _, err := s.Log.Append(ctx, empty.Bytes(), s.Log.Last()); err != nil && !errors.Is(err, storage.ErrFull) {
		return err
	}
	return nil
}

// failedName is the file that an earlier run left because the disk failed.
const failedName = "failed"

// noteFailure leaves a note for the next start if the disk has failed. Where not even that can be written, the next start
// finds out by itself.
func noteFailure(dir string, err error) {
	if errors.Is(err, storage.ErrUnknown) {
		_ = os.WriteFile(filepath.Join(dir, failedName), []byte(time.Now().UTC().Format(time.RFC3339)+" "+err.Error()+"\n"), 0o600)
	}
}

// tryHistory flushes the history if an earlier run has failed: it may have been a history file that takes no writes.
func (in *inside) tryHistory(ctx context.Context, dir string) error {
	path := filepath.Join(dir, failedName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	switch err := in.core.FlushHistory(ctx); {
	case errors.Is(err, storage.ErrFull):
		return nil
	case err != nil:
		return err
	}
	return os.Remove(path)
}
