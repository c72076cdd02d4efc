package cert_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"telemetryhub/hub/access/cert"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// machine is what a certificate is made for.
type machine struct {
	host  string
	addrs []string
	now   time.Time
	err   error
}

func newMachine() *machine {
	return &machine{host: "Shed-Pi", addrs: []string{"192.168.1.20/24", "fe80::1/64", "fd00::20/64", "127.0.0.1/8"},
		now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
}

func (m *machine) options() cert.Options {
	return cert.Options{
		Hostname: func() (string, error) { return m.host, m.err },
		Addrs: func() (list []net.Addr, _ error) {
			for _, text := range m.addrs {
				ip, network, err := net.ParseCIDR(text)
				if err != nil {
					return nil, err
				}
				list = append(list, &net.IPNet{IP: ip, Mask: network.Mask})
			}
			return list, m.err
		},
		Now: func() time.Time { return m.now },
	}
}

func open(t *testing.T, dir string, opts cert.Options) *cert.Certificate {
	t.Helper()
	c, err := cert.Open(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shake connects to a listener with the certificate and returns what it showed.
func shake(t *testing.T, server *cert.Certificate, client *tls.Config) (*x509.Certificate, error) {
	t.Helper()
	a, b := net.Pipe()
	defer func() { _ = a.Close() }() // an alert may have closed it
	done := make(chan error, 1)
	go func() {
		err := tls.Server(b, server.Config()).Handshake()
		if err != nil {
			_ = b.Close()
		}
		done <- err
	}()
	conn := tls.Client(a, client)
	err := conn.HandshakeContext(t.Context())
	if err != nil {
		_ = a.Close()
		<-done
		return nil, err
	}
	if err := <-done; err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// trusting is a client that knows the authority and nothing else.
func trusting(m *machine, authority []byte, name string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	return &tls.Config{RootCAs: pool, ServerName: name, Time: func() time.Time { return m.now }}
}

func TestSelfMadeCertificateIsTrustedUnderEveryName(t *testing.T) {
	m := newMachine()
	opts := m.options()
	opts.Names = []string{"Hub.example.org", "203.0.113.7"}
	c := open(t, filepath.Join(t.TempDir(), "a", "tls"), opts)
	for _, name := range []string{"shed-pi", "shed-pi.local", "localhost", "127.0.0.1", "::1", "192.168.1.20", "fd00::20",
		"hub.example.org", "203.0.113.7"} {
		leaf, err := shake(t, c, trusting(m, c.Authority(), name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 398*24*time.Hour {
			t.Errorf("the certificate lives %v", life)
		}
	}
	for _, name := range []string{"other", "192.168.1.21", "fe80::1"} {
		if _, err := shake(t, c, trusting(m, c.Authority(), name)); err == nil {
			t.Errorf("the certificate is good for %s", name)
		}
	}
	other := open(t, t.TempDir(), opts)
	if _, err := shake(t, c, trusting(m, other.Authority(), "localhost")); err == nil || other.Pin() == c.Pin() {
		t.Error("two hubs have one key")
	}
	old := trusting(m, c.Authority(), "localhost")
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, err := shake(t, c, old); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if _, err := shake(t, c, old); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func TestPinAndAuthorityOutliveEveryRenewal(t *testing.T) {
	m := newMachine()
	dir := t.TempDir()
	c := open(t, dir, m.options())
	pin, authority := c.Pin(), c.Authority()
	if !strings.HasPrefix(pin, "sha256//") || len(pin) != len("sha256//")+44 {
		t.Errorf("pin %s", pin)
	}
	last := serial(t, dir)
	for _, step := range []struct {
		name    string
		change  func()
		renewed bool
	}{
		{"nothing", func() {}, false},
		{"a day later", func() { m.now = m.now.Add(24 * time.Hour) }, false},
		{"an address more", func() { m.addrs = append(m.addrs, "10.0.0.7/8") }, true},
		{"an address less", func() { m.addrs = m.addrs[1:] }, false},
		{"another name", func() { m.host = "barn" }, true},
		{"near its end", func() { m.now = m.now.AddDate(0, 9, 0) }, true},
		{"long after its end", func() { m.now = m.now.AddDate(3, 0, 0) }, true},
		{"clock set back", func() { m.now = m.now.AddDate(-30, 0, 0) }, true},
		{"clock set right", func() { m.now = m.now.AddDate(40, 0, 0) }, true},
	} {
		step.change()
		for _, how := range []string{"running", "restarted"} {
			if how == "running" {
				if err := c.Check(); err != nil {
					t.Errorf("%s: %v", step.name, err)
				}
			} else {
				c = open(t, dir, m.options())
			}
			now := serial(t, dir)
			if renewed := now != last; renewed != (step.renewed && how == "running") {
				t.Errorf("%s, %s: renewed is %v", step.name, how, renewed)
			}
			last = now
			if c.Pin() != pin {
				t.Errorf("%s, %s: the pin is another", step.name, how)
			}
			client := trusting(m, authority, "localhost")
			if m.now.Year() < 2020 || m.now.Year() > 2049 {
				client.Time = func() time.Time { return c.Expires().Add(-time.Hour) } // the authority itself has an end
			}
			if _, err := shake(t, c, client); err != nil && m.now.Year() >= 2020 && m.now.Year() < 2049 {
				t.Errorf("%s, %s: the authority of the first day does not help: %v", step.name, how, err)
			}
		}
	}
}

// serial tells certificates apart.
func serial(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c.SerialNumber.String()
}

func TestFilesBelongToTheOwnerOnly(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	open(t, dir, newMachine().options())
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info.Mode(), err)
	}
}

func TestAKeyIsNeverReplacedSilently(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(key string) error
		say   string
	}{
		"lost":      {os.Remove, "lost"},
		"empty":     {func(key string) error { return os.WriteFile(key, nil, 0o600) }, "cannot be used"},
		"nonsense":  {func(key string) error { return os.WriteFile(key, []byte("nonsense"), 0o600) }, "cannot be used"},
		"cut":       {func(key string) error { return os.Truncate(key, 100) }, "cannot be used"},
		"not a key": {func(key string) error { return copyFile(filepath.Join(filepath.Dir(key), "cert.pem"), key) }, "cannot be used"},
		"open":      {func(key string) error { return os.Chmod(key, 0o644) }, "chmod 600"},
	} {
		dir := t.TempDir()
		open(t, dir, newMachine().options())
		if err := tc.spoil(filepath.Join(dir, "key.pem")); err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Open(dir, newMachine().options()); err == nil || !strings.Contains(err.Error(), tc.say) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func copyFile(from, to string) error {
	text, err := os.ReadFile(from)
	return errors.Join(err, os.WriteFile(to, text, 0o600))
}

// What is made from the key may be damaged or left over from a crash: it is made again.
func TestAllButTheKeyIsMadeAgain(t *testing.T) {
	for _, name := range []string{"cert.pem", "authority.pem"} {
		for _, text := range []string{"", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "foreign"} {
			m := newMachine()
			dir, other := t.TempDir(), t.TempDir()
			c := open(t, dir, m.options())
			open(t, other, m.options())
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if text == "foreign" {
				if err := copyFile(filepath.Join(other, name), filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(dir, name+".new"), []byte("half"), 0o644); err != nil {
				t.Fatal(err)
			}
			again := open(t, dir, m.options())
			if again.Pin() != c.Pin() {
				t.Errorf("%s %q: another pin", name, text)
			}
			if _, err := shake(t, again, trusting(m, c.Authority(), "localhost")); err != nil {
				t.Errorf("%s %q: %v", name, text, err)
			}
		}
	}
}

func TestACertificateThatCannotBeStoredIsServed(t *testing.T) {
	m := newMachine()
	dir := t.TempDir()
	c := open(t, dir, m.options())
	if err := os.Mkdir(filepath.Join(dir, "cert.pem.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem.new", "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.host = "barn"
	if err := c.Check(); err == nil || !slices.Contains(c.Names(), "barn.local") {
		t.Errorf("got error %v and names %v", err, c.Names())
	}
	if err := c.Check(); err != nil {
		t.Errorf("the second check must be content: %v", err)
	}
}

func TestAMachineWithoutANameGetsACertificate(t *testing.T) {
	m := newMachine()
	m.err = errors.New("nobody knows")
	c := open(t, t.TempDir(), m.options())
	if _, err := shake(t, c, trusting(m, c.Authority(), "127.0.0.1")); err != nil {
		t.Error(err)
	}
	m.err, m.host = nil, "Not_A_Host Name"
	if err := c.Check(); err != nil || slices.ContainsFunc(c.Names(), func(n string) bool { return strings.Contains(n, "_") }) {
		t.Errorf("%v, %v", c.Names(), err)
	}
	for range 300 {
		m.addrs = append(m.addrs, "10.0.0."+string(rune('1'+len(m.addrs)%9))+"/8", "fd00::"+strings.Repeat("1", 1+len(m.addrs)%4)+"/64")
	}
	if err := c.Check(); err != nil || len(c.Names()) > 80 {
		t.Errorf("%d names, %v", len(c.Names()), err)
	}
	for _, name := range []string{"", "*.example.org", "a b", "-x", "x-", strings.Repeat("a", 64), "fe80::1%eth0", "http://x"} {
		opts := m.options()
		opts.Names = []string{name}
		if _, err := cert.Open(t.TempDir(), opts); err == nil {
			t.Errorf("the name %q was taken", name)
		}
	}
}

// ownFiles writes a foreign certificate to two files and returns its pin.
func ownFiles(t *testing.T, certFile, keyFile string) (pin string) {
	t.Helper()
	dir := t.TempDir()
	pin = open(t, dir, newMachine().options()).Pin()
	for from, to := range map[string]string{"cert.pem": certFile, "key.pem": keyFile} {
		if err := copyFile(filepath.Join(dir, from), to+".tmp"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(to+".tmp", to); err != nil {
			t.Fatal(err)
		}
	}
	return pin
}

func TestOwnFilesAreReloadedWhenTheyFitTogether(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")
	if _, err := cert.OpenFiles(certFile, keyFile, cert.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no files: %v", err)
	}
	first := ownFiles(t, certFile, keyFile)
	c, err := cert.OpenFiles(certFile, keyFile, cert.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Pin() != first || c.Authority() != nil {
		t.Errorf("pin %s, want %s", c.Pin(), first)
	}
	// Only one of the two is there yet.
	second := ownFiles(t, certFile, filepath.Join(dir, "next.pem"))
	age(t, certFile, time.Hour)
	if err := c.Check(); err == nil || c.Pin() != first {
		t.Errorf("a certificate without its key: %v", err)
	}
	if err := c.Check(); err != nil {
		t.Errorf("the same files must be tried once: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, "next.pem"), keyFile); err != nil {
		t.Fatal(err)
	}
	age(t, keyFile, time.Hour)
	if err := c.Check(); err != nil || c.Pin() != second {
		t.Errorf("the new pair: %v, pin %s, want %s", err, c.Pin(), second)
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); !errors.Is(err, fs.ErrNotExist) || c.Pin() != second {
		t.Errorf("without files: %v", err)
	}
	third := ownFiles(t, certFile, keyFile)
	if err := os.Chmod(keyFile, 0o604); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err == nil || !strings.Contains(err.Error(), "chmod 600") || c.Pin() != second {
		t.Errorf("a new key that is open: %v", err)
	}
	if err := os.Chmod(keyFile, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Check(); err != nil || c.Pin() != third {
		t.Errorf("a new key that is closed as the error said: %v, pin %s, want %s", err, c.Pin(), third)
	}
	if err := os.Chmod(keyFile, 0o604); err != nil {
		t.Fatal(err)
	}
	if _, err := cert.OpenFiles(certFile, keyFile, cert.Options{}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("an open key: %v", err)
	}
}

// age moves the time of a file, since two writes in a row can have the same one.
func age(t *testing.T, file string, by time.Duration) {
	t.Helper()
	at := time.Now().Add(-by)
	if err := os.Chtimes(file, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestRunNoticesChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMachine()
		var log bytes.Buffer
		opts := m.options()
		opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		dir := t.TempDir()
		c := open(t, dir, opts)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		m.host = "barn" // before Run, which reads it
		go func() { done <- c.Run(ctx) }()
		<-time.After(time.Minute + time.Second) // virtual
		synctest.Wait()
		if !slices.Contains(c.Names(), "barn.local") {
			t.Errorf("after a minute: %v", c.Names())
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		key, err := os.ReadFile(filepath.Join(dir, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(key)
		if block == nil || bytes.Contains(log.Bytes(), bytes.TrimSpace(key)[30:60]) || !strings.Contains(log.String(), c.Pin()) {
			t.Errorf("log: %s", log.String())
		}
	})
}
