package ws_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/ws"
)

const benchConns = 100

// cpu returns the CPU time that this process has used.
func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ackHub acks cumulatively, after every nth frame.
type ackHub struct {
	every uint64
}

type ackSession struct {
	hub        *ackHub
	peer       hub.Peer
	taken, ack atomic.Uint64
	told       uint64
}

func (h *ackHub) Connect(_ context.Context, _ device.ID, p hub.Peer, _ hub.ConnectOptions) (*ackSession, error) {
	return &ackSession{hub: h, peer: p}, nil
}

func (s *ackSession) Receive(context.Context, wire.Format, []byte) error {
	if n := s.taken.Add(1); n%s.hub.every == 0 {
		s.ack.Store(n)
		s.peer.Wake()
	}
	return nil
}

func (s *ackSession) Next(dst []byte) ([]byte, wire.Format, bool) {
	n := s.ack.Load()
	if n == s.told {
		return dst, wire.CBOR, false
	}
	s.told = n
	return append(binary.BigEndian.AppendUint64(dst, n), "0123456789abcdef"...), wire.CBOR, true
}

func (s *ackSession) Alive() {}
func (s *ackSession) End()   {}

// bareGWS does the same with gws and nothing else: the floor.
type bareGWS struct {
	gws.BuiltinEventHandler
	every uint64
}

type bareSession struct{ taken uint64 }

func (b *bareGWS) OnMessage(c *gws.Conn, m *gws.Message) {
	v, _ := c.Session().Load("s")
	s := v.(*bareSession)
	s.taken++
	if s.taken%b.every == 0 {
		var buf [24]byte
		binary.BigEndian.PutUint64(buf[:], s.taken)
		_ = c.WriteMessage(gws.OpcodeBinary, buf[:])
	}
	_ = m.Close()
}

func (b *bareGWS) OnOpen(c *gws.Conn) { c.Session().Store("s", new(bareSession)) }

// listenBare serves bare gws as its README shows.
func listenBare(b testing.TB, every uint64) string {
	up := gws.NewUpgrader(&bareGWS{every: every}, &gws.ServerOption{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := up.Upgrade(w, r); err == nil {
			go c.ReadLoop()
		}
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	b.Cleanup(func() { _ = srv.Close(); <-done })
	return ln.Addr().String()
}

func listenOurs(b testing.TB, every uint64) string {
	h := &ackHub{every: every}
	m := new(ws.Metrics)
	d, err := ws.NewDevices(h.Connect, newFakeAuth(), ws.Options{Metrics: m, Connects: ws.Rate{PerSecond: -1}})
	if err != nil {
		b.Fatal(err)
	}
	return serve(b, d, m).addr
}

// BenchmarkFrame measures the CPU time that the server spends on a frame of about ten readings and its share of the acks,
// from 100 connections, beside bare gws. window is how many frames each device sends at once, ack after how many frames the
// hub acks.
func BenchmarkFrame(b *testing.B) {
	for _, c := range []struct {
		name        string
		window, ack int
	}{{"window=1/ack=1", 1, 1}, {"window=8/ack=1", 8, 1}, {"window=8/ack=8", 8, 8}} {
		for name, listen := range map[string]func(testing.TB, uint64) string{"gws": listenBare, "ws": listenOurs} {
			b.Run(c.name+"/"+name, func(b *testing.B) {
				l := startLoad(b, listen(b, uint64(c.ack)), benchConns)
				defer l.stop()
				each := (b.N + benchConns - 1) / benchConns
				each = (each + c.window - 1) / c.window * c.window
				l.send(8*c.window, c.window)
				b.ResetTimer()
				before := cpu(b)
				l.send(each, c.window)
				b.StopTimer()
				b.ReportMetric(float64((cpu(b)-before).Nanoseconds())/1e3/float64(each*benchConns), "cpu-µs/frame")
			})
		}
	}
}
