package cmd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/storage"
	"telemetryhub/storage/bolt"
	"telemetryhub/storage/record"
)

// The oracle knows what every device sent and what was acked, without asking the hub. After any fault:
// acked ⊆ stored ⊆ sent, each batch once, in order, equal values.

const (
	oracleStart   = 1_766_000_000_000
	oracleWindow  = 8
	oracleSamples = 3 // of a batch
)

// oracleValue is what batch seq of a device says in sample i: known to the test alone.
func oracleValue(id string, seq uint64, i int) float64 {
	h := fnv.New64a()
	fmt.Fprint(h, id, seq, i)
	return float64(h.Sum64()%2_000_000)/1000 - 1000
}

func oracleTime(seq uint64, i int) int64 { return oracleStart + int64(seq)*10 + int64(i) }

// sensor is a device that sends numbered batches as fast as they are acked, whatever happens to the hub.
type sensor struct {
	id, token, url string
	index          *wire.Index

	mu       sync.Mutex // guards the fields below
	sent     uint64
	acked    uint64
	welcomes int
	stop     bool
	conn     *gws.Conn
}

func oracleSchema(t *testing.T) *wire.Index {
	t.Helper()
	m := device.NewMetric("level")
	m.Alias, m.Exp = 1, -3
	x, err := wire.NewIndex(&device.Schema{ID: "oracle-1", Metrics: []device.Metric{m}})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// run connects again and again until the device is told to stop.
func (d *sensor) run() {
	for !d.stopped() {
		if err := d.session(); err != nil {
			time.Sleep(time.Duration(1+rand.IntN(20)) * time.Millisecond) // back-off of a device, not a test that waits
		}
	}
}

func (d *sensor) stopped() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stop
}

func (d *sensor) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stop = true
	if d.conn != nil {
		_ = d.conn.NetConn().Close() // the device goes away
	}
}

// sensorSocket is one connection of a sensor.
type sensorSocket struct {
	gws.BuiltinEventHandler
	d    *sensor
	next uint64 // first number that this connection has not sent yet
}

