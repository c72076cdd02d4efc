package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const (
	keyName       = "key.pem"
	authorityName = "authority.pem"
	certName      = "cert.pem"
)

const (
	// lifetime stays below the 398 days that some clients accept at most, together with slack.
	lifetime = 390 * 24 * time.Hour
	// slack is how far the clocks of clients may be behind.
	slack = 7 * 24 * time.Hour
	// renewBefore is how long before its end a certificate is replaced.
	renewBefore = 120 * 24 * time.Hour
)

// selfMade is a certificate that the hub makes for itself.
type selfMade struct {
	dir    string
	opts   Options
	key    *ecdsa.PrivateKey
	issuer *x509.Certificate

	leaf *x509.Certificate // what is served
}

func openSelfMade(dir string, opts Options) (*selfMade, error) {
	if err := checkNames(opts.Names); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("folder for the certificate: %w", err)
	}
	s := &selfMade{dir: dir, opts: opts}
	if err := s.openKey(); err != nil {
		return nil, err
	}
	return s, s.openIssuer()
}

func (s *selfMade) path(name string) string { return filepath.Join(s.dir, name) }

// openKey reads the key, or makes it in a folder that never had one.
func (s *selfMade) openKey() error {
	path := s.path(keyName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(s.path(certName)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the private key %s is lost: restore it from a backup, or delete the folder %s to get a new one,"+
				" which every device must then be told", path, s.dir)
		}
		return s.makeKey(path)
	}
	if err != nil {
		return fmt.Errorf("private key: %w", err)
	}
	if err := checkMode(path); err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return s.damagedKey(errors.New("no PEM block"))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return s.damagedKey(err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return s.damagedKey(errors.New("not an ECDSA key on P-256"))
	}
	s.key = ec
	return nil
}

func (s *selfMade) damagedKey(why error) error {
	return fmt.Errorf("the private key %s cannot be used (%w): restore it from a backup, or delete the folder %s to get a"+
		" new one, which every device must then be told", s.path(keyName), why, s.dir)
}

func (s *selfMade) makeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a private key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("make a private key: %w", err)
	}
	if err := replace(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err != nil {
		return fmt.Errorf("store the private key: %w", err)
	}
	s.key = key
	return nil
}

// openIssuer reads the authority, or makes it. Another one for the same key is as good: what it signs is the same.
func (s *selfMade) openIssuer() error {
	id, err := keyID(&s.key.PublicKey)
	if err != nil {
		return err
	}
	if text, err := os.ReadFile(s.path(authorityName)); err == nil {
		if block, _ := pem.Decode(text); block != nil {
			c, err := x509.ParseCertificate(block.Bytes)
			if err == nil && s.key.PublicKey.Equal(c.PublicKey) && c.IsCA {
				s.issuer = c
				return nil
			}
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, authorityTemplate(id), authorityTemplate(id), &s.key.PublicKey, s.key)
	if err != nil {
		return fmt.Errorf("make the authority of the certificate: %w", err)
	}
	if s.issuer, err = x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("make the authority of the certificate: %w", err)
	}
	if err := replace(s.path(authorityName), s.authority()); err != nil {
		return fmt.Errorf("store the authority of the certificate: %w", err)
	}
	return nil
}

// authorityTemplate has fixed times, so that neither side's clock matters.
func authorityTemplate(id []byte) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "Telemetry hub " + hex.EncodeToString(id[:4])},
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2049, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		SubjectKeyId:          id,
	}
}

// keyID is the first 160 bits of the SHA-256 of the public key (RFC 7093 section 2, method 1, over the whole
// SubjectPublicKeyInfo).
func keyID(key *ecdsa.PublicKey) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the public key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return sum[:20], nil
}

func (s *selfMade) authority() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.issuer.Raw})
}

// next serves the certificate on disk as long as it fits, and otherwise a new one, even if that cannot be stored.
func (s *selfMade) next() (*tls.Certificate, error) {
	want, err := machineNames(s.opts)
	if s.leaf == nil {
		if leaf := s.readLeaf(); leaf != nil {
			s.leaf = leaf
			if s.fits(leaf, want) {
				return s.pair(), err
			}
		}
	}
	if s.leaf != nil && s.fits(s.leaf, want) {
		return nil, err
	}
	leaf, makeErr := s.makeLeaf(want)
	if makeErr != nil {
		return nil, makeErr
	}
	s.leaf = leaf
	if storeErr := replace(s.path(certName), encodeChain(leaf, s.issuer)); storeErr != nil {
		return s.pair(), fmt.Errorf("the new certificate is served but not stored: %w", storeErr)
	}
	return s.pair(), err
}

// readLeaf returns the certificate on disk, nil if there is none for the key.
func (s *selfMade) readLeaf() *x509.Certificate {
	text, err := os.ReadFile(s.path(certName))
	if err != nil {
		return nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil || leaf.CheckSignatureFrom(s.issuer) != nil { // what the key has signed is for the key
		return nil
	}
	return leaf
}

// fits reports whether the certificate is in its time and has all names. It may have more: an interface that comes and
// goes shall not change it every time.
func (s *selfMade) fits(leaf *x509.Certificate, want nameSet) bool {
	now := s.opts.Now()
	return !now.Before(leaf.NotBefore) && now.Add(renewBefore).Before(leaf.NotAfter) && want.within(leaf)
}

func (s *selfMade) makeLeaf(want nameSet) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	now := s.opts.Now()
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(2)), // 1 is the authority
		Subject:               pkix.Name{CommonName: want.common()},
		NotBefore:             now.Add(-slack),
		NotAfter:              now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		SubjectKeyId:          s.issuer.SubjectKeyId,
		DNSNames:              want.dns,
		IPAddresses:           want.ips(),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.issuer, &s.key.PublicKey, s.key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return x509.ParseCertificate(der)
}

// pair sends the authority along, so that a client that trusts it finds the way.
func (s *selfMade) pair() *tls.Certificate {
	return &tls.Certificate{Certificate: [][]byte{s.leaf.Raw, s.issuer.Raw}, PrivateKey: s.key, Leaf: s.leaf}
}

func encodeChain(chain ...*x509.Certificate) []byte {
	var text []byte
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

// replace writes a file that is either the old or the new one after a crash, and that only its owner can read.
func replace(path string, text []byte) (err error) {
	temp := path + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
