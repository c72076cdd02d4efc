package ws_test

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// rss returns the resident memory of this process in bytes, after giving back what is free.
func rss(tb testing.TB) int64 {
	tb.Helper()
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Skip("this system does not tell resident memory: ", err)
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		tb.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// idleCost opens conns connections that stay silent after one frame, and returns what one costs in bytes of RSS.
func idleCost(tb testing.TB, conns int, listen func(testing.TB, uint64) string) (bytes int64, goroutines int) {
	addr := listen(tb, 1)
	before, routines := rss(tb), runtime.NumGoroutine()
	l := startLoad(tb, addr, conns)
	defer l.stop()
	l.send(1, 1)
	for began := time.Now(); runtime.NumGoroutine()-routines > conns+conns/100 && time.Since(began) < patience; {
		runtime.Gosched() // net/http lets go of its side a moment later
	}
	return (rss(tb) - before) / int64(conns), runtime.NumGoroutine() - routines
}

// BenchmarkIdleConnection measures what 10,000 silent connections cost the server, beside bare gws.
func BenchmarkIdleConnection(b *testing.B) {
	for name, listen := range map[string]func(testing.TB, uint64) string{"gws": listenBare, "ws": listenOurs} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				cost, _ := idleCost(b, 10_000, listen)
				b.ReportMetric(float64(cost), "RSS-B/conn")
			}
		})
	}
}

func TestIdleConnectionCostsOneGoroutineAndLittleMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector takes memory of its own")
	}
	const conns = 2000
	cost, goroutines := idleCost(t, conns, listenOurs)
	t.Logf("%d bytes", cost)
	if cost > 12<<10 {
		t.Errorf("an idle connection costs %d bytes of RSS, want at most 12 KiB", cost)
	}
	if goroutines > conns+10 {
		t.Errorf("%d connections have %d goroutines", conns, goroutines)
	}
}
