package cmd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// patience is how long a test waits for what must happen: much longer than it takes, since the machine may be busy.
const patience = 60 * time.Second

// dice returns the random numbers of a test and prints their seed, which the variable FAULT_SEED sets.
func dice(t *testing.T) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("FAULT_SEED"); s != "" {
		if _, err := fmt.Sscan(s, &seed); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d (FAULT_SEED)", seed)
	return rand.New(rand.NewPCG(seed, 7))
}

// until calls done every few milliseconds until it returns true.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-timeout:
			t.Fatalf("in %v it did not happen: %s", patience, what)
		}
	}
}

// probe is one connection of a device that does exactly what a test says.
type probe struct {
	gws.BuiltinEventHandler
	conn   *gws.Conn
	frames chan []byte // what the hub sent; closed at the end of the connection
	closed error       // why it ended, once frames is closed
}

// dial connects and says hello. The error is that of the handshake, or why the connection ended before the welcome.
func dial(addr, token string, hello wire.Hello) (*probe, wire.Welcome, error) {
	p := &probe{frames: make(chan []byte, 1024)}
	var err error
	p.conn, _, err = gws.NewClient(p, &gws.ClientOption{
		Addr:             "ws://" + addr + "/device/v1",
		RequestHeader:    http.Header{"Authorization": {"Bearer " + token}, "Sec-Websocket-Protocol": {wire.SubprotocolCBOR}},
		HandshakeTimeout: 10 * time.Second,
	})
	if err != nil {
		return nil, wire.Welcome{}, err
	}
	go p.conn.ReadLoop() // ends with the connection, which the hub or the test ends
	if err := p.conn.WriteMessage(gws.OpcodeBinary, wire.AppendHello(nil, wire.CBOR, &hello)); err != nil {
		return p, wire.Welcome{}, err
	}
	frame, err := p.next(wire.TypeWelcome)
	if err != nil {
		return p, wire.Welcome{}, err
	}
	w, err := wire.DecodeWelcome(wire.CBOR, frame)
	return p, w, err
}

// OnMessage implements gws.Event.
func (p *probe) OnMessage(_ *gws.Conn, m *gws.Message) {
	defer m.Close()
	p.frames <- bytes.Clone(m.Bytes())
}

// OnClose implements gws.Event.
func (p *probe) OnClose(_ *gws.Conn, err error) {
	p.closed = err
	close(p.frames)
}

// next returns the next frame of a type. Others are dropped.
func (p *probe) next(want wire.Type) ([]byte, error) { return p.nextFor(want, patience) }

func (p *probe) nextFor(want wire.Type, most time.Duration) ([]byte, error) {
	timeout := time.After(most)
	for {
		select {
		case frame, ok := <-p.frames:
			if !ok {
				return nil, p.closed
			}
			if t, err := wire.Peek(wire.CBOR, frame); err != nil || t == want {
				return frame, err
			}
		case <-timeout:
			return nil, fmt.Errorf("the hub did not send a %s in %v", want, most)
		}
	}
}

// acked waits until the hub has acknowledged seq.
func (p *probe) acked(seq uint64) error {
	for {
		frame, err := p.next(wire.TypeAck)
		if err != nil {
			return err
		}
		a, err := wire.DecodeAck(wire.CBOR, frame)
		if err != nil || a.Seq >= seq {
			return err
		}
	}
}

// send sends the schema and the batches of the numbers in [from, to].
func (p *probe) send(d *sensor, from, to uint64) error {
	if err := p.conn.WriteMessage(gws.OpcodeBinary, wire.AppendBirth(nil, wire.CBOR, d.index.Schema())); err != nil {
		return err
	}
	for seq := from; seq <= to; seq++ {
		if err := p.conn.WriteMessage(gws.OpcodeBinary, d.frame(seq)); err != nil {
			return err
		}
	}
	return nil
}

func (p *probe) close() { _ = p.conn.NetConn().Close() }

// frame returns the frame of a batch, as sensorSocket.fill sends it.
func (d *sensor) frame(seq uint64) []byte {
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
	return frame
}

// newSensor adds a device that the test itself speaks for.
func newSensor(t *testing.T, s *server, id string) *sensor {
	t.Helper()
	return &sensor{id: id, token: s.add(id), url: "ws://" + s.addr + "/device/v1", index: oracleSchema(t)}
}

// closeCode returns the code of a close frame, zero if the error is another.
func closeCode(err error) wire.CloseCode {
	var c *gws.CloseError
	if errors.As(err, &c) {
		return wire.CloseCode(c.Code)
	}
	return 0
}

// points asks for the readings of a metric by time, and for the gaps.
type points struct {
	Points [][2]json.Number
	Gaps   []json.RawMessage
	Damage json.RawMessage
}

func (s *server) points(token, id, metric string) points {
	s.t.Helper()
	body := s.get(token, fmt.Sprintf("/api/v1/devices/%s/readings?metric=%s&from=0&to=%d", id, metric, int64(oracleStart)*2))
	defer body.Close()
	var p points
	if err := json.NewDecoder(body).Decode(&p); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// answer is what the API said.
type answer struct {
	code  int
	text  string
	retry string // the header Retry-After
	cut   bool   // it broke off, so that whoever asked knows that something is missing
}

// ask sends a request and returns whatever the answer is; code zero if there is none.
func (s *server) ask(method, path, token, body string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, bytes.NewReader([]byte(body)))
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{text: err.Error()}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, string(text), resp.Header.Get("Retry-After"), err != nil}
}

// hubStatus is what the hub says about itself. The counters count since its start.
type hubStatus struct {
	Ready  bool
	Reason string
	Damage []string
	Disk   struct {
		Full         bool
		ReadOnly     bool  `json:"read_only"`
		HistoryStuck bool  `json:"history_stuck"`
		LogBytes     int64 `json:"log_bytes"`
	}
	Watermarks struct{ Durable, Historic uint64 }
	Counts     struct{ Readings, Commits, Duplicates, Gaps, Refused, Replaced, Lost uint64 }
}

func (s *server) status(token string) (h hubStatus) {
	s.t.Helper()
	body := s.get(token, "/api/v1/status")
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&h); err != nil {
		s.t.Fatal(err)
	}
	return h
}

// owns reports whether a line of NDJSON is a reading that the device may have sent.
func (d *sensor) owns(line string) bool {
	var row struct {
		T int64
		V map[string]float64
	}
	if json.Unmarshal([]byte(line), &row) != nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	seq, sample := uint64(row.T-oracleStart)/10, int(row.T-oracleStart)%10
	return seq >= 1 && seq <= d.sent && sample < oracleSamples && row.V["level"] == oracleValue(d.id, seq, sample)
}
