package firmwaresim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"telemetryhub/device"
)

// progressFile is what a replay needs to go on after it was stopped: the tokens, which the hub shows only once, and how many
// rows are in the spools. It is readable by its owner only.
type progressFile struct {
	Hub       string               `json:"hub"`
	Recording string               `json:"recording"`
	Tokens    map[device.ID]string `json:"tokens"`
	Rows      int                  `json:"rows"`
}

// loadProgress reads the file. If there is none, or it is about another hub, the result is empty; of another recording only the
// tokens are taken.
func loadProgress(path, hub, recording string) (*progressFile, error) {
	fresh := &progressFile{Hub: hub, Recording: recording, Tokens: map[device.ID]string{}}
	if path == "" {
		return fresh, nil
	}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	p := new(progressFile)
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("state %s is not readable, remove it to start from the beginning: %w", path, err)
	}
	if p.Hub != hub || p.Tokens == nil {
		return fresh, nil
	}
	if p.Recording != recording {
		p.Recording, p.Rows = recording, 0
	}
	return p, nil
}

// save replaces the file.
func (p *progressFile) save(path string) error {
	if path == "" {
		return nil
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	if err := writeWhole(path, data); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

func writeWhole(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
