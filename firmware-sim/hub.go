package firmwaresim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/agent"
)

// Errors that callers branch on.
var (
	// ErrRefused means that the hub does not accept the token, or does not allow it to add devices.
	ErrRefused = errors.New("the hub refused")
	// ErrAddress means that the address of the hub cannot be used.
	ErrAddress = errors.New("it is http://host:port or https://host:port")
	// ErrUnreachable means that no hub answered in time.
	ErrUnreachable = errors.New("the hub cannot be reached")
)

// client speaks to the HTTP interface of a hub.
type client struct {
	base, token string
	http        *http.Client
	patience    time.Duration // how long to try
}

func newClient(e agent.Endpoint, token string, patience time.Duration) (*client, error) {
	u, err := url.Parse(e.URL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("hub address %q: %w", e.URL, ErrAddress)
	}
	config, err := e.TLS()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = config
	t.Proxy = nil // the token is for the hub alone
	return &client{
		base: u.Scheme + "://" + u.Host + strings.TrimSuffix(u.Path, "/"), token: token,
		http: &http.Client{Transport: t, Timeout: 15 * time.Second}, patience: patience,
	}, nil
}

// deviceToken adds the device and returns its token. If it exists already it gets a further token.
func (c *client) deviceToken(ctx context.Context, id device.ID) (string, error) {
	type request struct {
		ID     device.ID `json:"id,omitempty"`
		Kind   string    `json:"kind,omitempty"`
		Device device.ID `json:"device,omitempty"`
		Label  string    `json:"label,omitempty"`
	}
	token, status, err := c.post(ctx, "/api/v1/devices", request{ID: id})
	if status == http.StatusConflict {
		conflict := err
		token, status, err = c.post(ctx, "/api/v1/tokens", request{Kind: "device", Device: id, Label: "firmware-sim"})
		if status == http.StatusNotFound { // it was deleted: the first answer says so
			err = fmt.Errorf("%w: %w", ErrRefused, conflict)
		}
	}
	if err != nil {
		return "", fmt.Errorf("add device %s: %w", id, err)
	}
	return token, nil
}

// post sends a request until it is answered by something else than "later", and returns the token in the answer.
func (c *client) post(ctx context.Context, path string, body any) (token string, status int, err error) {
	data, err := json.Marshal(body)
	if err != nil {
		return "", 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		token, status, err = c.try(ctx, path, data)
		if err == nil || (status != 0 && status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests) {
			return token, status, err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return "", status, ctx.Err()
			}
			return "", status, fmt.Errorf("%w at %s within %v: is it running? %w", ErrUnreachable, c.base, c.patience, err)
		case <-time.After(wait):
		}
	}
}

// try sends a request once. status is zero if there was no answer.
func (c *client) try(ctx context.Context, path string, data []byte) (token string, status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(data))
	if err != nil {
		return "", 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return "", 0, err
	}
	var answer struct{ Token, Title, Detail string }
	parsed := json.Unmarshal(text, &answer) == nil
	switch {
	case resp.StatusCode == http.StatusCreated && parsed && answer.Token != "":
		return answer.Token, resp.StatusCode, nil
	case resp.StatusCode/100 == 2:
		return "", resp.StatusCode, fmt.Errorf("the answer of %s%s has no token: is this a hub?", c.base, path)
	}
	err = errors.New(strings.TrimRight(strconv.Itoa(resp.StatusCode)+" "+answer.Title+": "+answer.Detail, ": "))
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return "", resp.StatusCode, err
}
