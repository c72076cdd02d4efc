package cmd_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub/live"
)

// metronome is a device that sends batch after batch at its pace, one reading each whose value is the number of the batch, or
// with bulk many texts. It goes on after the last ack when the hub comes back.
type metronome struct {
	id, token, url string
	every          time.Duration
	bulk           bool
	index          *wire.Index

	mu    sync.Mutex // guards the fields below
	sent  uint64
	acked uint64
	at    [4096]time.Time // when batches were sent, by number
	took  []time.Duration // from sending to the ack
}

func newMetronome(t *testing.T, s *server, id string, every time.Duration, bulk bool) *metronome {
	t.Helper()
	m := device.NewMetric("n")
	m.Alias = 1
	if bulk {
		m.Kind = device.Text
	}
	x, err := wire.NewIndex(&device.Schema{ID: "metronome", Metrics: []device.Metric{m}})
	if err != nil {
		t.Fatal(err)
	}
	return &metronome{id: id, token: s.add(id), url: "ws://" + s.addr + "/device/v1", every: every, bulk: bulk, index: x}
}

// run sends until ctx ends, and then until everything is acked.
func (m *metronome) run(ctx context.Context) {
	for {
		if err := m.session(ctx); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond) // back-off of a device
	}
}

// metronomeSocket is one connection.
type metronomeSocket struct {
	gws.BuiltinEventHandler
	m       *metronome
	welcome chan uint64 // up to where the hub has everything
	acks    chan struct{}
	gone    chan struct{}
}

func (s *metronomeSocket) OnClose(*gws.Conn, error) { close(s.gone) }

func (s *metronomeSocket) OnMessage(c *gws.Conn, msg *gws.Message) {
	defer msg.Close()
	switch t, err := wire.Peek(wire.CBOR, msg.Bytes()); {
	case err != nil:
		panic(err) // the hub sent what is not CBOR
	case t == wire.TypeWelcome:
		w, err := wire.DecodeWelcome(wire.CBOR, msg.Bytes())
		if err != nil {
			panic(err)
		}
		if w.Schema == wire.SchemaNeed {
			_ = c.WriteMessage(gws.OpcodeBinary, wire.AppendBirth(nil, wire.CBOR, s.m.index.Schema())) // OnClose tells
		}
		s.m.ack(w.Ack, false)
		s.welcome <- w.Ack
	case t == wire.TypeAck:
		a, err := wire.DecodeAck(wire.CBOR, msg.Bytes())
		if err != nil {
			panic(err)
		}
		s.m.ack(a.Seq, true)
		select {
		case s.acks <- struct{}{}:
		default:
		}
	}
}

func (m *metronome) ack(seq uint64, timed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := m.acked + 1; timed && n <= seq; n++ {
		m.took = append(m.took, time.Since(m.at[n%uint64(len(m.at))]))
	}
	m.acked = max(m.acked, seq)
}

func (m *metronome) session(ctx context.Context) error {
	s := &metronomeSocket{m: m, welcome: make(chan uint64, 1), acks: make(chan struct{}, 1), gone: make(chan struct{})}
	c, _, err := gws.NewClient(s, &gws.ClientOption{
		Addr: m.url, HandshakeTimeout: 2 * time.Second,
		RequestHeader: http.Header{"Authorization": {"Bearer " + m.token}, "Sec-Websocket-Protocol": {wire.SubprotocolCBOR}},
	})
	if err != nil {
		return err
	}
	go c.ReadLoop()
	defer func() {
		_ = c.NetConn().Close() // the device goes away
		<-s.gone
	}()
	m.mu.Lock()
	next, have := m.sent+1, m.acked+1
	m.mu.Unlock()
	hello := wire.Hello{Stream: "metronome", Next: next, Have: have, Schema: "metronome", Clock: device.ClockNTP}
	if err := c.WriteMessage(gws.OpcodeBinary, wire.AppendHello(nil, wire.CBOR, &hello)); err != nil {
		return err
	}
	select {
	case next = <-s.welcome:
	case <-s.gone:
		return errors.New("closed before the welcome")
	}
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	for {
		m.mu.Lock()
		behind, full, done := next < m.sent, next-m.acked >= oracleWindow, m.acked == m.sent
		m.mu.Unlock()
		switch {
		case ctx.Err() != nil && done:
			return nil
		case full, ctx.Err() != nil && !behind:
			select {
			case <-s.acks:
				continue
			case <-s.gone:
				return errors.New("closed")
			}
		case !behind:
			select {
			case <-tick.C:
			case <-ctx.Done():
				continue
			case <-s.gone:
				return errors.New("closed")
			}
		}
		next++
		if err := m.send(c, next); err != nil {
			return err
		}
	}
}

