package mqtt_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/mqtt"
	"telemetryhub/storage"
)

func TestReadingsArePublished(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	r.add("a")
	r.ingest("a", `{"early":1}`) // before there was a bridge
	r.bridge(b.dial)
	now := time.Now().UnixMilli()
	r.ingest("a", `{"t":%d,"v":{"temperature":21.4}}`, now)
	r.ingest("a", `{"t":%d,"v":{"old":1}}`, now-61_000)
	r.ingest("a", `{"t":%d,"v":{"door":true}}`, now+1)
	r.ingest("a", `{"t":%d,"v":{"room/text":"say \"hi\""}}`, now+2)
	r.ingest("a", `[{"n":"p","u":"hPa","v":1013,"t":%d}]`, now/1000)
	want := []string{
		fmt.Sprintf(`telemetry/a/temperature {"v":21.4,"t":%d}`, now),
		fmt.Sprintf(`telemetry/a/door {"v":true,"t":%d}`, now+1),
		fmt.Sprintf(`telemetry/a/room/text {"v":"say \"hi\"","t":%d}`, now+2),
		fmt.Sprintf(`telemetry/a/p {"v":1013,"t":%d,"u":"hPa"}`, now/1000*1000),
	}
	r.until("all are published", func() bool { return len(b.readings()) >= len(want) })
	if got := b.readings(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if n := r.metrics.Old.Load(); n != 1 {
		t.Errorf("%d readings were too old, want 1", n)
	}
	if p := b.kept("telemetry/a/temperature"); p != "" {
		t.Errorf("%s is retained", p)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if st := r.hub.Status(); st.Cursors[0].Position != st.Durable {
		t.Errorf("committed up to %d of %d", st.Cursors[0].Position, st.Durable)
	}
}

// TestOutageLosesNothing is case M1.
func TestOutageLosesNothing(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	devices := []device.ID{"a", "b", "c"}
	r.add(devices...)
	r.bridge(b.dial)
	const rounds = 180
	for i := 1; i <= rounds; i++ {
		switch i {
		case rounds / 3:
			b.stop()
		case rounds / 2:
			b.start()
		case rounds * 2 / 3: // with messages under way
			b.stop()
			b.start()
		}
		for _, id := range devices {
			r.ingest(id, `{"n":%d}`, i)
		}
	}
	var last map[string]int
	r.until("everything is published", func() bool {
		last, _ = oracle(t, b.readings())
		return last["telemetry/a/n"] == rounds && last["telemetry/b/n"] == rounds && last["telemetry/c/n"] == rounds
	})
}

// TestWhatWasNotAcknowledgedComesAgain is case M2: the hub dies with messages under way.
func TestWhatWasNotAcknowledgedComesAgain(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	r.add("a")
	var acks atomic.Int64
	b.publish = func(_ *link, p *packets.PublishPacket) bool {
		return strings.HasSuffix(p.TopicName, "/status") || acks.Add(1) <= 100
	}
	r.bridge(b.dial)
	for i := 1; i <= 600; i++ {
		r.ingest("a", `{"n":%d}`, i)
	}
	r.until("the window is full", func() bool { return len(b.readings()) > 500 })
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	committed := r.hub.Status().Cursors[0]
	if err := r.stopHub(); err != nil {
		t.Fatal(err)
	}
	if committed.LagGroups != 500 {
		t.Errorf("%d of 500 are not committed", committed.LagGroups)
	}
	acks.Store(-1 << 32)
	r.startHub()
	r.bridge(b.dial)
	r.until("the rest is published", func() bool { last, _ := oracle(t, b.readings()); return last["telemetry/a/n"] == 600 })
	r.until("and acknowledged", func() bool { return r.metrics.Published.Load() >= 600 })
	if n := len(b.readings()); n > 100+500+512 {
		t.Errorf("%d readings came, more than the window again", n)
	}
}

// TestWindowIsBounded is case M4.
func TestWindowIsBounded(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	r.add("a")
	b.publish = func(_ *link, p *packets.PublishPacket) bool { return strings.HasSuffix(p.TopicName, "/status") }
	r.bridge(b.dial, func(o *mqtt.Options) { o.Window, o.WindowBytes = 100, 2000 })
	for i := 1; i <= 300; i++ {
		r.ingest("a", `{"n":%d}`, i)
	}
	r.until("it is full", func() bool { return len(b.readings()) >= 40 })
	time.AfterFunc(50*time.Millisecond, b.stop)
	r.until("the connection ends", func() bool { return r.metrics.Failures.Load() > 0 })
	if n := len(b.readings()); n > 70 { // of at least 30 bytes
		t.Errorf("%d messages were under way", n)
	}
}

// TestBrokersThatDoNotWork is case M3 and M5: whatever a broker does, the bridge tries again later, the hub does not mind, and
// when the broker has come to its senses everything arrives.
func TestBrokersThatDoNotWork(t *testing.T) {
	t.Parallel()
	publish := func(topic string, payload int) []byte { // with QoS 1 and number 7
		n := 2 + len(topic) + 2 + payload
		p := []byte{publishHead | 2, byte(n)&127 | 128, byte(n>>7)&127 | 128, byte(n>>14)&127 | 128, byte(n >> 21), 0, byte(len(topic))}
		return append(append(p, topic...), 0, 7)
	}
	for name, connect := range map[string]func(l *link) error{
		"closes at once":      func(*link) error { return io.EOF },
		"accepts and closes":  func(l *link) error { _ = l.accept(); return io.EOF },
		"refuses":             func(l *link) error { return l.raw(0x20, 2, 0, 5) },
		"refuses strangely":   func(l *link) error { return l.raw(0x20, 2, 0, 77) },
		"garbage":             func(l *link) error { return l.flood([]byte("HTTP/1.1 400 Bad Request\r\n")) },
		"garbage later":       func(l *link) error { _ = l.accept(); return l.flood([]byte{0, 1, 2, 3}) },
		"accepts twice":       func(l *link) error { _ = l.accept(); return l.accept() },
		"256 MB at once":      func(l *link) error { return l.raw(0x20, 0xff, 0xff, 0xff, 0x7f) },
		"256 MB later":        func(l *link) error { _ = l.accept(); return l.raw(0x90, 0xff, 0xff, 0xff, 0x7f, 0, 1) },
		"endless length":      func(l *link) error { _ = l.accept(); return l.raw(0x30, 0xff, 0xff, 0xff, 0xff, 0xff) },
		"SUBACK too long":     func(l *link) error { _ = l.accept(); return l.raw(0x90, 6, 0, 1, 1, 1, 1, 1) },
		"SUBACK without code": func(l *link) error { _ = l.accept(); return l.raw(0x90, 2, 0, 1) },
		"UNSUBACK":            func(l *link) error { _ = l.accept(); return l.raw(0xb0, 2, 0, 1) },
		"PUBREC":              func(l *link) error { _ = l.accept(); return l.raw(0x50, 2, 0, 1) },
		"QoS 2":               func(l *link) error { _ = l.accept(); return l.raw(0x34, 5, 0, 1, 'a', 0, 1) },
		"topic too long":      func(l *link) error { _ = l.accept(); return l.raw(0x30, 3, 0, 9, 'a') },
		"huge topic":          func(l *link) error { _ = l.accept(); return l.raw(0x32, 0xff, 0xff, 0x3f, 0xff, 0xff) },
		"half a large one": func(l *link) error {
			_ = l.accept()
			_ = l.raw(publish("ingest/a", 200<<20)...)
			return l.raw(make([]byte, 1000)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, b := newRig(t), newBroker(t)
			r.add("a")
			b.connect = func(l *link) error {
				if l.n > 3 {
					return l.accept()
				}
				if err := connect(l); err != nil {
					return err
				}
				return io.EOF
			}
			r.bridge(b.dial, func(o *mqtt.Options) { o.Ingest = r.hub })
			r.ingest("a", `{"n":1}`)
			r.until("it arrives", func() bool { return len(b.readings()) == 1 })
			if n := b.connections(); n != 4 {
				t.Errorf("%d connections, want 4", n)
			}
		})
	}
}

// publishHead begins a message.
const publishHead = 0x30

// TestBrokersThatSayNothing is the rest of case M3: they do not answer, and the bridge gives them up.
func TestBrokersThatSayNothing(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	r.add("a")
	b.publish = func(l *link, _ *packets.PublishPacket) bool { return l.n > 2 }
	r.bridge(b.dial, func(o *mqtt.Options) { o.AckTimeout = 500 * time.Millisecond })
	r.ingest("a", `{"n":1}`)
	r.until("it is acknowledged", func() bool { return r.metrics.Published.Load() >= 3 })
	if n := r.metrics.Failures.Load(); n != 2 {
		t.Errorf("%d failures, want 2", n)
	}
	if last, _ := oracle(t, b.readings()); last["telemetry/a/n"] != 1 {
		t.Errorf("got %v", last)
	}
}

func TestHandshakeThatIsNotAnsweredEndsWithTheBridge(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	b.connect = func(l *link) error { _, err := l.Read(make([]byte, 1)); return err } // it waits for the other
	r.bridge(b.dial)
	r.until("it connects", func() bool { return b.connections() == 1 })
	began := time.Now()
	if err := r.stop(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("ended with %v after %v", err, time.Since(began))
	}
}

// TestStatesAreCorrectedAtEachConnect is case M14.
func TestStatesAreCorrectedAtEachConnect(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	r.add("a", "b", "gone")
	for _, id := range []string{"a", "b", "gone"} { // of a run before
		b.note("telemetry/"+id+"/status", "online", true)
	}
	if err := r.hub.DeleteDevice(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	want := func(what string, states ...string) {
		t.Helper()
		r.until(what, func() bool {
			return b.kept("telemetry/a/status") == states[0] && b.kept("telemetry/b/status") == states[1] &&
				b.kept("telemetry/gone/status") == "" && b.kept("telemetry/_hub/status") == states[2]
		})
	}
	r.ingest("a", `{"n":1}`)
	r.bridge(b.dial)
	want("at first", "online", "offline", "online")
	r.ingest("b", `{"n":1}`)
	want("b sends", "online", "online", "online")
	b.stop()
	b.note("telemetry/b/status", "offline", true)
	want("the bridge is away", "online", "offline", "offline") // its will
	if err := r.hub.DeleteDevice(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	b.start()
	want("it is back", "", "online", "online")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	want("it has left", "", "online", "offline")
	for _, l := range b.links {
		if c := l.connect; c.WillTopic != "telemetry/_hub/status" || string(c.WillMessage) != "offline" || !c.WillRetain || !c.CleanSession {
			t.Errorf("connects with %v", c)
		}
	}
}

// TestBridgeHearsOnlyWhatItAskedFor is case M6: it subscribes to nothing that it publishes, so that two hubs at one broker cannot
// feed each other either.
func TestBridgeHearsOnlyWhatItAskedFor(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	r.add("a")
	r.bridge(b.dial, func(o *mqtt.Options) { o.Ingest, o.Prefix, o.Retain = r.hub, "home/", true })
	r.until("it connects", func() bool { return b.connections() == 1 })
	if got := <-b.links[0].subs; !slices.Equal(got, []string{"home/ingest/+"}) {
		t.Errorf("subscribes to %q", got)
	}
	r.ingest("a", `{"n":1}`)
	r.until("it publishes", func() bool { return b.kept("home/telemetry/a/n") != "" })
	b.mu.Lock()
	defer b.mu.Unlock()
	for topic := range b.retained {
		if !strings.HasPrefix(topic, "home/telemetry/") {
			t.Errorf("publishes to %s", topic)
		}
	}
	if b.links[0].connect.CleanSession {
		t.Error("what comes while it is away is not kept for it")
	}
}

// taker is an Ingester that fails as it is told.
type taker struct {
	*hub.Hub
	fail atomic.Pointer[error]
}

func (i *taker) Ingest(ctx context.Context, id device.ID, f wire.Format, body []byte) (hub.IngestResult, error) {
	if err := i.fail.Load(); err != nil {
		return hub.IngestResult{}, *err
	}
	return i.Hub.Ingest(ctx, id, f, body)
}

// send sends a message to the bridge; one with QoS 1 has a number.
func (l *link) send(topic, payload string, id uint16, retained bool) error {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID, p.Retain = topic, []byte(payload), 1, id, retained
	return p.Write(l)
}

func TestReadingsFromABrokerAreAcknowledgedOnceStored(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	r.add("a")
	in := &taker{Hub: r.hub}
	full := fmt.Errorf("try later: %w", storage.ErrFull)
	in.fail.Store(&full)
	type ack struct{ link, id int }
	acks := make(chan ack, 100)
	var ready atomic.Pointer[link]
	b.connect = func(l *link) error {
		if err := l.accept(); err != nil {
			return err
		}
		ready.Store(l)
		for { // the whole connection
			p, err := packets.ReadPacket(l)
			if err != nil {
				return err
			}
			if a, ok := p.(*packets.PubackPacket); ok {
				acks <- ack{l.n, int(a.MessageID)}
			} else if b.answer(l, p) != nil {
				return io.EOF
			}
		}
	}
	r.bridge(b.dial, func(o *mqtt.Options) { o.Ingest = in })
	r.until("it connects", func() bool { return ready.Load() != nil })
	first := ready.Load()
	for i, m := range []struct{ topic, payload string }{
		{"ingest/a", `{"n":1}`},
		{"ingest/nobody", `{"n":1}`}, {"ingest/a", `{"n":`}, {"ingest/UPPER", `{}`}, {"other", `{}`},
	} {
		if err := first.send(m.topic, m.payload, uint16(i+1), false); err != nil {
			if i == 0 {
				t.Fatal(err)
			}
			break // the connection is given up already
		}
	}
	r.until("the connection is given up", func() bool { return r.metrics.Failures.Load() > 0 })
	for len(acks) > 0 {
		if a := <-acks; a.id == 1 {
			t.Fatal("a reading that was not stored is acknowledged")
		}
	}
	in.fail.Store(nil)
	var l *link
	r.until("it connects again", func() bool { l = ready.Load(); return l != first && len(l.subs) == 1 })
	messages := []struct {
		topic, payload string
		retained       bool
	}{
		{"ingest/a", `{"n":1}`, false}, // again
		{"ingest/nobody", `{"n":1}`, false},
		{"ingest/a", `{"n":`, false},
		{"ingest/UPPER", `{"n":1}`, false},
		{"other", `{"n":1}`, false},
		{"ingest/a", `{"n":99}`, true},
		{"ingest/a", strings.Repeat(" ", 200<<10), false},
		{"ingest/a", `{"n":2}`, false},
	}
	for i, m := range messages {
		if err := l.send(m.topic, m.payload, uint16(i+1), m.retained); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[int]bool{}
	for len(seen) < len(messages) {
		select {
		case a := <-acks:
			seen[a.id] = seen[a.id] || a.link == l.n
		case <-time.After(10 * time.Second):
			t.Fatalf("acknowledged are %v", seen)
		}
	}
	r.until("they are published", func() bool { last, _ := oracle(t, b.readings()); return last["telemetry/a/n"] == 2 })
	if m := &r.metrics; m.Received.Load() != 2 || m.Refused.Load() < 5 || m.Retained.Load() != 1 {
		t.Errorf("%d received, %d refused, %d retained", m.Received.Load(), m.Refused.Load(), m.Retained.Load())
	}
}

func TestFloodFromABrokerIsTakenInOrder(t *testing.T) {
	t.Parallel()
	r, b := newRig(t), newBroker(t)
	r.add("a")
	const n = 600 // more than wait at a time
	b.connect = func(l *link) error {
		if err := l.accept(); err != nil {
			return err
		}
		go func() {
			for i := 1; i <= n; i++ {
				if l.send("ingest/a", fmt.Sprintf(`{"n":%d}`, i), uint16(i), false) != nil {
					return
				}
			}
		}()
		return nil
	}
	r.bridge(b.dial, func(o *mqtt.Options) { o.Ingest = r.hub })
	r.until("all are stored and published", func() bool { last, _ := oracle(t, b.readings()); return last["telemetry/a/n"] == n })
	if c := b.connections(); c != 1 {
		t.Errorf("%d connections, want 1", c)
	}
}

func TestMemoryStaysFlatWhenABrokerAnnouncesMuch(t *testing.T) {
	r, b := newRig(t), newBroker(t)
	b.connect = func(l *link) error {
		_ = l.accept()
		_ = l.raw(0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, 'a')
		return nil
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r.bridge(b.dial, func(o *mqtt.Options) { o.Ingest = r.hub })
	r.until("it connects", func() bool { return r.metrics.Connected.Load() == 1 })
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 32<<20 {
		t.Errorf("%d MiB were allocated", grown>>20)
	}
}

func TestRunEndsWhenTheCursorCannotBeOpened(t *testing.T) {
	r, b := newRig(t), newBroker(t)
	o := mqtt.Options{Source: r.hub, Dial: b.dial, Name: "not a name"}
	br, err := mqtt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	var bad *hub.BadInput
	if err := br.Run(t.Context()); !errors.As(err, &bad) {
		t.Errorf("got %v, want *hub.BadInput", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	r, b := newRig(t), newBroker(t)
	for name, change := range map[string]func(*mqtt.Options){
		"no source": func(o *mqtt.Options) { o.Source = nil }, "no dial": func(o *mqtt.Options) { o.Dial = nil },
		"no name": func(o *mqtt.Options) { o.Name = "" }, "window": func(o *mqtt.Options) { o.Window = 65_536 },
		"bytes": func(o *mqtt.Options) { o.WindowBytes = 1 << 30 }, "negative": func(o *mqtt.Options) { o.AckTimeout = -1 },
		"retry": func(o *mqtt.Options) { o.Retry, o.RetryMax = 2, 1 }, "user": func(o *mqtt.Options) { o.Password = "x" },
		"wildcard": func(o *mqtt.Options) { o.Prefix = "a/#" }, "NUL": func(o *mqtt.Options) { o.Prefix = "a\x00" }, "$": func(o *mqtt.Options) { o.Prefix = "$SYS/" },
	} {
		o := mqtt.Options{Source: r.hub, Dial: b.dial, Name: "mqtt"}
		change(&o)
		if _, err := mqtt.New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"tcp://127.0.0.1": "127.0.0.1:1883", "mqtt://localhost:1": "localhost:1", "tcp://[::1]": "[::1]:1883",
		"tls://broker.example": "broker.example:8883", "ssl://me@10.0.0.1:99/": "10.0.0.1:99", "mqtts://b": "b:8883",
		"tcp://10.0.0.1": "", "http://b": "", "b:1883": "", "tcp://": "", "tls://u:secret@b": "", "tls://b/topic": "", "tls://b?x=1": "", "tls://b:x": "",
	} {
		e, err := mqtt.ParseURL(raw, mqtt.DialOptions{})
		if e.Address != want || (err != nil) != (want == "") || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %q, %v, want %q", raw, e.Address, err, want)
		}
	}
	if e, err := mqtt.ParseURL("tcp://me@10.0.0.1", mqtt.DialOptions{Plaintext: true}); err != nil || e.User != "me" {
		t.Errorf("plain text by name: %v, %v", e, err)
	}
	secure := httptest.NewTLSServer(nil)
	defer secure.Close()
	config := secure.Client().Transport.(*http.Transport).TLSClientConfig
	for want, o := range map[bool]mqtt.DialOptions{true: {TLS: config}, false: {}} { // the system does not know its certificate
		e, err := mqtt.ParseURL(strings.Replace(secure.URL, "https", "tls", 1), o)
		if err != nil {
			t.Fatal(err)
		}
		c, err := e.Dial(t.Context())
		if (err == nil) != want {
			t.Errorf("over TLS: %v", err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	e, err := mqtt.ParseURL("tcp://"+ln.Addr().String(), mqtt.DialOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := e.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}
