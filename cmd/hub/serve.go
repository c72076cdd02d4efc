package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"telemetryhub/dashboard"
	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/socket"
	"telemetryhub/hub/ws"
	"telemetryhub/hub/ws/door"
)

// Bounds of stopping. Together they stay below the ten seconds after which service managers kill.
const (
	stopDevices = 5 * time.Second // devices and viewers are told to go, and what has arrived is committed
	stopSockets = 7 * time.Second // then connections are cut
	stopHTTP    = 8 * time.Second
)

func newServe(w world) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve --data DIR",
		Short: "Run the hub",
		Long: "Run the hub on a data folder, which is made if it does not exist.\n\nEvery setting is taken from its flag, else from the " +
			"environment (--commit-interval is HUB_COMMIT_INTERVAL; lists\nare separated by commas), else from the YAML file named by --config " +
			"(commit-interval: 5ms), else it has its\ndefault. PORT in the environment changes the port of --http. Secrets are never given by flag: " +
			"the hub prints a\none-time link for the first administrator until it has been used, and hub token create makes tokens.",
		Example: "  hub serve --data /var/lib/hub\n  hub serve --data /var/lib/hub --lan",
		Args:    cobra.NoArgs,
	}
	addServeFlags(c.Flags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		s, err := loadServeSettings(c, w)
		if err != nil {
			return err
		}
		return serve(c.Context(), s, w)
	}
	return c
}

// serve runs the hub until ctx ends. It acquires from top to bottom, and releases in reverse.
func serve(ctx context.Context, s *serveSettings, w world) (err error) {
	// A pipe whose reader is gone must not kill the hub: it goes on without a log.
	signal.Ignore(syscall.SIGPIPE)
	lines := startWriter(w.err)
	defer lines.stop()
	log := s.logger(lines)
	keepWithin(memoryLimit(), log)
	defer func() {
		if err != nil {
			log.Error("the hub stops", "err", err)
		}
	}()
	bound, err := listen(s, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bound.close()) }()
	defer func() { noteFailure(s.data, err) }()
	in, err := openInside(ctx, s, log)
	if err != nil {
		return err
	}
	stores, people, core := in.stores, in.people, in.core
	defer func() { err = errors.Join(err, stores.close()) }()
	counts := &counts{door: bound.metrics}
	page, err := dashboard.New()
	if err != nil {
		return err
	}
	public, closePublic, err := s.openPublic()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closePublic()) }()
	web, err := api.New(s.apiOptions(core, people, stores, bound, counts, page, public, log))
	if err != nil {
		return err
	}
	auth := socketAuth{web, people}
	devices, err := ws.NewDevices(core.Connect, auth, ws.Options{Crew: web.Crew, Source: web.Source, Metrics: &counts.devices, Logger: log})
	if err != nil {
		return err
	}
	viewers, err := ws.NewViewers(core.Subscribe, auth, ws.Options{Crew: web.Crew, Source: web.Source, Metrics: &counts.viewers, Logger: log})
	if err != nil {
		return err
	}
	web.Mount(devices, viewers)
	sockets, err := sio.New(core.Subscribe, auth, sio.Options{
		Version: version(), Client: dashboard.SocketIO(), Metrics: &counts.sio, Logger: log.With("component", "socket.io"),
		Socket: socket.Options{Engine: eio.Options{Crew: web.Crew, Admit: door.Admit, Source: web.Source}},
	})
	if err != nil {
		return err
	}
	web.MountSocketIO(sockets)
	mqtt, err := newMQTT(ctx, s, bound, core, people, counts, log)
	if err != nil {
		return err
	}
	if err := announce(ctx, w.out, s, bound, people); err != nil {
		log.Warn("the addresses could not be printed", "err", err)
	}

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return core.Run(ctx) })
	g.Go(func() error { return people.Run(ctx) })
	g.Go(func() error { return in.stop.run(ctx) })
	g.Go(func() error { return trimMemory(ctx) })
	g.Go(func() error { return mqtt.run(ctx) })
	g.Go(func() error { return sockets.Run(ctx) })
	if bound.cert != nil {
		g.Go(func() error { return bound.cert.Run(ctx) })
	}
	for _, l := range bound.listeners {
		if l.kind.mqtt() {
			continue
		}
		g.Go(func() error { return serveHTTP(ctx, l, l.server(web, log), log) })
	}
	g.Go(func() error {
		return stopOrder(ctx, log, devices.Shutdown, viewers.Shutdown, sockets.Shutdown, web.Shutdown)
	})
	return g.Wait()
}

// stopOrder waits for the end of ctx, lets nobody new connect, and waits for the connections to end, but not for ever.
func stopOrder(ctx context.Context, log *slog.Logger, shutdown ...func(context.Context) error) error {
	<-ctx.Done()
	log.Info("stopping: devices are told to come back later")
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopSockets)
	defer cancel()
	g := new(errgroup.Group)
	for _, f := range shutdown {
		g.Go(func() error {
			if err := f(bound); err != nil {
				log.Warn("some connections did not end in time", "err", err)
			}
			return nil
		})
	}
	return g.Wait()
}

// serveHTTP serves one listener until ctx ends, and then lets the requests under way finish, but not for ever.
func serveHTTP(ctx context.Context, l *listener, server *http.Server, log *slog.Logger) error {
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l.Listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopHTTP)
	defer cancel()
	if err := server.Shutdown(bound); err != nil {
		log.Warn("some requests were broken off", "address", l.Addr().String(), "err", err)
		err = server.Close()
		_ = err // the listener is closed already, which is all that it could say
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// socketAuth tells the sockets who asks.
type socketAuth struct {
	*api.API
	people *access.Registry
}

// Token is for clients of Socket.IO, which may send their token in a message.
func (a socketAuth) Token(text string) (access.Identity, error) { return a.people.Authenticate(text) }

func (a socketAuth) Watch(id access.Identity, ended func(access.Reason)) (stop func()) {
	return a.people.Watch(id, ended)
}