func (m *metronome) send(c *gws.Conn, seq uint64) error {
	b := device.Batch{Seq: seq, BaseMS: oracleTime(seq, 0)}
	row := device.Row{Ref: device.SingleRef(0), TimeMS: b.BaseMS, Values: []device.Value{device.NumberValue(float64(seq))}}
	if m.bulk {
		row.Values[0] = device.TextValue(strings.Repeat("x", 1000))
		b.Rows = slices.Repeat([]device.Row{row}, 39)
	}
	b.Rows = append(b.Rows, row)
	frame, err := wire.AppendData(nil, wire.CBOR, m.index, &b, 0)
	if err != nil {
		panic(err)
	}
	m.mu.Lock()
	m.sent = max(m.sent, seq)
	m.at[seq%uint64(len(m.at))] = time.Now()
	m.mu.Unlock()
	return c.WriteMessage(gws.OpcodeBinary, frame)
}

// acks returns how many batches were acked since the last call, and how long 99 % of them took at most.
func (m *metronome) acks() (n int, p99 time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	took := m.took
	m.took = nil
	if len(took) == 0 {
		return 0, 0
	}
	slices.Sort(took)
	return len(took), took[len(took)*99/100]
}

// witness follows one device in mode all and fails if any reading is missing, comes twice or out of order.
type witness struct {
	over live.Transport
	last atomic.Uint64 // up to here everything has come
	err  atomic.Pointer[error]
}

func (w *witness) run(ctx context.Context, o live.Options, following *sync.WaitGroup) {
	began := sync.OnceFunc(following.Done)
	defer began()
	err := live.Follow(ctx, o, func(f live.Frame) error {
		switch f := f.(type) {
		case *live.Snapshot:
			if !f.More {
				began()
			}
		case *live.Reset:
			return fmt.Errorf("reset after %d: %s", w.last.Load(), f.Reason)
		case *live.Readings:
			for _, r := range f.Readings {
				if n := uint64(r.Value.Float()); n != w.last.Load()+1 {
					return fmt.Errorf("reading %d after %d", n, w.last.Load())
				}
				w.last.Add(1)
			}
		}
		return nil
	})
	if ctx.Err() == nil {
		err = fmt.Errorf("%s: %w", w.over, err)
		w.err.Store(&err)
	}
}

// startWitnesses returns when all of them follow.
func startWitnesses(t *testing.T, s *server, token, id string, n int, over ...live.Transport) []*witness {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running, following sync.WaitGroup
	list := make([]*witness, n)
	following.Add(n)
	for i := range list {
		w := &witness{over: over[i%len(over)]}
		list[i] = w
		o := live.Options{
			URL: "http://" + s.addr, Token: token, Devices: []string{id}, Mode: live.All, Transports: []live.Transport{w.over},
			MinRetry: 200 * time.Millisecond, MaxRetry: 2 * time.Second,
		}
		running.Go(func() { w.run(ctx, o, &following) })
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	following.Wait()
	return list
}

// waitFor returns when all witnesses have everything up to n.
func waitFor(t *testing.T, list []*witness, n uint64, within time.Duration) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(within)
	for _, w := range list {
		for w.last.Load() < n {
			if err := w.err.Load(); err != nil {
				t.Fatal(*err)
			}
			select {
			case <-tick.C:
			case <-timeout:
				t.Fatalf("a viewer over %s has %d readings of %d after %v", w.over, w.last.Load(), n, within)
			}
		}
	}
}