func (d *sensor) session() error {
	s := &sensorSocket{d: d}
	c, _, err := gws.NewClient(s, &gws.ClientOption{
		Addr:             d.url,
		RequestHeader:    http.Header{"Authorization": {"Bearer " + d.token}, "Sec-Websocket-Protocol": {wire.SubprotocolCBOR}},
		HandshakeTimeout: 2 * time.Second,
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.conn = c
	acked, stop := d.acked, d.stop
	next := d.sent + 1
	d.mu.Unlock()
	if stop {
		return c.NetConn().Close()
	}
	hello := wire.Hello{Stream: "oracle", Next: next, Have: acked + 1, Schema: "oracle-1", Clock: device.ClockNTP}
	if err := c.WriteMessage(gws.OpcodeBinary, wire.AppendHello(nil, wire.CBOR, &hello)); err != nil {
		return err
	}
	c.ReadLoop()
	return errors.New("connection ended")
}

func (s *sensorSocket) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	frame := m.Bytes()
	t, err := wire.Peek(wire.CBOR, frame)
	switch {
	case err != nil:
		panic(err) // the hub sent what is not CBOR
	case t == wire.TypeWelcome:
		w, err := wire.DecodeWelcome(wire.CBOR, frame)
		if err != nil {
			panic(err)
		}
		if w.Schema == wire.SchemaNeed {
			if c.WriteMessage(gws.OpcodeBinary, wire.AppendBirth(nil, wire.CBOR, s.d.index.Schema())) != nil {
				return
			}
		}
		s.next = w.Ack + 1
		s.d.welcome(w.Ack)
		s.fill(c)
	case t == wire.TypeAck:
		a, err := wire.DecodeAck(wire.CBOR, frame)
		if err != nil {
			panic(err)
		}
		s.d.ack(a.Seq)
		s.fill(c)
	}
}

// welcome is an ack too: of what was stored although the device did not hear it.
func (d *sensor) welcome(ack uint64) {
	d.ack(ack)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.welcomes++
}

func (d *sensor) ack(seq uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if seq > d.sent {
		panic(fmt.Sprintf("%s: %d was acked, but only %d were sent", d.id, seq, d.sent))
	}
	d.acked = max(d.acked, seq)
}

// fill sends again what was not acked, and then new batches, as far as the window goes.
func (s *sensorSocket) fill(c *gws.Conn) {
	d := s.d
	for {
		d.mu.Lock()
		seq := s.next
		ok := !d.stop && seq <= d.acked+oracleWindow
		if ok {
			s.next++
			d.sent = max(d.sent, seq)
		}
		d.mu.Unlock()
		if !ok {
			return
		}
		b := device.Batch{Seq: seq, BaseMS: oracleTime(seq, 0)}
		for i := range oracleSamples {
			b.Rows = append(b.Rows, device.Row{
				Ref: device.SingleRef(0), TimeMS: oracleTime(seq, i), Values: []device.Value{device.NumberValue(oracleValue(d.id, seq, i))},
			})
		}
		frame, err := wire.AppendData(nil, wire.CBOR, d.index, &b, 0)
		if err != nil {
			panic(err)
		}
		if c.WriteMessage(gws.OpcodeBinary, frame) != nil {
			return
		}
	}
}

// fleet is the sensors of one test.
type fleet struct {
	sensors []*sensor
	done    sync.WaitGroup
}

func startFleet(t *testing.T, s *server, n int) *fleet {
	t.Helper()
	f := &fleet{}
	for i := range n {
		id := fmt.Sprintf("sensor-%d", i)
		f.sensors = append(f.sensors, &sensor{id: id, token: s.add(id), url: "ws://" + s.addr + "/device/v1", index: oracleSchema(t)})
	}
	for _, d := range f.sensors {
		f.done.Go(d.run)
	}
	t.Cleanup(f.stop)
	return f
}

func (f *fleet) stop() {
	for _, d := range f.sensors {
		d.end()
	}
	f.done.Wait()
}

func (f *fleet) acked() (n uint64) {
	for _, d := range f.sensors {
		d.mu.Lock()
		n += d.acked
		d.mu.Unlock()
	}
	return n
}

// welcomes returns how often each sensor was welcomed.
func (f *fleet) welcomes() (n []int) {
	for _, d := range f.sensors {
		d.mu.Lock()
		n = append(n, d.welcomes)
		d.mu.Unlock()
	}
	return n
}

// check compares what the hub gives back with what the sensors know. The sensors must have stopped.
func (f *fleet) check(t *testing.T, s *server) {
	t.Helper()
	token := s.token("viewer")
	for _, d := range f.sensors {
		path := fmt.Sprintf("/api/v1/devices/%s/readings?metric=level&from=0&to=%d", d.id, int64(oracleStart)*2)
		if d.sent == 0 {
			continue
		}
		body := s.get(token, path)
		var answer struct{ Points [][2]json.Number }
		err := json.NewDecoder(body).Decode(&answer)
		body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if d.acked > d.sent {
			t.Fatalf("%s: acked %d, sent %d", d.id, d.acked, d.sent)
		}
		n := uint64(len(answer.Points))
		if n%oracleSamples != 0 || n/oracleSamples < d.acked || n/oracleSamples > d.sent {
			t.Errorf("%s: %d readings stored; %d batches of %d were acked and %d sent", d.id, n, d.acked, oracleSamples, d.sent)
			continue
		}
		for i, p := range answer.Points {
			seq, sample := uint64(i)/oracleSamples+1, i%oracleSamples
			at, _ := p[0].Int64()
			v, _ := strconv.ParseFloat(p[1].String(), 64)
			if at != oracleTime(seq, sample) || v != oracleValue(d.id, seq, sample) {
				t.Errorf("%s: reading %d is %v, want batch %d sample %d: [%d, %v]", d.id, i, p, seq, sample, oracleTime(seq, sample), oracleValue(d.id, seq, sample))
				break
			}
		}
	}
}

// checkLog reads the log itself, where a batch that was stored twice would show. The hub must have ended.
func (f *fleet) checkLog(t *testing.T, dir string) {
	t.Helper()
	l, err := bolt.OpenLog(filepath.Join(dir, "log"), bolt.LogOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if d := l.Damage(); len(d) > 0 {
		t.Errorf("the log reports damage after a mere crash: %+v", d)
	}
	last := map[[2]uint32]uint64{}
	err = l.Read(t.Context(), l.First(), func(e storage.Entry) bool {
		r, err := record.Read(e.Group)
		if err != nil || e.Damaged {
			t.Errorf("group %d: damaged %v, %v", e.Position, e.Damaged, err)
			return false
		}
		for r.Next() {
			rec := r.Record()
			key := [2]uint32{rec.Device, rec.Stream}
			if rec.Seq != last[key]+1 && last[key] != 0 {
				t.Errorf("device %d: batch %d follows %d", rec.Device, rec.Seq, last[key])
			}
			last[key] = rec.Seq
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

// rounds returns n, or full when the long fault tests are asked for.
func rounds(n, full int) int {
	if os.Getenv("TORTURE") != "" {
		return full
	}
	return n
}

func TestKilledHubLosesAndDoublesNothing(t *testing.T) {
	s := newServer(t)
	f := startFleet(t, s, 20)
	for i := range rounds(10, 100) {
		waitForAcks(t, f, f.acked()+uint64(50+rand.IntN(2000)))
		s.kill()
		if i%3 == 0 {
			f.checkLog(t, s.dir)
		}
		s.start()
	}
	waitForAcks(t, f, f.acked()+100)
	f.stop()
	f.check(t, s)
	s.stop()
	f.checkLog(t, s.dir)
	t.Logf("%d batches acked over %d kills", f.acked(), rounds(10, 100))
}

// waitForAcks waits until the sensors have so many acks.
func waitForAcks(t *testing.T, f *fleet, n uint64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for f.acked() < n {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("%d batches were acked in %v, want %d", f.acked(), patience, n)
		}
	}
}
