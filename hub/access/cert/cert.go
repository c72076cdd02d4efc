// Package cert gives the hub's listeners a TLS certificate, so that a second machine can talk to it without anybody
// buying or installing one.
//
// A self-made certificate ([Open]) lives in a folder: key.pem is the private key, made once and kept; authority.pem says,
// signed by that key, that the key may sign for servers; cert.pem is the server's certificate, with the names and
// addresses of the machine, made again whenever one of those is missing in it or its end comes near. All three are for
// the same key, so that both ways to trust the hub stay good over every renewal:
//
//   - a pin ([Certificate.Pin]), which is the SHA-256 of the key's SubjectPublicKeyInfo, never of a certificate;
//   - authority.pem as the CA file of clients that know no pins, such as most MQTT clients.
//
// [OpenFiles] takes a certificate that somebody else looks after, and notices when it is replaced.
package cert

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// checkEvery is how often Run looks whether the certificate still fits.
const checkEvery = time.Minute

// Options configures a Certificate. The zero value works.
type Options struct {
	// Names are host names and addresses that a self-made certificate shall have besides those of the machine.
	Names []string
	// Hostname and Addrs say what the machine is called and where it is. Nil means os.Hostname and net.InterfaceAddrs.
	Hostname func() (string, error)
	Addrs    func() ([]net.Addr, error)
	// Now is the wall clock. Nil means time.Now.
	Now func() time.Time
	// Logger receives diagnostics. Nil discards them.
	Logger *slog.Logger
}

func (o *Options) fill() {
	if o.Hostname == nil {
		o.Hostname = os.Hostname
	}
	if o.Addrs == nil {
		o.Addrs = net.InterfaceAddrs
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// source is where a certificate comes from. It has one caller at a time.
type source interface {
	// next returns what to serve from now on, nil if that is what was returned last. It may return both a
	// certificate and an error.
	next() (*tls.Certificate, error)
	authority() []byte
}

// Certificate is a TLS certificate that changes while it is in use. It is safe for use by many goroutines at once, but
// Check and Run have one caller at a time.
type Certificate struct {
	source  source
	log     *slog.Logger
	current atomic.Pointer[tls.Certificate]
}

// Open returns the self-made certificate in dir, and makes what is missing there. Errors say what to do: a key that is
// damaged, lost or open to others is never replaced silently, because devices have pinned it.
func Open(dir string, opts Options) (*Certificate, error) {
	opts.fill()
	s, err := openSelfMade(dir, opts)
	if err != nil {
		return nil, err
	}
	return open(s, opts)
}

// OpenFiles returns the certificate chain in certFile (PEM, the server's certificate first) with the key in keyFile (PEM).
func OpenFiles(certFile, keyFile string, opts Options) (*Certificate, error) {
	opts.fill()
	return open(&files{certFile: certFile, keyFile: keyFile}, opts)
}

func open(s source, opts Options) (*Certificate, error) {
	c := &Certificate{source: s, log: opts.Logger.With("component", "tls")}
	if err := c.Check(); c.current.Load() == nil {
		return nil, err
	} else if err != nil {
		c.log.Warn("the certificate is not as it should be", "err", err)
	}
	return c, nil
}

// Check looks whether there must be another certificate and serves that from then on. After an error the one until now,
// or one that could not be stored, is served.
func (c *Certificate) Check() error {
	fresh, err := c.source.next()
	if fresh != nil {
		c.current.Store(fresh)
		c.log.Info("serving a certificate", "names", names(fresh.Leaf), "until", fresh.Leaf.NotAfter, "pin", c.Pin())
	}
	return err
}

// Run checks every minute until ctx ends, and then returns nil.
func (c *Certificate) Run(ctx context.Context) error {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := c.Check(); err != nil {
				c.log.Warn("the certificate is not as it should be", "err", err)
			}
		}
	}
}

// Config returns the configuration for a listener: TLS 1.2 or newer, always with the certificate of the moment. The caller
// may add to it, the protocols of ALPN for example.
func (c *Certificate) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
}

// Pin returns the fingerprint to pin: "sha256//" and the SHA-256 of the SubjectPublicKeyInfo in base 64, which is how curl
// writes it. It stays the same as long as the key does.
func (c *Certificate) Pin() string {
	sum := sha256.Sum256(c.current.Load().Leaf.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}

// Names returns the host names and addresses in the certificate.
func (c *Certificate) Names() []string { return names(c.current.Load().Leaf) }

// Expires returns when the certificate ends. A self-made one is replaced long before.
func (c *Certificate) Expires() time.Time { return c.current.Load().Leaf.NotAfter }

// Authority returns the authority of a self-made certificate as PEM, for clients that want a CA file. It is nil for
// certificates from files.
func (c *Certificate) Authority() []byte { return c.source.authority() }

func names(leaf *x509.Certificate) []string {
	list := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		list = append(list, ip.String())
	}
	return list
}

// files is a certificate that somebody else looks after.
type files struct {
	certFile, keyFile string
	seen              [2]stamp // of the files that were tried last
}

// stamp tells whether a file was replaced, or opened to others or closed.
type stamp struct {
	at   time.Time
	size int64
	mode fs.FileMode
}

func (f *files) next() (*tls.Certificate, error) {
	var now [2]stamp
	for i, name := range []string{f.certFile, f.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		now[i] = stamp{at: info.ModTime(), size: info.Size(), mode: info.Mode()}
	}
	if now == f.seen {
		return nil, nil
	}
	f.seen = now
	if err := checkMode(f.keyFile); err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return nil, fmt.Errorf("certificate in %s with the key in %s: %w", f.certFile, f.keyFile, err)
	}
	return &pair, nil
}

func (f *files) authority() []byte { return nil }

// checkMode refuses a private key that every user of the machine can read.
func checkMode(keyFile string) error {
	info, err := os.Stat(keyFile)
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return errors.New("private key " + keyFile + " is open to every user of this machine: chmod 600 " + keyFile)
	}
	return nil
}
