package bench

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// Load is what the generator does. It is given to its process as JSON.
type Load struct {
	URL string `json:"url"` // ws://host:port/device/v1
	// Tokens are the devices' tokens, one connection each.
	Tokens []string `json:"tokens"`
	// Window is how many batches of one device are in flight.
	Window int `json:"window"`
	// Rate is how many batches all devices send in a second; zero means as fast as they are acked.
	Rate int `json:"rate"`
	// WarmUp and Duration are in seconds.
	WarmUp   float64 `json:"warmup"`
	Duration float64 `json:"duration"`
	// PID is the process of the server, whose processor time is measured.
	PID int `json:"pid"`
}

// Result is what the generator saw after the warm-up.
type Result struct {
	Readings uint64  `json:"readings"` // acked
	Seconds  float64 `json:"seconds"`
	// P50 and P99 are the times from sending a batch to its ack, in milliseconds.
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	// ServerCPU is the processor time of the server in seconds.
	ServerCPU float64 `json:"cpu"`
	// Up and Down are bytes to the server and from it, where they were counted.
	Up   uint64 `json:"up,omitempty"`
	Down uint64 `json:"down,omitempty"`
}

// readingsPerBatch is two samples of a set of five metrics.
const readingsPerBatch = 10

func schema() *device.Schema {
	s := &device.Schema{ID: "bench-1"}
	for i, name := range []string{"temperature", "humidity", "pressure", "light", "voltage"} {
		m := device.NewMetric(name)
		m.Alias, m.Exp = uint16(i+1), -2
		s.Metrics = append(s.Metrics, m)
	}
	s.Sets = []device.Set{{Index: 1, Metrics: []int{0, 1, 2, 3, 4}}}
	return s
}

// generator drives all connections of one run.
type generator struct {
	load    Load
	index   *wire.Index
	conns   []*conn
	acked   atomic.Uint64 // batches
	measure atomic.Bool
	stop    atomic.Bool
	failed  atomic.Pointer[error]
}

// conn is one device. Its read loop sends the next batch when one is acked; with a rate a ticker sends.
type conn struct {
	gws.BuiltinEventHandler
	g  *generator
	ws *gws.Conn

	mu        sync.Mutex // guards the fields below
	next      uint64
	ackedTo   uint64
	sent      []time.Time // ring by sequence number
	latencies []float64
	batch     device.Batch
	values    [2][5]device.Value
	frame     []byte
	ready     chan struct{}
}

func newGenerator(l Load) (*generator, error) {
	index, err := wire.NewIndex(schema())
	return &generator{load: l, index: index}, err
}

// Run drives the server and reports what it saw.
func (l Load) Run() (Result, error) {
	g, err := l.connect()
	defer g.close()
	if err != nil {
		return Result{}, err
	}
	return g.drive()
}

func (g *generator) dial(token string) (*conn, error) {
	c := &conn{g: g, next: 1, sent: make([]time.Time, 64), ready: make(chan struct{})}
	ws, _, err := gws.NewClient(c, &gws.ClientOption{
		Addr:               g.load.URL,
		RequestHeader:      http.Header{"Authorization": {"Bearer " + token}, "Sec-Websocket-Protocol": {wire.SubprotocolCBOR}},
		ReadBufferSize:     2048,
		ParallelEnabled:    false,
		ReadMaxPayloadSize: wire.MaxFrame,
	})
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", g.load.URL, err)
	}
	c.ws = ws
	go ws.ReadLoop()
	hello := wire.AppendHello(nil, wire.CBOR, &wire.Hello{Stream: fmt.Sprint("bench-", time.Now().UnixNano()), Next: 1, Have: 1, Schema: "bench-1", Clock: device.ClockNTP})
	return c, ws.WriteMessage(gws.OpcodeBinary, hello)
}

func (g *generator) close() {
	g.stop.Store(true)
	for _, c := range g.conns {
		_ = c.ws.NetConn().Close() // the run is over
	}
}

