package agent_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"telemetryhub/device/agent"
)

// To a device whose clock stands in 1970 each certificate is not valid yet.
func TestCertificateOutsideItsTimeIsToldAndPinningHelps(t *testing.T) {
	now := time.Now()
	for name, valid := range map[string][2]time.Time{
		"expired":       {now.Add(-2 * time.Hour), now.Add(-time.Hour)},
		"not valid yet": {now.Add(time.Hour), now.Add(2 * time.Hour)},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{
				SerialNumber: big.NewInt(1), NotBefore: valid[0], NotAfter: valid[1], IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
				IsCA: true, BasicConstraintsValid: true,
			}
			der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
			if err != nil {
				t.Fatal(err)
			}
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			h := newFakeHub()
			srv := httptest.NewUnstartedServer(&wsHub{fakeHub: h})
			srv.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
			srv.StartTLS()
			defer func() { srv.Close(); h.wg.Wait() }()
			roots := x509.NewCertPool()
			roots.AddCert(cert)
			sp := memory(t)
			retry := agent.Options{MinRetry: time.Millisecond, MaxRetry: 10 * time.Millisecond}

			dial, err := agent.WebSocket(agent.Endpoint{URL: srv.URL, Token: "secret", Roots: roots})
			if err != nil {
				t.Fatal(err)
			}
			r := start(t, sp, dial, retry)
			r.add(t, 1, 10)
			for deadline := now.Add(20 * time.Second); r.Stats().LastErr == nil && time.Now().Before(deadline); {
				<-time.After(time.Millisecond)
			}
			if err := r.Stats().LastErr; err == nil || !strings.Contains(err.Error(), "expired or is not yet valid") {
				t.Errorf("the agent says %v", err)
			}
			if err := r.stop(); err != nil {
				t.Errorf("the agent gave up: %v", err)
			}
			if n := sp.Status().Waiting; n == 0 {
				t.Error("the rows were not kept")
			}

			pin := sha256.Sum256(der)
			if dial, err = agent.WebSocket(agent.Endpoint{URL: srv.URL, Token: "secret", Pin: hex.EncodeToString(pin[:])}); err != nil {
				t.Fatal(err)
			}
			r = start(t, sp, dial, retry)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := r.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			wantIDs(t, h, 1, 10)
			if err := r.stop(); err != nil {
				t.Error(err)
			}
		})
	}
}
