package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"telemetryhub/device"
	"telemetryhub/device/agent"
)

// tokenName is the file in the data folder with the token that was fetched by enrolment.
const tokenName = "token"

// readSecret reads a token from a file that nobody but its owner may read.
func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", usagef("%s can be read by others (%v): chmod 600 %s, and if others use this machine make a new token", path, info.Mode().Perm(), path)
	}
	b := make([]byte, 1024)
	n, err := f.Read(b)
	if err != nil || n == len(b) {
		return "", usagef("%s does not hold a token", path)
	}
	token := string(bytes.TrimSpace(b[:n]))
	if token == "" {
		return "", usagef("%s is empty: put the token into it", path)
	}
	return token, nil
}

// writeSecret makes a file that nobody but its owner may read. Afterwards it is durable and whole, or not there.
func writeSecret(path, token string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".token-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(token + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// dialer returns how the hub is reached. Without a token of its own the device fetches one first, when there is a network: it
// reads its sensors meanwhile.
func (c *config) dialer(log *slog.Logger) (agent.Dialer, error) {
	own := c.path(filepath.Join(c.Data, tokenName))
	if c.TokenFile != "" {
		own = c.path(c.TokenFile)
	}
	token, err := readSecret(own)
	switch {
	case err == nil:
		return agent.WebSocket(c.endpoint(token))
	case c.TokenFile != "" || !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("token: %w", err)
	}
	enrolment, err := readSecret(c.path(c.EnrolmentFile))
	if err != nil {
		return nil, fmt.Errorf("enrolment token: %w", err)
	}
	var dial agent.Dialer
	return func(ctx context.Context) (agent.Conn, error) { // the agent has one dial at a time
		if dial == nil {
			token, err := agent.Enrol(ctx, c.endpoint(enrolment), device.ID(c.Device))
			if err != nil {
				return nil, err
			}
			if err := writeSecret(own, token); err != nil {
				return nil, fmt.Errorf("keep the token: %w", err)
			}
			log.Info("enrolled: the token is kept, the enrolment token is not needed any more", "file", own)
			if dial, err = agent.WebSocket(c.endpoint(token)); err != nil {
				return nil, err
			}
		}
		return dial(ctx)
	}, nil
}
