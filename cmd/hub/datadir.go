package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// makeDataDir makes the data folder and the folders above it where they are missing, so that they survive a power cut: what
// is durable in a folder whose own name is not is lost all the same.
func makeDataDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	var missing []string
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(at); err == nil || !errors.Is(err, os.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		missing = append(missing, at)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the data folder: %w", err)
	}
	for _, made := range missing {
		if err := syncFolder(filepath.Dir(made)); err != nil {
			return fmt.Errorf("make the data folder %s durable: %w", made, err)
		}
	}
	return nil
}

// syncFolder makes the names in a folder durable, where the file system can do that.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
