package ws_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"telemetryhub/device/wire"
	"telemetryhub/hub/ws"
)

// TestPeersThatDoNotReadHoldUpNobody has more of them than there are processors, each with more to write than a socket takes.
func TestPeersThatDoNotReadHoldUpNobody(t *testing.T) {
	h := newFakeHub()
	big := strings.Repeat("x", 1<<20)
	h.receive = func(_ context.Context, s *fakeSession, f wire.Format, frame []byte) error {
		if s.id == "good" {
			s.send(f, string(frame))
			return nil
		}
		s.nextFn = func(dst []byte) ([]byte, wire.Format, bool) { return append(dst, big...), wire.JSON, true }
		s.peer.Wake()
		return nil
	}
	s, _ := devices(t, h, ws.Options{})
	for i := range 3*runtime.GOMAXPROCS(0) + 1 {
		stuck := dial(t, s.addr, fmt.Sprint("dev:stuck-", i))
		stuck.put(masked(fin|opText, "x"))
		wait(t, h.connected, "the session")
	}
	good := dial(t, s.addr, "dev:good")
	for i := range 1000 {
		text := fmt.Sprint(i)
		good.put(masked(fin|opText, text))
		good.want(opText, text)
	}
}

// TestPeerThatAlwaysHasMoreLetsOthersHaveTheirTurn has a peer whose socket would take megabytes.
func TestPeerThatAlwaysHasMoreLetsOthersHaveTheirTurn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	dial(t, s.addr, "dev:flooded")
	flooded := wait(t, h.connected, "the session")
	dial(t, s.addr, "dev:good")
	good := wait(t, h.connected, "the session")
	written, before := 0, make(chan int, 1)
	body := strings.Repeat("x", 10_000)
	good.nextFn = func(dst []byte) ([]byte, wire.Format, bool) {
		select {
		case before <- written:
		default:
		}
		return dst, wire.JSON, false
	}
	flooded.nextFn = func(dst []byte) ([]byte, wire.Format, bool) {
		if written == 0 {
			good.peer.Wake()
		}
		written += len(body)
		return append(dst, body...), wire.JSON, written < 100<<20
	}
	flooded.peer.Wake()
	if n := wait(t, before, "the other's turn"); n > 512<<10 {
		t.Errorf("%d bytes were written to one before the other had its turn", n)
	}
}
