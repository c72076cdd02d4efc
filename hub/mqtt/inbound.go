package mqtt

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/time/rate"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
)

const (
	// takers is how many messages are stored at a time. Those of one device are stored in order.
	takers = 4
	// waiting is how many messages wait for each taker. While there is no room nothing is read from the broker, not even its
	// answers to pings; so that must not last.
	waiting = 64
	// maxBlocked is how long reading may stand still. It is less than what pings and acknowledgements are given.
	maxBlocked = 15 * time.Second
	// ingestTimeout is how long the hub may take to store one message before it is tried again.
	ingestTimeout = 10 * time.Second
	// maxTries is how often a message is tried before the connection is given up; the broker sends it again on the next one.
	maxTries = 5
)

// inbound takes readings from the broker. A message is acknowledged when it is on disk, or when it never can be.
type inbound struct {
	o       *Options
	seed    maphash.Seed
	queues  [takers]chan paho.Message
	ended   chan struct{} // closed when nothing is taken any more
	blocked func(error)   // gives up the connection
	warn    *rate.Limiter
}

func newInbound(o *Options, blocked func(error)) *inbound {
	in := &inbound{
		o: o, seed: maphash.MakeSeed(), ended: make(chan struct{}), blocked: blocked,
		warn: rate.NewLimiter(rate.Every(10*time.Second), 3),
	}
	for i := range in.queues {
		in.queues[i] = make(chan paho.Message, waiting)
	}
	return in
}

// take is called by paho for one message after the other.
func (in *inbound) take(m paho.Message) {
	if m.Retained() { // it was kept by the broker, who knows since when, and would come again at every connection
		in.o.Metrics.Retained.Add(1)
		m.Ack()
		return
	}
	q := in.queues[maphash.String(in.seed, m.Topic())%takers]
	select {
	case q <- m:
		return
	default:
	}
	t := time.NewTimer(maxBlocked)
	defer t.Stop()
	select {
	case q <- m:
	case <-in.ended:
	case <-t.C:
		in.blocked(errors.New("the hub takes no readings"))
	}
}

// work stores the messages of a queue until ctx ends. It returns an error when one cannot be stored for now.
func (in *inbound) work(ctx context.Context, q <-chan paho.Message) error {
	for {
		select {
		case m := <-q:
			if err := in.store(ctx, m); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (in *inbound) store(ctx context.Context, m paho.Message) error {
	for try := 1; ; try++ {
		err := in.ingest(ctx, m)
		var bad *hub.BadInput
		switch {
		case err == nil:
			in.o.Metrics.Received.Add(1)
			m.Ack()
			return nil
		case errors.As(err, &bad), errors.Is(err, hub.ErrUnknownDevice):
			in.o.Metrics.Refused.Add(1)
			if in.warn.Allow() {
				in.o.Logger.Warn("a message from the broker is refused", "topic", m.Topic(), "err", err)
			}
			m.Ack()
			return nil
		case ctx.Err() != nil:
			return nil
		case try == maxTries:
			return err
		}
		t := time.NewTimer(in.o.Retry)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

func (in *inbound) ingest(ctx context.Context, m paho.Message) error {
	name, ok := strings.CutPrefix(m.Topic(), in.o.ingestTopic(""))
	if !ok {
		return &hub.BadInput{Text: "it is not of the topic that was asked for"}
	}
	id, err := device.ParseID(name)
	if err != nil {
		return &hub.BadInput{Text: fmt.Sprintf("publish to %s: %v", in.o.ingestTopic("<device>"), err)}
	}
	ctx, cancel := context.WithTimeout(ctx, ingestTimeout)
	defer cancel()
	_, err = in.o.Ingest.Ingest(ctx, id, wire.JSON, m.Payload())
	return err
}
