package api_test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub/access"
	"telemetryhub/hub/ws/door"
)

// BenchmarkPoll measures one poll through the door, net/http and all that the API does before and after the handler. The bare
// one answers as many bytes and does nothing else: it is what net/http, the kernel and the client here take.
func BenchmarkPoll(b *testing.B) {
	r := newRig(b, func(p *parts) { p.options.Admit = door.Admit })
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	first := r.poll(viewer, "mode=all").Token
	changed := "mode=all&wait=0&after=" + first
	r.send("pump", dev, fmt.Sprintf(`{"%s":1.5}`, strings.Repeat("m", 60)))
	body := []byte(r.until("/api/v1/live/poll?"+changed, viewer, func(body string) bool { return strings.Contains(body, "1.5") }))
	unchanged := "mode=all&wait=0&after=" + r.poll(viewer, changed).Token
	ask := func(query string) []byte {
		return fmt.Appendf(nil, "GET /api/v1/live/poll?%s HTTP/1.1\r\nHost: hub\r\nUser-Agent: bench\r\nAccept: */*\r\n"+
			"Authorization: Bearer %s\r\nIf-None-Match: \"%s\"\r\n\r\n", query, viewer, query[strings.LastIndex(query, "=")+1:])
	}
	hub, err := door.New(listen(b), door.Options{})
	if err != nil {
		b.Fatal(err)
	}
	serve(b, hub, hub.Server(r.api))
	floor := listen(b)
	serve(b, floor, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Etag", `"1"`)
		_, _ = w.Write(body) // the client sees what does not come
	})})

	b.Run("bare", func(b *testing.B) { pollAlone(b, floor, ask(changed)) })
	b.Run("unchanged", func(b *testing.B) { pollAlone(b, hub, ask(unchanged)) })
	b.Run("changed", func(b *testing.B) { pollAlone(b, hub, ask(changed)) })
	b.Run("woken", func(b *testing.B) {
		const waiting = 200 // so that what it takes to make something happen is shared by as many
		clients := make([]*rawClient, waiting)
		for i := range clients {
			clients[i] = dialRaw(b, hub)
		}
		request, tick := ask("mode=all&after="+r.poll(viewer, "mode=all&wait=0").Token), time.NewTicker(100*time.Microsecond)
		defer tick.Stop()
		b.ReportAllocs()
		for n := 0; b.Loop(); n++ {
			if n%waiting > 0 {
				continue
			}
			for _, c := range clients {
				c.send(request)
			}
			for r.hub.Status().Viewers < waiting {
				<-tick.C
			}
			if _, err := r.hub.Ingest(b.Context(), "pump", wire.JSON, []byte(`{"m":1.5}`)); err != nil {
				b.Fatal(err)
			}
			var answer string
			for _, c := range clients {
				answer = string(c.receive())
			}
			_, tag, _ := strings.Cut(answer, `Etag: "`)
			after, _, _ := strings.Cut(tag, `"`)
			request = ask("mode=all&after=" + after)
		}
	})
}

// pollAlone sends the same request again and again.
func pollAlone(b *testing.B, to net.Listener, request []byte) {
	c := dialRaw(b, to)
	b.ReportAllocs()
	for b.Loop() {
		c.send(request)
		c.receive()
	}
}

// rawClient does nothing but read and write.
type rawClient struct {
	b    *testing.B
	conn net.Conn
	buf  [4096]byte
}

func dialRaw(b *testing.B, to net.Listener) *rawClient {
	conn, err := net.Dial("tcp", to.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() }) // nothing more is to come
	return &rawClient{b: b, conn: conn}
}

func (c *rawClient) send(request []byte) {
	if _, err := c.conn.Write(request); err != nil {
		c.b.Fatal(err)
	}
}

// receive returns an answer, which is small enough to come in one piece.
func (c *rawClient) receive() []byte {
	n, err := c.conn.Read(c.buf[:])
	if err != nil || n < 12 || c.buf[9] > '3' {
		c.b.Fatalf("%v: %s", err, c.buf[:n])
	}
	return c.buf[:n]
}

func listen(b *testing.B) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	return ln
}

func serve(b *testing.B, ln net.Listener, s *http.Server) {
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			b.Error(err)
		}
	})
}
