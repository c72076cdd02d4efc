package firmwaresim_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/lxzan/gws"

	"telemetryhub/device"
	"telemetryhub/device/wire"
)

// fakeHub takes devices over the real protocol and remembers every row, each batch once.
type fakeHub struct {
	*httptest.Server

	mu      sync.Mutex
	tokens  map[string]string // device of a token
	devices map[string][]row
	last    map[string]uint64 // by device and stream
	schemas map[string]*device.Schema
	posts   []string
	conns   map[*gws.Conn]bool
	batches int

	// Behaviour, set before the first request.
	deny     int                 // status for POSTs, zero for none
	cutEvery int                 // cut all connections after so many batches
	bad      bool                // refuse a row of each batch
	onBatch  func(n int)         // after a batch, with the number of batches
	existing map[string]struct{} // devices that are there already
	deleted  string              // a device whose ID may not be used again
}

type row struct {
	at     int64
	values []device.Value
}

func newFakeHub(t *testing.T) *fakeHub {
	t.Helper()
	h := &fakeHub{
		tokens: map[string]string{}, devices: map[string][]row{}, last: map[string]uint64{}, conns: map[*gws.Conn]bool{},
		schemas: map[string]*device.Schema{}, existing: map[string]struct{}{},
	}
	h.Server = httptest.NewServer(h)
	t.Cleanup(func() { h.cutAll(); h.Server.Close() })
	return h
}

func (h *fakeHub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if r.URL.Path == "/device/v1" {
		h.mu.Lock()
		id := h.tokens[token]
		h.mu.Unlock()
		if id == "" {
			http.Error(w, "{}", http.StatusUnauthorized)
			return
		}
		up := gws.NewUpgrader(&session{hub: h, id: id}, &gws.ServerOption{SubProtocols: []string{wire.SubprotocolCBOR}})
		conn, err := up.Upgrade(w, r)
		if err != nil {
			return
		}
		h.mu.Lock()
		h.conns[conn] = true
		h.mu.Unlock()
		conn.ReadLoop()
		h.mu.Lock()
		delete(h.conns, conn)
		h.mu.Unlock()
		return
	}
	status, body := h.answer(token, r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func (h *fakeHub) answer(token string, r *http.Request) (int, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.posts = append(h.posts, r.Method+" "+r.URL.Path)
	var in struct{ ID, Kind, Device string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return http.StatusBadRequest, `{"detail":"no JSON"}`
	}
	switch {
	case token != "admin":
		return http.StatusUnauthorized, `{"title":"Unauthorized","detail":"Make a token first."}`
	case h.deny != 0:
		return h.deny, `{"title":"No","detail":"Not now."}`
	case h.deleted != "" && in.ID == h.deleted:
		return http.StatusConflict, `{"title":"Conflict","detail":"It was deleted."}`
	case h.deleted != "" && in.Device == h.deleted:
		return http.StatusNotFound, `{"title":"Not Found","detail":"Add it."}`
	case r.URL.Path == "/api/v1/tokens" && in.Kind == "device":
		in.ID = in.Device
	case r.URL.Path != "/api/v1/devices":
		return http.StatusNotFound, `{}`
	default:
		if _, there := h.existing[in.ID]; there {
			return http.StatusConflict, `{"detail":"It is there."}`
		}
		h.existing[in.ID] = struct{}{}
	}
	secret := fmt.Sprintf("secret-%s-%d", in.ID, len(h.tokens))
	h.tokens[secret] = in.ID
	return http.StatusCreated, fmt.Sprintf(`{"id":%q,"token":%q}`, in.ID, secret)
}

// cutAll ends all connections, as a restart of the hub does.
func (h *fakeHub) cutAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		_ = c.NetConn().Close()
	}
}

func (h *fakeHub) rows(id string) []row {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]row(nil), h.devices[id]...)
}

type session struct {
	gws.BuiltinEventHandler
	hub    *fakeHub
	id     string
	stream string
	index  *wire.Index
	dec    wire.Decoder
}

func (s *session) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	reply, err := s.take(m.Bytes())
	if err != nil {
		_ = c.WriteClose(uint16(wire.CloseProtocol), []byte(err.Error()))
		return
	}
	if reply != nil {
		_ = c.WriteMessage(gws.OpcodeBinary, reply)
	}
}

func (s *session) take(data []byte) ([]byte, error) {
	t, err := wire.Peek(wire.CBOR, data)
	if err != nil {
		return nil, err
	}
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	switch t {
	case wire.TypeHello:
		m, err := wire.DecodeHello(wire.CBOR, data)
		if err != nil {
			return nil, err
		}
		s.stream = s.id + " " + m.Stream
		if _, known := h.last[s.stream]; !known {
			h.last[s.stream] = m.Have - 1
		}
		return wire.AppendWelcome(nil, wire.CBOR, &wire.Welcome{NowMS: 1, Ack: h.last[s.stream], Schema: wire.SchemaNeed, PingS: 25,
			Limits: wire.Limits{Win: 8, Bytes: 65536, Max: wire.MaxFrame}}), nil
	case wire.TypeBirth:
		schema, err := wire.DecodeBirth(wire.CBOR, data)
		if err != nil {
			return nil, err
		}
		h.schemas[s.id] = schema
		s.index, err = wire.NewIndex(schema)
		return nil, err
	case wire.TypeData:
		return s.data(data)
	}
	return nil, fmt.Errorf("unexpected %v", t)
}

func (s *session) data(data []byte) ([]byte, error) {
	var b device.Batch
	_, bad, err := s.dec.Data(wire.CBOR, data, s.index, &b)
	if err != nil || len(bad) > 0 {
		return nil, fmt.Errorf("%w %v", err, bad)
	}
	h := s.hub
	ack := wire.Ack{}
	if b.Seq > h.last[s.stream] {
		if b.Seq != h.last[s.stream]+1 {
			return nil, fmt.Errorf("number %d after %d", b.Seq, h.last[s.stream])
		}
		h.last[s.stream] = b.Seq
		for _, r := range b.Rows {
			h.devices[s.id] = append(h.devices[s.id], row{r.TimeMS, append([]device.Value(nil), r.Values...)})
		}
		if h.bad {
			ack.Bad = []wire.Bad{{Seq: b.Seq, Count: 1, Code: wire.BadLimit}}
		}
	}
	h.batches++
	if h.onBatch != nil {
		h.onBatch(h.batches)
	}
	if h.cutEvery > 0 && h.batches%h.cutEvery == 0 {
		for c := range h.conns {
			_ = c.NetConn().Close()
		}
		return nil, nil
	}
	ack.Seq = h.last[s.stream]
	return wire.AppendAck(nil, wire.CBOR, &ack), nil
}
