package mqtt

import (
	"encoding/json"
	"math"
	"strconv"

	"telemetryhub/device"
	"telemetryhub/hub"
)

// maxOldMS is how old a reading may be on arrival to be published.
const maxOldMS = 60_000

// maxTopics bounds how many topics are remembered.
const maxTopics = 1 << 16

// topics makes topics and remembers them. It is not safe for concurrent use.
type topics struct {
	prefix string
	known  map[topicKey]string // "" for a metric whose name cannot stand in a topic
}

type topicKey struct {
	device device.ID
	metric *device.Metric
}

func newTopics(prefix string) *topics {
	return &topics{prefix: prefix, known: map[topicKey]string{}}
}

// of returns the topic of a reading, "" if there is none. Names that the hub takes have no character that means something to
// MQTT, and do not begin with what other topics are called; that is checked once more, because a name that was damaged on its
// way here could make a broker cut the connection again and again.
func (t *topics) of(d *hub.Delivery) string {
	key := topicKey{d.Device, d.Metric}
	topic, ok := t.known[key]
	if !ok {
		if device.CheckName(d.Metric.Name) == nil {
			topic = t.prefix + "telemetry/" + string(d.Device) + "/" + d.Metric.Name
		}
		if len(t.known) >= maxTopics {
			clear(t.known)
		}
		t.known[key] = topic
	}
	return topic
}

func (o *Options) statusTopic(id device.ID) string {
	return o.Prefix + "telemetry/" + string(id) + "/status"
}

// hubTopic is no device's: their IDs begin with a letter or a digit.
func (o *Options) hubTopic() string { return o.Prefix + "telemetry/_hub/status" }

func (o *Options) ingestTopic(id string) string { return o.Prefix + "ingest/" + id }

// Payloads of the topics named status.
const (
	online  = "online"
	offline = "offline"
)

// status returns the payload for a presence. A device whose readings are overdue is still there.
func status(c hub.PresenceChange) string {
	switch {
	case c.Deleted:
		return "" // an empty retained message removes the one that is kept
	case c.Presence == hub.Live, c.Presence == hub.Stale:
		return online
	}
	return offline
}

// appendReading writes the payload of a reading.
func appendReading(dst []byte, d *hub.Delivery) []byte {
	dst = append(dst, `{"v":`...)
	switch f := d.Value.Float(); d.Value.Type {
	case device.Bool:
		dst = strconv.AppendBool(dst, f != 0)
	case device.String:
		dst = appendString(dst, d.Value.Text())
	default:
		if f == math.Trunc(f) && math.Abs(f) < 1e15 && (f != 0 || !math.Signbit(f)) {
			dst = strconv.AppendInt(dst, int64(f), 10)
		} else {
			dst = strconv.AppendFloat(dst, f, 'g', -1, 64)
		}
	}
	dst = append(dst, `,"t":`...)
	dst = strconv.AppendInt(dst, d.TimeMS, 10)
	if d.Metric.Unit != "" {
		dst = append(dst, `,"u":`...)
		dst = appendString(dst, d.Metric.Unit)
	}
	return append(dst, '}')
}

func appendString(dst []byte, s string) []byte {
	q, _ := json.Marshal(s) // a string always marshals
	return append(dst, q...)
}
