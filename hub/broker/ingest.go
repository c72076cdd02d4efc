package broker

import (
	"context"
	"errors"
	"strings"

	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

// ingests reports whether what the client publishes are readings.
func (g grant) ingests() bool { return !g.local && g.id.Kind == access.KindDevice }

// errBelow is the answer to readings on a topic below ingest/<device>.
var errBelow = &hub.BadInput{Text: "nothing is defined below ingest/<device>: publish to that topic itself"}

// store hands readings to Ingest. It returns nil if they are on disk or can never be taken, so that the device need not
// keep them.
func (b *Broker) store(ctx context.Context, c *conn, topic string, payload []byte) error {
	var err error = errBelow
	if strings.Count(topic, "/") == 1 {
		err = b.Ingest(ctx, c.grant.id.Device, payload)
	}
	var bad *hub.BadInput
	switch {
	case err == nil:
		b.Metrics.Ingested.Add(1)
		return nil
	case errors.As(err, &bad):
		b.Metrics.IngestBad.Add(1)
		b.limited.info("readings over MQTT cannot be taken", "device", c.grant.id.Device, "bytes", len(payload), "code", bad.Code)
		return nil
	}
	b.Metrics.IngestFailed.Add(1)
	b.limited.info("readings over MQTT could not be stored; the device is to send them again", "device", c.grant.id.Device, "err", err)
	return err
}
