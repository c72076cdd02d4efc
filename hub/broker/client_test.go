package broker_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"telemetryhub/device"
	"telemetryhub/hub/access"
	"telemetryhub/hub/broker"
)

// fakeAuth knows tokens by their text. Its ids are those of access: one credential a token.
type fakeAuth struct {
	mu      sync.Mutex
	ids     map[string]access.Identity
	watches map[string]map[int]func(access.Reason)
	next    int
}

func (a *fakeAuth) Authenticate(token string) (access.Identity, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, ok := a.ids[token]
	if !ok {
		return access.Identity{}, access.ErrUnknownToken
	}
	return id, nil
}

func (a *fakeAuth) Watch(id access.Identity, ended func(access.Reason)) (stop func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watches[id.Credential] == nil {
		a.watches[id.Credential] = map[int]func(access.Reason){}
	}
	n := a.next
	a.next++
	a.watches[id.Credential][n] = ended
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.watches[id.Credential], n)
	}
}

func (a *fakeAuth) end(credential string, why access.Reason) {
	a.mu.Lock()
	var told []func(access.Reason)
	for n, f := range a.watches[credential] {
		told = append(told, f)
		delete(a.watches[credential], n)
	}
	a.mu.Unlock()
	for _, f := range told {
		f(why)
	}
}

func (a *fakeAuth) watching() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, w := range a.watches {
		n += len(w)
	}
	return n
}

// Tokens that newAuth knows.
const (
	tokenPi     = "token-of-pi-1"
	tokenPiToo  = "second-token-of-pi-1"
	tokenPi2    = "token-of-pi-2"
	tokenView   = "token-of-a-viewer"
	tokenView2  = "token-of-another-viewer"
	tokenOp     = "token-of-an-operator"
	tokenScoped = "token-of-an-operator-for-pi-1"
	tokenEnrol  = "token-for-enrolment"
)

func newAuth() *fakeAuth {
	return &fakeAuth{watches: map[string]map[int]func(access.Reason){}, ids: map[string]access.Identity{
		tokenPi:     {Kind: access.KindDevice, Device: "pi-1", Credential: "c1"},
		tokenPiToo:  {Kind: access.KindDevice, Device: "pi-1", Credential: "c1b"},
		tokenPi2:    {Kind: access.KindDevice, Device: "pi-2", Credential: "c2"},
		tokenView:   {Kind: access.KindAPI, Role: access.Viewer, Credential: "c3"},
		tokenView2:  {Kind: access.KindAPI, Role: access.Viewer, Credential: "c4"},
		tokenOp:     {Kind: access.KindAPI, Role: access.Operator, Credential: "c5"},
		tokenScoped: {Kind: access.KindAPI, Role: access.Operator, Credential: "c6", Devices: []string{"pi-1", "room-*"}},
		tokenEnrol:  {Kind: access.KindEnrolment, Credential: "c7"},
	}}
}

// stored is what Ingest was given. fail, if set, decides about it.
type stored struct {
	mu   sync.Mutex
	list []string
	fail func(ctx context.Context, payload string) error
}

func (s *stored) ingest(ctx context.Context, id device.ID, payload []byte) error {
	s.mu.Lock()
	fail := s.fail
	s.mu.Unlock()
	if fail != nil {
		if err := fail(ctx, string(payload)); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, string(id)+" "+string(payload))
	return nil
}

func (s *stored) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.list...)
}