// watching is a viewer that costs little.
type watching struct {
	conn net.Conn
	in   *bufio.Reader
	last atomic.Uint64
}

// watch opens a WebSocket and returns once the snapshot is there. A small buffer fills soon if nobody reads.
func watch(t *testing.T, s *server, token, pattern string, buffer int) *watching {
	t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).SetReadBuffer(buffer); err != nil {
		t.Fatal(err)
	}
	w := &watching{conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}
	fmt.Fprintf(conn, "GET /api/v1/live HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer %s\r\n\r\n", s.addr, token)
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("the upgrade: %v %v", resp, err)
	}
	text := fmt.Sprintf(`{"subscribe":{"devices":[%q],"mode":"all"}}`, pattern)
	if _, err := conn.Write(append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := w.next()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(frame, []byte(`"type":"snapshot"`)) {
			return w
		}
	}
}

// next returns the next frame of the server (RFC 6455 section 5.2).
func (w *watching) next() ([]byte, error) {
	var head [8]byte
	if _, err := io.ReadFull(w.in, head[:2]); err != nil {
		return nil, err
	}
	op, n := head[0]&0x0f, uint64(head[1])
	for code, size := range map[uint64]int{126: 2, 127: 8} {
		if n == code {
			if _, err := io.ReadFull(w.in, head[8-size:]); err != nil {
				return nil, err
			}
			clear(head[:8-size])
			n = binary.BigEndian.Uint64(head[:])
			break
		}
	}
	frame := make([]byte, n)
	_, err := io.ReadFull(w.in, frame)
	if op == 0x8 && err == nil {
		err = fmt.Errorf("closed: %q", frame)
	}
	return frame, err
}

// count looks at the readings of load-0, which stand for those of all.
func (w *watching) count() error {
	mark := []byte(`["load-0","n",`)
	for {
		frame, err := w.next()
		if err != nil {
			return err
		}
		for at := bytes.Index(frame, mark); at >= 0; at = bytes.Index(frame, mark) {
			frame = frame[at+len(mark):]
			_, value, _ := bytes.Cut(frame, []byte{','})
			value, _, _ = bytes.Cut(value, []byte{']'})
			n, err := strconv.ParseUint(string(value), 10, 64)
			if last := w.last.Load(); err != nil || last > 0 && n != last+1 {
				return fmt.Errorf("reading %q after %d", value, last)
			}
			w.last.Store(n)
		}
	}
}

// peakMiB is the most memory that the process has had in RAM.
func (s *server) peakMiB() int {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kb, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return kb / 1024
}

// cutViewers returns how many viewers over WebSocket are gone without a closing handshake, as those whom the hub cuts.
func (s *server) cutViewers() string {
	s.t.Helper()
	resp, err := http.Get("http://" + s.addr + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), `hub_sockets_closed_total{code="1006",socket="viewer"} `)
	n, _, _ := strings.Cut(rest, "\n")
	return n
}

// checkPeak checks the bound on the memory of a hub with so many viewers, whatever they do: 64 MiB, and 160 KiB for each.
func (s *server) checkPeak(viewers int) {
	s.t.Helper()
	if peak, most := s.peakMiB(), 64+160*viewers/1024; peak > most {
		s.t.Errorf("the hub took %d MiB, more than %d", peak, most)
	}
}

// ackRate is how ingestion is doing.
type ackRate struct {
	rate float64
	p99  time.Duration
}

func (a ackRate) String() string {
	return fmt.Sprintf("%.0f, %v", a.rate, a.p99.Round(100*time.Microsecond))
}

func measureAcks(load []*metronome, span time.Duration) (sum ackRate) {
	for _, m := range load {
		m.acks()
	}
	<-time.After(span)
	for _, m := range load {
		n, p99 := m.acks()
		sum.rate += float64(n) / span.Seconds()
		sum.p99 = max(sum.p99, p99)
	}
	return sum
}

