package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"

	"telemetryhub/hub/access/cert"
	"telemetryhub/hub/api"
	"telemetryhub/hub/ws/door"
	"telemetryhub/storage/bolt"
)

// kind says whom a listener serves.
type kind uint8

const (
	kindLoopback  kind = iota // everybody on this machine, without TLS
	kindTLS                   // everybody
	kindPlain                 // devices beyond this machine, without TLS
	kindControl               // the owner of the data folder
	kindMQTT                  // MQTT for everybody on this machine, without TLS
	kindMQTTS                 // MQTT for everybody
	kindMQTTPlain             // MQTT beyond this machine, without TLS
)

// mqtt reports whether MQTT is spoken, which is not HTTP.
func (k kind) mqtt() bool { return k >= kindMQTT }

// listener is a bound address.
type listener struct {
	net.Listener
	kind kind
	door *door.Listener // what Listener is, for HTTP but for the control socket
}

// server returns the server for the listener.
func (l *listener) server(a *api.API, log *slog.Logger) *http.Server {
	switch l.kind {
	case kindControl:
		// Whoever gets here owns the data, so there are no limits but those of the routes.
		return &http.Server{Handler: a.Local(), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	case kindPlain:
		return l.door.Server(a.Plain())
	}
	return l.door.Server(a)
}

// bindings are everything that must be had before the store is opened.
type bindings struct {
	lock      *bolt.DirLock
	cert      *cert.Certificate // nil without TLS
	listeners []*listener
	metrics   *door.Metrics
}

// listen locks the data folder and binds every address, so that a mistake shows before anything else happens.
func listen(s *serveSettings, log *slog.Logger) (_ *bindings, err error) {
	if err := makeDataDir(s.data); err != nil {
		return nil, err
	}
	b := &bindings{metrics: new(door.Metrics)}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.lock, err = bolt.LockDir(s.data); err != nil {
		return nil, err
	}
	if err := b.openCert(s, log); err != nil {
		return nil, err
	}
	for _, a := range s.addresses() {
		l, err := net.Listen("tcp", a.addr)
		if a.kind.mqtt() && !s.mqtt.chosen[a.kind] && errors.Is(err, syscall.EADDRINUSE) {
			log.Warn("the MQTT broker is not there: somebody else has the port; choose another with --"+a.flag, "address", a.addr)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("--%s: %w: choose another address", a.flag, err)
		}
		if a.kind.mqtt() {
			b.addMQTT(l, a.kind)
			continue
		}
		o := door.Options{Metrics: b.metrics, Logger: log.With("component", "http")}
		if a.kind == kindTLS {
			o.TLS = b.cert.Config()
		}
		d, err := door.New(l, o)
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		b.listeners = append(b.listeners, &listener{d, a.kind, d})
	}
	control, err := listenControl(s.data)
	if errors.Is(err, syscall.EROFS) {
		log.Warn("commands of this program cannot reach the hub: the disk takes no writes", "err", err)
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	b.listeners = append(b.listeners, &listener{control, kindControl, nil})
	return b, nil
}

func (b *bindings) addMQTT(l net.Listener, k kind) {
	if k == kindMQTTS {
		l = tls.NewListener(l, b.cert.Config())
	}
	b.listeners = append(b.listeners, &listener{l, k, nil})
}

func (b *bindings) openCert(s *serveSettings, log *slog.Logger) (err error) {
	switch {
	case s.tlsCert != "":
		if b.cert, err = cert.OpenFiles(s.tlsCert, s.tlsKey, cert.Options{Logger: log}); err != nil {
			return s.from.explain(usagef("--tls-cert and --tls-key: %v", err))
		}
	case s.lan:
		b.cert, err = cert.Open(filepath.Join(s.data, "tls"), cert.Options{Names: s.names(), Logger: log})
	}
	if err != nil {
		return fmt.Errorf("the certificate: %w", err)
	}
	return nil
}

// listenControl binds the control socket. The data folder is locked, so a socket that is there was left by a hub that is gone.
func listenControl(dir string) (net.Listener, error) {
	return withSocketPath(dir, func(path string) (net.Listener, error) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("remove the control socket of an earlier run: %w", err)
		}
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return nil, fmt.Errorf("make the control socket: %w", err)
		}
		// The folder is open to its owner alone, so nobody else can come in before this.
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, errors.Join(fmt.Errorf("protect the control socket: %w", err), l.Close())
		}
		l.SetUnlinkOnClose(false) // its path may have been one by a descriptor that is closed by then
		return &controlListener{Listener: l, dir: dir}, nil
	})
}

// controlListener removes its socket when it is closed.
type controlListener struct {
	net.Listener
	dir string
}

func (l *controlListener) Close() error {
	err := l.Listener.Close()
	if rm := os.Remove(filepath.Join(l.dir, socketName)); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return err
}

// close releases in reverse. Listeners that were served are closed already, which is no error.
func (b *bindings) close() error {
	var errs []error
	for i := len(b.listeners) - 1; i >= 0; i-- {
		if err := b.listeners[i].Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("close %s: %w", b.listeners[i].Addr(), err))
		}
	}
	if b.lock != nil {
		errs = append(errs, b.lock.Close())
	}
	return errors.Join(errs...)
}
