package mqtt

import (
	"context"
	"errors"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"golang.org/x/sync/errgroup"

	"telemetryhub/device"
	"telemetryhub/hub"
	"telemetryhub/storage"
)

const (
	keepAlive = 30 * time.Second
	// publishTimeout is how long paho may take to pass on a message. It never waits for the network, so this is over only when
	// paho has stopped and not said so yet.
	publishTimeout = time.Second
	// commitInterval is how often the cursor's place is written to the disk.
	commitInterval = time.Second
	// idleSkip is how often the bridge passes over what nobody wants, and idleCommit how often that is written to the disk.
	idleSkip   = time.Second
	idleCommit = time.Minute
	// connectionLost is a kind of failure.
	connectionLost = "the connection was lost"
	// goodbye is how long the last words may take.
	goodbye = 2 * time.Second
)

// session is one connection to the broker, with a paho client of its own.
type session struct {
	o      *Options
	cursor *hub.Cursor
	window *window
	topics *topics
	client paho.Client
	conn   *conn
	lost   chan error // has room for one: what paho says when the connection is lost
	in     *inbound   // nil if the bridge only publishes
	acked  atomic.Uint64
	skips  time.Time // from then on what nobody wants is passed over
	full   bool      // it has been said that the cursor cannot be committed
}

func newSession(o *Options, c *hub.Cursor) *session {
	s := &session{o: o, cursor: c, window: newWindow(o.Window, o.WindowBytes), topics: newTopics(o.Prefix), lost: make(chan error, 1)}
	if o.Ingest != nil {
		s.in = newInbound(o, func(err error) { _ = s.conn.fail(err) })
	}
	return s
}

// connect makes the connection. After an error nothing is left of it.
func (s *session) connect(ctx context.Context) error {
	dial, cancel := context.WithTimeout(ctx, dialTimeout)
	raw, err := s.o.Dial(dial)
	cancel()
	if err != nil {
		return failed("it cannot be reached", err)
	}
	s.conn = guard(raw, s.in != nil, func() {
		s.o.Metrics.Refused.Add(1)
		s.o.Logger.Warn("a message from the broker is too large for the hub", "limit_bytes", maxPacket)
	})
	defer s.conn.cutWith(ctx)()
	s.client = paho.NewClient(s.options())
	t := s.client.Connect()
	<-t.Done() // the deadline of paho's handshake bounds it
	if err := t.Error(); err != nil {
		if why := s.conn.failed(); why != nil {
			err = why // paho's own text would say less
		}
		_ = s.conn.Close() // there is nothing more to write
		return failed("it does not accept the connection", err)
	}
	return nil
}

// options are those of paho. Whatever it would do after a lost connection is turned off.
func (s *session) options() *paho.ClientOptions {
	opts := paho.NewClientOptions()
	opts.AddBroker("tcp://broker") // never dialed
	opts.SetCustomOpenConnectionFn(func(_ *url.URL, _ paho.ClientOptions) (net.Conn, error) { return s.conn, nil })
	opts.SetProtocolVersion(4) // with none, it would try an older one after a refusal
	opts.SetClientID(s.o.ClientID)
	opts.SetUsername(s.o.User)
	opts.SetPassword(s.o.Password)
	opts.SetCleanSession(s.in == nil) // what is published to ingest/ while the bridge is away is kept for it
	opts.SetStore(paho.NewMemoryStore())
	opts.SetAutoReconnect(false)
	opts.SetConnectRetry(false)
	opts.SetConnectTimeout(dialTimeout)
	opts.SetWriteTimeout(publishTimeout)
	opts.SetKeepAlive(keepAlive)
	opts.SetPingTimeout(10 * time.Second)
	opts.SetOrderMatters(true)
	opts.SetAutoAckDisabled(true)
	opts.SetWill(s.o.hubTopic(), offline, 1, true)
	opts.SetConnectionLostHandler(func(_ paho.Client, err error) { s.lost <- err })
	if s.in != nil { // not a route: messages may come before the subscription
		opts.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { s.in.take(m) })
	}
	return opts
}

// run uses the connection until it fails or ctx ends, and leaves nothing of it.
func (s *session) run(ctx context.Context) error {
	g, work := errgroup.WithContext(ctx)
	if s.in != nil {
		for _, q := range s.in.queues {
			g.Go(func() error { return failed("readings from it cannot be stored", s.in.work(work, q)) })
		}
		g.Go(func() error { return failed("it does not let the bridge subscribe", s.subscribe(work)) })
	}
	g.Go(func() error {
		select {
		case err := <-s.lost:
			s.lost <- err // for close
			return failed(connectionLost, err)
		case <-work.Done():
			return nil
		}
	})
	g.Go(func() error {
		err := s.window.await(work, s.o.AckTimeout, func() { s.o.Metrics.Published.Add(1) },
			func(pos storage.Position) { s.acked.Store(uint64(pos)) })
		if errors.Is(err, errNoAck) {
			return failed("it does not acknowledge", err)
		}
		return failed(connectionLost, err)
	})
	g.Go(func() error { return s.commitLoop(work) })
	g.Go(func() error { return failed("publishing failed", s.publishStates(work)) })
	g.Go(func() error { return failed("publishing failed", s.publishReadings(work)) })
	err := g.Wait()
	if why := s.conn.failed(); why != nil && !fatal(err) { // whoever noticed it first
		err = &failure{connectionLost, why}
	}
	if s.in != nil {
		close(s.in.ended)
	}
	s.close(ctx.Err() != nil && err != nil && errors.Is(err, context.Cause(ctx)))
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return errors.Join(err, s.commit(last))
}