// TestViewersDoNotSlowIngestion has many viewers of every reading, and one that stops reading. Its socket fills in seconds: a
// device of its own sends it 2 MB/s.
func TestViewersDoNotSlowIngestion(t *testing.T) {
	many, devices, pace, span := rounds(40, 500), rounds(2, 10), 10*time.Millisecond, time.Duration(rounds(2, 15))*time.Second
	s := newServer(t)
	token := s.token("viewer")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	bulk := newMetronome(t, s, "bulk", 20*time.Millisecond, true)
	load := []*metronome{bulk}
	for i := range devices {
		load = append(load, newMetronome(t, s, fmt.Sprintf("load-%d", i), pace, false))
	}
	witnesses := startWitnesses(t, s, token, "load-0", 3, live.WebSocket, live.Events, live.LongPoll)
	for _, m := range load {
		sending.Go(func() { m.run(ctx) })
	}
	alone := measureAcks(load[1:], span)

	stuck := watch(t, s, token, "*", 4<<10)
	defer stuck.conn.Close()
	list, ended := make([]*watching, many), make(chan error, many)
	var counting sync.WaitGroup
	for i := range list {
		list[i] = watch(t, s, token, "load-*", 64<<10)
		counting.Go(func() { ended <- list[i].count() })
	}
	defer counting.Wait()
	defer func() {
		for _, w := range list {
			_ = w.conn.Close() // ends count
		}
	}()
	watched := measureAcks(load[1:], span)
	t.Logf("acks/s and p99: %v alone, %v with %d viewers; the hub took %d MiB at most", alone, watched, many, s.peakMiB())
	if os.Getenv("TORTURE") != "" && watched.rate < 0.9*alone.rate {
		t.Errorf("%.0f acks/s with viewers, %.0f without", watched.rate, alone.rate)
	}

	if os.Getenv("TORTURE") != "" {
		if n := s.cutViewers(); n != "1" {
			t.Errorf("%s viewers were cut, want the one that does not read", n)
		}
	}

	cancel()
	sending.Wait()
	for _, m := range load {
		if m.acked != m.sent {
			t.Errorf("%s: %d batches of %d were acked", m.id, m.acked, m.sent)
		}
	}
	waitFor(t, witnesses, load[1].sent, patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for i, w := range list {
		for w.last.Load() < load[1].sent {
			select {
			case <-tick.C:
			case err := <-ended:
				t.Fatalf("a viewer ended: %v", err)
			case <-timeout:
				t.Fatalf("viewer %d has readings up to %d of %d", i, w.last.Load(), load[1].sent)
			}
		}
	}
	s.checkPeak(many)
}

// TestAllComeBackAtOnceAfterAKill kills a hub with many viewers, who all come back within seconds.
func TestAllComeBackAtOnceAfterAKill(t *testing.T) {
	many, kills := rounds(60, 1000), rounds(1, 3)
	s := newServer(t)
	token := s.token("viewer")
	ctx, cancel := context.WithCancel(context.Background())
	m := newMetronome(t, s, "load-0", 20*time.Millisecond, false)
	witnesses := startWitnesses(t, s, token, m.id, many, live.WebSocket, live.Events, live.LongPoll)
	var sending sync.WaitGroup
	defer sending.Wait()
	defer cancel()
	sending.Go(func() { m.run(ctx) })
	for range kills {
		<-time.After(500 * time.Millisecond)
		s.kill()
		s.start()
		began := time.Now()
		m.mu.Lock()
		target := m.sent + 50
		m.mu.Unlock()
		waitFor(t, witnesses, target, patience)
		n, p99 := m.acks()
		t.Logf("%d viewers have everything %v after the start; %d acks meanwhile, 99 %% within %v; the hub took %d MiB at most", many,
			time.Since(began).Round(time.Millisecond), n, p99, s.peakMiB())
	}
	s.checkPeak(many)
	cancel()
	sending.Wait()
	waitFor(t, witnesses, m.sent, patience)
	if m.acked != m.sent {
		t.Errorf("%d batches of %d were acked", m.acked, m.sent)
	}
}
