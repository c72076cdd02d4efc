package sio_test

import (
	"context"
	"net"
	"net/http"
	"runtime"
	"testing"

	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/siotest"
	"telemetryhub/hub/sio/socket"
)

// An idle client costs one goroutine and what it has to be known by.
func TestIdleClientsAreCheap(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs memory of its own")
	}
	const clients, most = 1000, 12 << 10
	feed := new(ring)
	s, err := sio.New(feed.Subscribe, newFakeAuth(), sio.Options{Socket: socket.Options{Engine: eio.Options{MaxStrangers: 2 * clients}}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s, ReadHeaderTimeout: siotest.Patience}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	before := inUse()
	g := startLoad(t, ln.Addr().String(), clients)
	each := (inUse() - before) / clients
	t.Logf("%d bytes a client, %d goroutines", each, runtime.NumGoroutine())
	if each > most {
		t.Errorf("an idle client costs %d bytes, more than %d", each, most)
	}
	if n := runtime.NumGoroutine(); n > clients+50 {
		t.Errorf("%d idle clients need %d goroutines", clients, n)
	}
	g.stop()
	_ = srv.Close()
	<-served
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func inUse() uint64 {
	for range 4 { // each halves the stacks that are hardly used
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}
