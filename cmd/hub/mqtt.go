package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/broker"
	"telemetryhub/hub/mqtt"
	"telemetryhub/storage"
)

// The cursors of the bridges. They stand in the catalog: never change them.
const (
	cursorEmbedded  = "mqtt"
	cursorElsewhere = "mqtt-bridge"
)

// mqttSide is the broker and the bridges, of which there may be none.
type mqttSide struct {
	broker    *broker.Broker
	listeners []net.Listener
	bridges   []*mqtt.Bridge
	log       *slog.Logger
}

// newMQTT prepares what was asked for. A bridge that is not there any more holds nothing.
func newMQTT(ctx context.Context, s *serveSettings, b *bindings, core *hub.Hub, people *access.Registry, c *counts, log *slog.Logger) (*mqttSide, error) {
	m := &mqttSide{log: log}
	for _, l := range b.listeners {
		if l.kind.mqtt() {
			m.listeners = append(m.listeners, l.Listener)
		}
	}
	if core.Status().ReadOnly { // what has been published could not be remembered
		return m, m.closeListeners()
	}
	if err := m.embed(ctx, core, people, c); err != nil {
		return nil, err
	}
	return m, m.connect(ctx, s, core, c)
}

func (m *mqttSide) closeListeners() error {
	var errs []error
	for _, l := range m.listeners {
		errs = append(errs, l.Close())
	}
	if len(m.listeners) > 0 {
		m.log.Warn("there is no MQTT broker as long as the disk takes no writes")
	}
	m.listeners = nil
	return errors.Join(errs...)
}

// embed makes the broker and the bridge to it.
func (m *mqttSide) embed(ctx context.Context, core *hub.Hub, people *access.Registry, c *counts) (err error) {
	if len(m.listeners) == 0 {
		return m.drop(ctx, core, cursorEmbedded)
	}
	ingest := func(ctx context.Context, id device.ID, payload []byte) error {
		done, err := core.Ingest(ctx, id, wire.JSON, payload)
		if err == nil && done.Stored == 0 && len(done.Bad) > 0 {
			return &hub.BadInput{Text: "no reading in it can be taken"}
		}
		return err
	}
	if m.broker, err = broker.New(broker.Options{Auth: people, Ingest: ingest, Metrics: &c.broker, Logger: m.log.With("component", "mqtt")}); err != nil {
		return err
	}
	return m.add(mqtt.Options{Source: core, Dial: m.broker.Dial, Wanted: m.broker.Wanted, Name: cursorEmbedded, Metrics: &c.embedded, Logger: m.log})
}

// connect makes the bridge to a broker elsewhere.
func (m *mqttSide) connect(ctx context.Context, s *serveSettings, core *hub.Hub, c *counts) error {
	o := s.mqtt.bridge
	if o.url == "" {
		return m.drop(ctx, core, cursorElsewhere)
	}
	endpoint, err := mqtt.ParseURL(o.url, mqtt.DialOptions{Plaintext: o.plaintext})
	if err != nil {
		return s.from.explain(usagef("--mqtt-bridge: %v (--mqtt-bridge-plaintext allows it)", err))
	}
	password, err := o.password()
	if err != nil {
		return err
	}
	user := o.user
	if user == "" {
		user = endpoint.User
	}
	return m.add(mqtt.Options{
		Source: core, Dial: endpoint.Dial, Name: cursorElsewhere, ClientID: clientID(s.data), User: user, Password: password,
		Ingest: core, Metrics: &c.elsewhere, Logger: m.log,
	})
}

func (m *mqttSide) add(o mqtt.Options) error {
	b, err := mqtt.New(o)
	if err == nil {
		m.bridges = append(m.bridges, b)
	}
	return err
}

// drop lets go of what the log holds for a bridge that is not there. On a full disk the next start does that: the hub gives up
// what it holds for cursors by itself when it needs the room.
func (m *mqttSide) drop(ctx context.Context, core *hub.Hub, cursor string) error {
	err := core.DropCursor(ctx, cursor)
	if errors.Is(err, storage.ErrFull) {
		m.log.Warn("the place of a bridge that is not there cannot be forgotten yet; the next start tries again", "err", err)
		return nil
	}
	return err
}

// clientID is by what a broker elsewhere knows this hub again: it is another one for every data folder, and consists of what
// every broker must take (MQTT 3.1.1 section 3.1.3.1).
func clientID(dir string) string {
	host, _ := os.Hostname() // without it the folder must do
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	sum := sha256.Sum256([]byte(host + "\x00" + dir))
	return "hub" + hex.EncodeToString(sum[:8])
}

// run serves MQTT until ctx ends. What a broker elsewhere does is no error.
func (m *mqttSide) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if m.broker != nil {
		g.Go(func() error { return m.broker.Run(ctx, m.listeners...) })
	}
	for _, b := range m.bridges {
		g.Go(func() error {
			err := b.Run(ctx)
			if errors.Is(err, storage.ErrReadOnly) {
				m.log.Error("MQTT stops: what was published cannot be remembered any more", "err", err)
				return nil
			}
			return err
		})
	}
	return g.Wait()
}

// outboxBytes returns how much of the log is kept for the bridges.
func (s *serveSettings) outboxBytes() int64 {
	const most, share = 1 << 30, 10
	if s.mqtt.outbox != 0 {
		return s.mqtt.outbox
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(s.data, &disk); err != nil {
		return most
	}
	return max(1<<20, min(most, int64(disk.Blocks)*int64(disk.Bsize)/share))
}