func (s *stored) failWith(f func(context.Context, string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = f
}

// rig is a running broker.
type rig struct {
	*broker.Broker
	auth    *fakeAuth
	stored  *stored
	metrics *broker.Metrics
	dial    func() (net.Conn, error)
	stop    func() error // ends Run and returns what it returned
}

// pipes is a listener in memory, for tests under fake time.
type pipes struct {
	c    chan net.Conn
	done chan struct{}
	once sync.Once
}

func newPipes() *pipes { return &pipes{c: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.c:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes"} }

func (p *pipes) dial() (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.c <- theirs:
		return ours, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// start runs a broker on TCP, or in memory if fake says that the test has fake time.
func start(t *testing.T, fake bool, o broker.Options) *rig {
	t.Helper()
	if fake {
		p := newPipes()
		return startOn(t, p, p.dial, o)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, ln, func() (net.Conn, error) { return net.Dial("tcp", ln.Addr().String()) }, o)
}

func startOn(t *testing.T, ln net.Listener, dial func() (net.Conn, error), o broker.Options) *rig {
	t.Helper()
	r := &rig{auth: newAuth(), stored: new(stored), metrics: new(broker.Metrics), dial: dial}
	if o.Auth == nil {
		o.Auth = r.auth
	}
	if o.Ingest == nil {
		o.Ingest = r.stored.ingest
	}
	o.Metrics = r.metrics
	b, err := broker.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r.Broker = b
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx, ln) }()
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if n := r.auth.watching(); n != 0 {
			t.Errorf("%d identities are still watched", n)
		}
		if n := r.metrics.Panics.Load(); n != 0 {
			t.Errorf("%d panics", n)
		}
		for name, n := range map[string]int64{
			"Open": r.metrics.Open.Load(), "Strangers": r.metrics.Strangers.Load(), "Offline": r.metrics.Offline.Load(),
		} {
			if n != 0 {
				t.Errorf("%s is %d at the end", name, n)
			}
		}
	})
	return r
}

// client speaks MQTT packet by packet.
type client struct {
	t    *testing.T
	c    net.Conn
	r    *bufio.Reader
	v    byte
	wait time.Duration
}

func (r *rig) raw(t *testing.T) *client {
	t.Helper()
	c, err := r.dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &client{t: t, c: c, r: bufio.NewReader(c), v: 4, wait: 5 * time.Second}
}

func (r *rig) local(t *testing.T) *client {
	t.Helper()
	c, err := r.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	x := &client{t: t, c: c, r: bufio.NewReader(c), v: 4, wait: 5 * time.Second}
	x.connect(func(p *packets.Packet) { p.Connect.ClientIdentifier = "bridge" })
	return x
}

// connected returns a client that the broker has let in.
func (r *rig) connected(t *testing.T, version byte, id, token string, change ...func(*packets.Packet)) *client {
	t.Helper()
	x := r.raw(t)
	x.v = version
	if ack := x.connect(append([]func(*packets.Packet){login(id, token)}, change...)...); ack.ReasonCode != 0 {
		t.Fatalf("%s is refused with %#x", id, ack.ReasonCode)
	}
	return x
}

func login(id, token string) func(*packets.Packet) {
	return func(p *packets.Packet) {
		p.Connect.ClientIdentifier = id
		p.Connect.UsernameFlag, p.Connect.Username = true, []byte("somebody")
		p.Connect.PasswordFlag, p.Connect.Password = token != "", []byte(token)
	}
}

func kept(p *packets.Packet) {
	p.Connect.Clean = false
	if p.ProtocolVersion == 5 {
		p.Properties.SessionExpiryInterval, p.Properties.SessionExpiryIntervalFlag = 3600, true
	}
}

