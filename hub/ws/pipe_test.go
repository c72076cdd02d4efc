package ws_test

import (
	"bufio"
	"context"
	"net"
	"net/http"
	"strings"
	"testing"

	"telemetryhub/hub/ws"
)

// pipe is a connection to a handler without a network: for virtual time, and for fuzzing.
type pipe struct {
	*client
	metrics *ws.Metrics
	served  handler
}

// hijacker is the side of net/http.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
	held chan struct{} // Hijack waits until it is closed, unless it is nil
	here chan struct{} // is closed when Hijack is called
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if h.held != nil {
		close(h.here)
		<-h.held
	}
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// plug opens a WebSocket on h with the token.
func plug(t testing.TB, h handler, m *ws.Metrics, token string) *pipe {
	t.Helper()
	ours, theirs := net.Pipe()
	return plugInto(t, h, m, token, ours, theirs)
}

// plugInto is plug with the two ends of the connection.
func plugInto(t testing.TB, h handler, m *ws.Metrics, token string, ours, theirs net.Conn) *pipe {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(request(token))))
	if err != nil {
		t.Fatal(err)
	}
	p := &pipe{&client{t, theirs, bufio.NewReaderSize(theirs, 1<<20)}, m, h}
	go h.ServeHTTP(hijacker{conn: ours}, r)
	resp, err := http.ReadResponse(p.r, r)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %v, %v", resp, err)
	}
	return p
}

// unplug hangs up and waits until the handler has let go.
func (p *pipe) unplug() {
	_ = p.Close()
	if err := p.served.Shutdown(context.Background()); err != nil {
		p.t.Error(err)
	}
}

// plugDevice opens a WebSocket of a device on h.
func plugDevice(t testing.TB, h *fakeHub, o ws.Options) *pipe {
	t.Helper()
	o.Metrics = new(ws.Metrics)
	d, err := ws.NewDevices(h.Connect, newFakeAuth(), o)
	if err != nil {
		t.Fatal(err)
	}
	return plug(t, d, o.Metrics, "dev:a")
}

// plugViewer opens a WebSocket of a viewer on f.
func plugViewer(t testing.TB, f *fakeFeed, o ws.Options) *pipe {
	t.Helper()
	o.Metrics = new(ws.Metrics)
	v, err := ws.NewViewers(f.Subscribe, newFakeAuth(), o)
	if err != nil {
		t.Fatal(err)
	}
	return plug(t, v, o.Metrics, "viewer")
}
