package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// enrolPath is where an enrolment token is exchanged for a token of a device.
const enrolPath = "/api/v1/enrol"

// Enrol exchanges an enrolment token, e.Token, for the token of a device, once. If the hub refuses for good the error wraps a
// *StopError that says what to do; any other error may pass, and a *RetryError says when. A device that did not get the answer
// may ask again.
func Enrol(ctx context.Context, e Endpoint, id device.ID) (token string, err error) {
	if _, err := WebSocket(e); err != nil { // whether the token may go there at all
		return "", err
	}
	config, err := e.TLS()
	if err != nil {
		return "", err
	}
	u, err := url.Parse(e.URL)
	if err != nil {
		return "", fmt.Errorf("hub address: %w", err)
	}
	u.Scheme = map[string]string{"ws": "http", "http": "http", "wss": "https", "https": "https"}[u.Scheme]
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, devicePath), "/") + enrolPath
	body, err := json.Marshal(map[string]string{"device": string(id)})
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+e.Token)
	req.Header.Set("Content-Type", "application/json")
	transport := &http.Transport{TLSClientConfig: config, Proxy: nil, DisableKeepAlives: true}
	// A redirect would take the token to another host.
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := client.Do(req)
	if err != nil {
		return "", fmt.Errorf("enrol: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		err := refusal(resp)
		if resp.StatusCode == http.StatusConflict || resp.StatusCode == http.StatusUnprocessableEntity {
			err = &StopError{Code: wire.CloseWho, Reason: err.Error()}
		}
		return "", fmt.Errorf("enrol %s: %w", id, err)
	}
	var answer struct{ Token string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 4096)).Decode(&answer); err != nil || answer.Token == "" {
		return "", errors.Join(errors.New("enrol: the hub's answer holds no token: is this the address of a hub?"), err)
	}
	return answer.Token, nil
}
