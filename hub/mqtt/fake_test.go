package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"go.uber.org/goleak"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/mqtt"
	"telemetryhub/storage/mem"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// rig is a hub over stores in memory that survive its restarts, and a bridge on it.
type rig struct {
	t       testing.TB
	stores  hub.Stores
	hub     *hub.Hub
	stopHub func() error
	metrics mqtt.Metrics
	stop    func() error // of the bridge
}

func newRig(t testing.TB) *rig {
	r := &rig{t: t, stores: hub.Stores{Log: mem.NewLog(), Chunks: mem.NewChunks(), Catalog: mem.NewCatalog()}}
	r.startHub()
	t.Cleanup(func() {
		if err := r.stopHub(); err != nil {
			t.Errorf("hub: %v", err)
		}
	})
	return r
}

func (r *rig) startHub() {
	r.t.Helper()
	h, err := hub.Open(context.Background(), r.stores, hub.Options{})
	if err != nil {
		r.t.Fatal(err)
	}
	r.hub = h
	r.stopHub = running(h.Run)
}

// running starts run and returns what ends it.
func running(run func(context.Context) error) func() error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	return func() error {
		cancel()
		return <-done
	}
}

// bridge starts a bridge to a broker, and ends it with the test.
func (r *rig) bridge(dial func(context.Context) (net.Conn, error), change ...func(*mqtt.Options)) {
	r.t.Helper()
	o := mqtt.Options{
		Source: r.hub, Dial: dial, Name: "mqtt", Metrics: &r.metrics,
		Retry: 5 * time.Millisecond, RetryMax: 50 * time.Millisecond,
	}
	if os.Getenv("MQTT_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, f := range change {
		f(&o)
	}
	b, err := mqtt.New(o)
	if err != nil {
		r.t.Fatal(err)
	}
	r.stop = sync.OnceValue(running(b.Run))
	r.t.Cleanup(func() {
		if err := r.stop(); err != nil {
			r.t.Errorf("bridge: %v", err)
		}
	})
	r.until("the cursor is there", func() bool { return len(r.hub.Status().Cursors) > 0 })
}

// until polls, since what is waited for is seen only from outside.
func (r *rig) until(what string, true func() bool) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !true(); <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: not in 10 s", what)
		}
	}
}

func (r *rig) add(ids ...device.ID) {
	r.t.Helper()
	for _, id := range ids {
		if _, err := r.hub.AddDevice(context.Background(), id, hub.DeviceAttrs{}); err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) ingest(id device.ID, body string, args ...any) {
	r.t.Helper()
	if _, err := r.hub.Ingest(context.Background(), id, wire.JSON, fmt.Appendf(nil, body, args...)); err != nil {
		r.t.Fatal(err)
	}
}

// broker is a fake: it takes connections, acknowledges what it gets and remembers it.
type broker struct {
	t testing.TB
	// connect answers a CONNECT; nil accepts it. publish says whether a message is acknowledged; nil does always. Both are called
	// by one goroutine for each connection.
	connect func(c *link) error
	publish func(c *link, p *packets.PublishPacket) bool

	mu       sync.Mutex // guards the fields below
	got      []string   // topic and payload, in order
	retained map[string]string
	links    []*link // all there ever were
	open     map[*link]struct{}
	down     bool
	wg       sync.WaitGroup
}

// link is one connection.
type link struct {
	net.Conn
	n       int // counts them, from 1
	connect *packets.ConnectPacket
	subs    chan []string // has room for a few
}

func newBroker(t testing.TB) *broker {
	b := &broker{t: t, retained: map[string]string{}, open: map[*link]struct{}{}}
	t.Cleanup(func() { // after the bridge's, since it was made before
		b.stop()
		b.wg.Wait()
	})
	return b
}

// dial is Options.Dial.
func (b *broker) dial(context.Context) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	l := &link{Conn: far, n: len(b.links) + 1, subs: make(chan []string, 4)}
	b.links = append(b.links, l)
	b.open[l] = struct{}{}
	b.wg.Add(1)
	go func() {
		defer b.wg.Done()
		b.serve(l)
	}()
	return near, nil
}

func (b *broker) stop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = true
	for l := range b.open {
		_ = l.Close()
	}
}

func (b *broker) start() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = false
}

func (b *broker) serve(l *link) {
	defer func() {
		_ = l.Close()
		b.mu.Lock()
		delete(b.open, l)
		b.mu.Unlock()
	}()
	p, err := packets.ReadPacket(l)
	if err != nil {
		return
	}
	l.connect = p.(*packets.ConnectPacket)
	if b.connect != nil {
		if b.connect(l) != nil {
			return
		}
	} else if l.accept() != nil {
		return
	}
	for {
		p, err := packets.ReadPacket(l)
		if err != nil {
			b.will(l)
			return
		}
		if _, over := p.(*packets.DisconnectPacket); over {
			return
		}
		if b.answer(l, p) != nil {
			return
		}
	}
}

func (b *broker) answer(l *link, p packets.ControlPacket) error {
	switch p := p.(type) {
	case *packets.PublishPacket:
		if p.Qos != 1 {
			b.t.Errorf("%s with QoS %d", p.TopicName, p.Qos)
		}
		b.note(p.TopicName, string(p.Payload), p.Retain)
		if b.publish != nil && !b.publish(l, p) {
			return nil
		}
		ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		ack.MessageID = p.MessageID
		return ack.Write(l)
	case *packets.SubscribePacket:
		l.subs <- p.Topics
		ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		ack.MessageID, ack.ReturnCodes = p.MessageID, []byte{1}
		return ack.Write(l)
	case *packets.PingreqPacket:
		return packets.NewControlPacket(packets.Pingresp).Write(l)
	}
	return nil
}

// will does what a broker does when a connection breaks.
func (b *broker) will(l *link) {
	if l.connect.WillFlag {
		b.note(l.connect.WillTopic, string(l.connect.WillMessage), l.connect.WillRetain)
	}
}

func (b *broker) note(topic, payload string, retain bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, topic+" "+payload)
	switch {
	case retain && payload == "":
		delete(b.retained, topic)
	case retain:
		b.retained[topic] = payload
	}
}

// readings returns what came for metrics, in order.
func (b *broker) readings() (list []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.got {
		if topic, _, _ := strings.Cut(m, " "); !strings.HasSuffix(topic, "/status") {
			list = append(list, m)
		}
	}
	return list
}

func (b *broker) kept(topic string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.retained[topic]
}

func (b *broker) connections() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.links)
}

func (l *link) accept() error { return packets.NewControlPacket(packets.Connack).Write(l) }

// raw writes bytes that need not be MQTT.
func (l *link) raw(p ...byte) error {
	_, err := l.Write(p)
	return err
}

// flood writes until the other side has had enough.
func (l *link) flood(p []byte) error {
	for {
		if _, err := l.Write(p); err != nil {
			return io.EOF
		}
	}
}

// oracle checks that readings of metric n count up from 1 for each device, repetitions aside, and returns how far they came.
func oracle(t testing.TB, got []string) (last map[string]int, repeated int) {
	t.Helper()
	last = map[string]int{}
	for _, m := range got {
		var v, ms int
		topic, body, _ := strings.Cut(m, " ")
		if _, err := fmt.Sscanf(body, `{"v":%d,"t":%d}`, &v, &ms); err != nil {
			t.Fatalf("got %s: %v", m, err)
		}
		switch n := last[topic]; {
		case v == n+1:
			last[topic] = v
		case v <= n:
			repeated++
		default:
			t.Fatalf("%s: %d follows %d", topic, v, n)
		}
	}
	return last, repeated
}