// close ends the client and waits until nothing of it is left.
func (s *session) close(inPeace bool) {
	if inPeace && s.client.IsConnectionOpen() {
		s.client.Publish(s.o.hubTopic(), 1, true, offline).WaitTimeout(goodbye)
		s.client.Disconnect(uint(goodbye.Milliseconds()))
		_ = s.conn.Close() // paho has, unless it was too slow
		return
	}
	_ = s.conn.fail(errors.New("given up"))
	select {
	case <-s.lost: // then everything that paho had started has ended
	case <-time.After(2 * dialTimeout):
		s.o.Logger.Error("the MQTT client has not ended: please report this")
	}
	_ = s.conn.Close() // it has failed
}

func (s *session) subscribe(ctx context.Context) error {
	topic := s.o.ingestTopic("+")
	t := s.client.Subscribe(topic, 1, nil)
	timer := time.NewTimer(s.o.AckTimeout)
	defer timer.Stop()
	select {
	case <-t.Done():
	case <-timer.C:
		return errNoAck
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := t.Error(); err != nil {
		return err
	}
	if st, ok := t.(*paho.SubscribeToken); ok && st.Result()[topic] == 0x80 {
		return errors.New("the broker refuses " + topic + ": let its user " + s.o.User + " read that")
	}
	return nil
}

// publish sends a message when there is room for it under way.
func (s *session) publish(ctx context.Context, topic string, retain bool, payload []byte) (flight, error) {
	size := len(topic) + len(payload)
	if err := s.window.enter(ctx, size); err != nil {
		return flight{}, err
	}
	return flight{token: s.client.Publish(topic, 1, retain, payload), size: size, sent: time.Now()}, nil
}

// publishState is publish for a topic named status.
func (s *session) publishState(ctx context.Context, topic, payload string) error {
	f, err := s.publish(ctx, topic, true, []byte(payload))
	if err != nil {
		return err
	}
	return s.window.add(ctx, f)
}

// publishReadings publishes what the cursor has until ctx ends.
func (s *session) publishReadings(ctx context.Context) error {
	var batch []hub.Delivery
	var buf []byte // of payloads, which paho keeps until they are acknowledged: so it is never used again
	for {
		if err := s.awaitWanted(ctx); err != nil {
			return err
		}
		var last flight // of the batch, which waits for the batch's position
		var err error
		var pos storage.Position
		batch, pos, err = s.cursor.Next(ctx, batch[:0])
		if err != nil {
			return err
		}
		for i := range batch {
			topic := s.topic(&batch[i])
			if topic == "" {
				continue
			}
			if last.token != nil {
				if err := s.window.add(ctx, last); err != nil {
					return err
				}
			}
			if cap(buf)-len(buf) < 256 {
				buf = make([]byte, 0, 16<<10)
			}
			start := len(buf)
			buf = appendReading(buf, &batch[i])
			if last, err = s.publish(ctx, topic, s.o.Retain, buf[start:len(buf):len(buf)]); err != nil {
				return err
			}
		}
		last.pos = pos
		if err := s.window.add(ctx, last); err != nil {
			return err
		}
	}
}

// awaitWanted returns when somebody gets what is published. What arrives until then is passed over, but for the last second: it
// may have come after whoever it is was told that they get everything.
func (s *session) awaitWanted(ctx context.Context) error {
	if s.o.Wanted == nil || s.o.Retain {
		return nil
	}
	var noted time.Time
	for {
		end := s.cursor.End() // before it asks: what comes later is for whoever comes then
		wanted, changed := s.o.Wanted()
		if wanted {
			return nil
		}
		pause := time.Until(s.skips)
		if pause <= 0 {
			pause = idleSkip
			pos := s.cursor.Skip(end)
			if time.Since(noted) > idleCommit {
				noted = time.Now()
				if err := s.window.add(ctx, flight{pos: pos}); err != nil {
					return err
				}
			}
		}
		select {
		case <-changed:
			return nil
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// topic returns where to publish a reading, "" if nowhere.
func (s *session) topic(d *hub.Delivery) string {
	if d.ArrivalMS-d.TimeMS > maxOldMS {
		s.o.Metrics.Old.Add(1)
		return ""
	}
	topic := s.topics.of(d)
	if topic == "" {
		s.o.Metrics.Unnamed.Add(1)
	}
	return topic
}

// publishStates publishes who is there: first that of everybody, since what the broker keeps may be of another time, then what
// changes.
func (s *session) publishStates(ctx context.Context) error {
	if err := s.publishState(ctx, s.o.hubTopic(), online); err != nil {
		return err
	}
	told := map[device.ID]string{}
	return s.o.Source.WatchPresence(ctx, func(c hub.PresenceChange) error {
		now := status(c)
		if last, ok := told[c.Device]; ok && last == now {
			return nil
		}
		told[c.Device] = now
		return s.publishState(ctx, s.o.statusTopic(c.Device), now)
	})
}

// commitLoop commits the cursor now and then. It returns an error that will not pass.
func (s *session) commitLoop(ctx context.Context) error {
	tick := time.NewTicker(commitInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := s.commit(ctx); err != nil {
				return err
			}
		}
	}
}

// commit makes durable what the broker has acknowledged. If that cannot be done now it is done later: until then it would come
// twice after a crash.
func (s *session) commit(ctx context.Context) error {
	pos := storage.Position(s.acked.Load())
	if pos == 0 {
		return nil
	}
	err := s.cursor.Commit(ctx, pos)
	if err == nil || fatal(err) {
		s.full = false
		return err
	}
	if !s.full && ctx.Err() == nil {
		s.full = true
		s.o.Logger.Warn("the place of the bridge in the log cannot be saved yet", "err", err)
	}
	return nil
}
