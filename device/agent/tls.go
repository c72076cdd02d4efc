package agent

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

var errPin = errors.New("the hub's certificate is not the pinned one: if the hub was set up anew, pin its new fingerprint; if not, somebody is in between")

// TLS returns the client side of TLS for the endpoint, for other clients of the same hub. Nil means that its URL is without
// TLS. The error says what is wrong with the endpoint.
func (e Endpoint) TLS() (*tls.Config, error) {
	u, err := url.Parse(e.URL)
	if err != nil {
		return nil, fmt.Errorf("hub address: %w", err)
	}
	if u.Scheme != "https" && u.Scheme != "wss" {
		return nil, nil
	}
	return tlsConfig(u.Hostname(), e)
}

func tlsConfig(host string, e Endpoint) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, RootCAs: e.Roots, NextProtos: []string{"http/1.1"}}
	if e.Pin == "" {
		return c, nil
	}
	pin, err := parsePin(e.Pin)
	if err != nil {
		return nil, err
	}
	// The pin is the trust: names, dates and roots of a self-made certificate say nothing, and a device without a clock could
	// not check dates anyway. VerifyConnection runs on resumed sessions too.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(s tls.ConnectionState) error { return checkPin(pin, s.PeerCertificates) }
	return c, nil
}

// parsePin takes the form that the hub prints and curl uses, "sha256//" and base64, and hexadecimal.
func parsePin(s string) ([]byte, error) {
	if text, ok := strings.CutPrefix(s, "sha256//"); ok {
		pin, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(pin) != sha256.Size {
			return nil, fmt.Errorf("fingerprint %q: 44 characters of base64 are needed after sha256//", s)
		}
		return pin, nil
	}
	clean := strings.NewReplacer(":", "", " ", "").Replace(strings.TrimPrefix(strings.ToLower(s), "sha256:"))
	pin, err := hex.DecodeString(clean)
	if err != nil || len(pin) != sha256.Size {
		return nil, fmt.Errorf("fingerprint %q: 64 hexadecimal digits are needed", s)
	}
	return pin, nil
}

// checkPin accepts the chain if the pin is that of the hub's certificate or public key, or of a certificate in the chain that
// the hub's is signed by.
func checkPin(pin []byte, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errPin
	}
	leaf := chain[0]
	if matches(pin, leaf.Raw) || matches(pin, leaf.RawSubjectPublicKeyInfo) {
		return nil
	}
	signed := leaf
	for _, c := range chain[1:] {
		if signed.CheckSignatureFrom(c) != nil {
			break
		}
		if matches(pin, c.Raw) || matches(pin, c.RawSubjectPublicKeyInfo) {
			return nil
		}
		signed = c
	}
	return errPin
}

func matches(pin, data []byte) bool {
	sum := sha256.Sum256(data)
	return bytes.Equal(pin, sum[:])
}