func encode(t *testing.T, p *packets.Packet) []byte {
	t.Helper()
	var buf bytes.Buffer
	var err error
	switch p.FixedHeader.Type {
	case packets.Connect:
		err = p.ConnectEncode(&buf)
	case packets.Publish:
		err = p.PublishEncode(&buf)
	case packets.Puback:
		err = p.PubackEncode(&buf)
	case packets.Pubrec:
		err = p.PubrecEncode(&buf)
	case packets.Pubrel:
		err = p.PubrelEncode(&buf)
	case packets.Pubcomp:
		err = p.PubcompEncode(&buf)
	case packets.Subscribe:
		err = p.SubscribeEncode(&buf)
	case packets.Unsubscribe:
		err = p.UnsubscribeEncode(&buf)
	case packets.Pingreq:
		err = p.PingreqEncode(&buf)
	case packets.Disconnect:
		err = p.DisconnectEncode(&buf)
	default:
		t.Fatalf("cannot encode packet type %d", p.FixedHeader.Type)
	}
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (x *client) send(p packets.Packet) {
	x.t.Helper()
	p.ProtocolVersion = x.v
	x.write(encode(x.t, &p))
}

func (x *client) write(b []byte) {
	x.t.Helper()
	_ = x.c.SetWriteDeadline(time.Now().Add(x.wait))
	if _, err := x.c.Write(b); err != nil {
		x.t.Fatalf("write: %v", err)
	}
}

// next returns the next packet, or the error of reading it.
func (x *client) next() (packets.Packet, error) {
	_ = x.c.SetReadDeadline(time.Now().Add(x.wait))
	p := packets.Packet{ProtocolVersion: x.v}
	first, err := x.r.ReadByte()
	if err != nil {
		return p, err
	}
	if err := p.FixedHeader.Decode(first); err != nil {
		return p, err
	}
	n, _, err := packets.DecodeLength(x.r)
	if err != nil {
		return p, err
	}
	p.FixedHeader.Remaining = n
	body := make([]byte, n)
	if _, err := io.ReadFull(x.r, body); err != nil {
		return p, err
	}
	switch p.FixedHeader.Type {
	case packets.Connack:
		err = p.ConnackDecode(body)
	case packets.Publish:
		err = p.PublishDecode(body)
	case packets.Puback, packets.Pubrec, packets.Pubrel, packets.Pubcomp:
		err = p.PubackDecode(body)
	case packets.Suback:
		err = p.SubackDecode(body)
	case packets.Unsuback:
		err = p.UnsubackDecode(body)
	case packets.Disconnect:
		if len(body) > 0 {
			p.ReasonCode = body[0]
		}
	}
	return p, err
}

func (x *client) expect(kind byte) packets.Packet {
	x.t.Helper()
	p, err := x.next()
	if err != nil {
		x.t.Fatalf("want %s, got %v", packets.PacketNames[kind], err)
	}
	if p.FixedHeader.Type != kind {
		x.t.Fatalf("want %s, got %s %q %q code %#x", packets.PacketNames[kind], packets.PacketNames[p.FixedHeader.Type],
			p.TopicName, p.Payload, p.ReasonCode)
	}
	return p
}

// expectEnd wants the connection to end, with a DISCONNECT of the code before if it is not 0.
func (x *client) expectEnd(code byte) {
	x.t.Helper()
	if code != 0 && x.v == 5 {
		if p := x.expect(packets.Disconnect); p.ReasonCode != code {
			x.t.Fatalf("DISCONNECT with %#x, want %#x", p.ReasonCode, code)
		}
	}
	p, err := x.next()
	var timeout net.Error
	if err == nil {
		x.t.Fatalf("want the end, got %s %q %q code %#x", packets.PacketNames[p.FixedHeader.Type], p.TopicName, p.Payload, p.ReasonCode)
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		x.t.Fatal("the connection does not end")
	}
}

func (x *client) connect(change ...func(*packets.Packet)) packets.Packet {
	x.t.Helper()
	p := packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Connect}, ProtocolVersion: x.v,
		Connect: packets.ConnectParams{ProtocolName: []byte("MQTT"), Clean: true, Keepalive: 60},
	}
	for _, f := range change {
		f(&p)
	}
	x.write(encode(x.t, &p))
	return x.expect(packets.Connack)
}

func (x *client) subscribe(qos byte, filters ...string) []byte {
	x.t.Helper()
	p := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, PacketID: 1}
	for _, f := range filters {
		p.Filters = append(p.Filters, packets.Subscription{Filter: f, Qos: qos})
	}
	x.send(p)
	return x.expect(packets.Suback).ReasonCodes
}

func message(topic, payload string, qos byte, id uint16) packets.Packet {
	return packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos}, TopicName: topic, Payload: []byte(payload), PacketID: id,
	}
}

func retainedMessage(topic, payload string) packets.Packet {
	p := message(topic, payload, 0, 0)
	p.FixedHeader.Retain = true
	return p
}

// ping waits until the broker has dealt with all that was sent before.
func (x *client) ping() {
	x.t.Helper()
	x.send(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pingreq}})
	x.expect(packets.Pingresp)
}

func (x *client) expectMessage(topic, payload string) packets.Packet {
	x.t.Helper()
	p := x.expect(packets.Publish)
	if p.TopicName != topic || string(p.Payload) != payload {
		x.t.Fatalf("got %q %q, want %q %q", p.TopicName, p.Payload, topic, payload)
	}
	return p
}
