package agent

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

var errPin = errors.New("the hub's certificate is not the pinned one: if the hub was set up anew, pin its new fingerprint; if not, somebody is in between")

// tlsConfig returns the client side of TLS for the endpoint.
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

func parsePin(s string) ([]byte, error) {
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
