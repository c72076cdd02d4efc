package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// socketName is the control socket in the data folder.
const socketName = "hub.sock"

// maxSocketPath is the longest address that the kernel takes (unix(7): 108 bytes with the final zero).
const maxSocketPath = 107

// withSocketPath calls use with an address for the control socket in dir that is short enough: through the folder's
// descriptor if its own is not.
func withSocketPath[T any](dir string, use func(path string) (T, error)) (T, error) {
	path := filepath.Join(dir, socketName)
	if len(path) <= maxSocketPath {
		return use(path)
	}
	folder, err := os.Open(dir)
	if err != nil {
		var none T
		return none, err
	}
	defer folder.Close() // only read
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), socketName))
}

// apiError is a problem document of the hub.
type apiError struct {
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
}

func (e *apiError) Error() string {
	if e.Detail != "" {
		return e.Detail
	}
	return fmt.Sprintf("the hub answered %d %s", e.Status, e.Title)
}

// client speaks to the hub that runs on a data folder.
type client struct {
	dir  string
	http *http.Client
}

func newClient(s clientSettings) (*client, error) {
	if s.data == "" {
		return nil, usagef("which hub? Name its data folder with --data DIR or HUB_DATA")
	}
	var d net.Dialer
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return withSocketPath(s.data, func(path string) (net.Conn, error) { return d.DialContext(ctx, "unix", path) })
		},
	}
	return &client{dir: s.data, http: &http.Client{Transport: transport, Timeout: 10 * time.Minute}}, nil
}

// call sends a request and returns the answer's body. in is sent as JSON unless it is nil. Errors are *apiError or wrap
// errUnreachable.
func (c *client) call(ctx context.Context, method, path string, in any) (json.RawMessage, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://hub"+path, body)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	defer resp.Body.Close() // only read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read the answer of the hub: %w", err)
	}
	if resp.StatusCode < 300 {
		return text, nil
	}
	problem := &apiError{Status: resp.StatusCode, Title: http.StatusText(resp.StatusCode)}
	if err := json.Unmarshal(text, problem); err != nil {
		problem.Detail = fmt.Sprintf("the hub answered %d without saying why", resp.StatusCode)
	}
	return nil, problem
}

// get decodes the answer to a GET.
func get[T any](ctx context.Context, c *client, path string) (T, json.RawMessage, error) {
	var v T
	raw, err := c.call(ctx, http.MethodGet, path, nil)
	if err != nil {
		return v, nil, err
	}
	return v, raw, decode(raw, &v)
}

// send decodes the answer to a request that changes something.
func send[T any](ctx context.Context, c *client, method, path string, in any) (T, json.RawMessage, error) {
	var v T
	raw, err := c.call(ctx, method, path, in)
	if err != nil {
		return v, nil, err
	}
	return v, raw, decode(raw, &v)
}

func decode(raw json.RawMessage, into any) error {
	if len(raw) == 0 {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("the answer of the hub was not understood (is it of another version?): %w", err)
	}
	return nil
}

func (c *client) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (%s): start it with hub serve --data %s", errUnreachable, c.dir, c.dir)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("the control socket in %s belongs to somebody else: run this as the user that the hub runs as: %w",
			c.dir, os.ErrPermission)
	}
	return fmt.Errorf("the hub on %s broke off: %w", c.dir, err)
}

// job is what a client command does.
type job struct {
	*client
	clientSettings
	w    world
	cmd  *cobra.Command
	args []string
}

func (j *job) ctx() context.Context { return j.cmd.Context() }

// remote makes the RunE of a command that is a client of a hub.
func remote(w world, do func(*job) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		s, err := loadClientSettings(cmd, w)
		if err != nil {
			return err
		}
		if slices.Contains(args, "") { // it would end as another address of the API
			return usagef("an argument is empty: see %s --help", cmd.CommandPath())
		}
		c, err := newClient(s)
		if err != nil {
			return err
		}
		return do(&job{client: c, clientSettings: s, w: w, cmd: cmd, args: args})
	}
}