func (g *generator) drive() (Result, error) {
	period := time.Duration(0)
	if g.load.Rate > 0 {
		period = time.Duration(float64(time.Second) * float64(len(g.conns)) / float64(g.load.Rate))
	}
	var tickers sync.WaitGroup
	for i, c := range g.conns {
		if period == 0 {
			c.fill()
			continue
		}
		tickers.Go(func() { c.tick(period, time.Duration(i)*period/time.Duration(len(g.conns))) })
	}
	sleep(g.load.WarmUp)
	g.measure.Store(true)
	cpuBefore, err := cpuSeconds(g.load.PID)
	if err != nil {
		return Result{}, err
	}
	before, began := g.acked.Load(), time.Now()
	sleep(g.load.Duration)
	batches, took := g.acked.Load()-before, time.Since(began)
	cpuAfter, err := cpuSeconds(g.load.PID)
	if err != nil {
		return Result{}, err
	}
	g.measure.Store(false)
	g.stop.Store(true)
	tickers.Wait()
	if err := g.failed.Load(); err != nil {
		return Result{}, *err
	}
	r := Result{Readings: batches * readingsPerBatch, Seconds: took.Seconds(), ServerCPU: cpuAfter - cpuBefore}
	r.P50, r.P99 = g.percentiles()
	return r, nil
}

func sleep(seconds float64) { time.Sleep(time.Duration(seconds * float64(time.Second))) }

func (g *generator) percentiles() (p50, p99 float64) {
	var all []float64
	for _, c := range g.conns {
		c.mu.Lock()
		all = append(all, c.latencies...)
		c.mu.Unlock()
	}
	if len(all) == 0 {
		return math.NaN(), math.NaN()
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}

// tick sends a batch each period, if the window allows.
func (c *conn) tick(period, offset time.Duration) {
	time.Sleep(offset)
	t := time.NewTicker(period)
	defer t.Stop()
	for !c.g.stop.Load() {
		c.mu.Lock()
		c.sendLocked()
		c.mu.Unlock()
		<-t.C
	}
}

// fill sends what the window allows.
func (c *conn) fill() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.next-1-c.ackedTo < uint64(c.g.load.Window) && !c.g.stop.Load() {
		c.sendLocked()
	}
}

func (c *conn) sendLocked() {
	now := time.Now()
	c.batch.Seq, c.batch.BaseMS = c.next, now.UnixMilli()
	c.batch.Rows = c.batch.Rows[:0]
	for r := range c.values {
		for i := range c.values[r] {
			v, _ := device.Unscale(int64(2137+(c.next*7+uint64(i*31+r))%50), -2)
			c.values[r][i] = device.NumberValue(v)
		}
		c.batch.Rows = append(c.batch.Rows, device.Row{Ref: device.SetRef(0), TimeMS: c.batch.BaseMS - int64(5*(1-r)), Values: c.values[r][:]})
	}
	frame, err := wire.AppendData(c.frame[:0], wire.CBOR, c.g.index, &c.batch, 0)
	if err == nil {
		c.frame = frame
		c.sent[c.next%uint64(len(c.sent))] = now
		c.next++
		err = c.ws.WriteMessage(gws.OpcodeBinary, frame)
	}
	if err != nil {
		c.fail(err)
	}
}

func (c *conn) fail(err error) {
	if !c.g.stop.Load() {
		c.g.failed.CompareAndSwap(nil, &err)
	}
}

// OnClose notes an end that was not asked for.
func (c *conn) OnClose(_ *gws.Conn, err error) { c.fail(err) }

// OnMessage takes the welcome and then acks.
func (c *conn) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	frame := m.Bytes()
	t, err := wire.Peek(wire.CBOR, frame)
	switch {
	case err != nil:
		c.fail(err)
	case t == wire.TypeWelcome:
		w, err := wire.DecodeWelcome(wire.CBOR, frame)
		if err == nil && w.Schema == wire.SchemaNeed {
			err = c.ws.WriteMessage(gws.OpcodeBinary, wire.AppendBirth(nil, wire.CBOR, schema()))
		}
		if err != nil {
			c.fail(err)
		}
		close(c.ready)
	case t == wire.TypeAck:
		a, err := wire.DecodeAck(wire.CBOR, frame)
		if err != nil {
			c.fail(err)
			return
		}
		c.ack(a.Seq)
	}
}

func (c *conn) ack(seq uint64) {
	now := time.Now()
	c.mu.Lock()
	for s := c.ackedTo + 1; s <= seq; s++ {
		if c.g.measure.Load() && (c.g.load.Rate > 0 || s%16 == 0) {
			c.latencies = append(c.latencies, float64(now.Sub(c.sent[s%uint64(len(c.sent))]).Microseconds())/1000)
		}
	}
	c.g.acked.Add(seq - c.ackedTo)
	c.ackedTo = seq
	c.mu.Unlock()
	if c.g.load.Rate == 0 {
		c.fill()
	}
}
