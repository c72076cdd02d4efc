package sio_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"telemetryhub/hub"
	"telemetryhub/hub/sio"
	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/siotest"
	"telemetryhub/hub/sio/socket"
)

const (
	// loadEnv makes the test binary a load generator: a process of its own, so that the CPU time of the server is only that.
	loadEnv = "HUB_SIO_LOAD"
	// window is how many readings may be on their way.
	window = 16
	// stepSize is after how many readings the generator tells that all viewers have them.
	stepSize = 4
)

// ring is a feed in which all viewers see the same frames, as the hub's viewers of one view do.
type ring struct {
	mu      sync.Mutex
	frames  [1024]pushed
	head    uint64
	viewers []*ringViewer
}

type ringViewer struct {
	ring *ring
	peer hub.Peer
	next uint64 // of Next only
}

func (r *ring) Subscribe(_ context.Context, _ hub.Subscription, p hub.Peer) (*ringViewer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := &ringViewer{ring: r, peer: p, next: r.head}
	r.viewers = append(r.viewers, v)
	return v, nil
}

func (r *ring) publish(frame, token string) {
	r.mu.Lock()
	r.frames[r.head%uint64(len(r.frames))] = pushed{frame, token}
	r.head++
	woken := r.viewers
	r.mu.Unlock()
	for _, v := range woken {
		v.peer.Wake()
	}
}

func (v *ringViewer) SetPacking(hub.Packing) {}

func (v *ringViewer) NextPacked(dst []byte) (frame []byte, token string, packed, ok bool) {
	v.ring.mu.Lock()
	defer v.ring.mu.Unlock()
	if v.next == v.ring.head {
		return dst, "", false, false
	}
	p := &v.ring.frames[v.next%uint64(len(v.ring.frames))]
	v.next++
	return append(dst, p.frame...), p.token, false, true
}

func (v *ringViewer) Change(hub.Subscription) error { return nil }
func (v *ringViewer) End()                          {}

// BenchmarkDeliver measures readings of 180 bytes from one publisher to many viewers, of which each gets every one: the server
// on one core, the viewers in another process.
func BenchmarkDeliver(b *testing.B) {
	for _, viewers := range []int{200, 1000} {
		b.Run(strconv.Itoa(viewers), func(b *testing.B) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
			feed := new(ring)
			s, err := sio.New(feed.Subscribe, newFakeAuth(), sio.Options{
				Socket: socket.Options{Engine: eio.Options{MaxStrangers: 2000}},
			})
			if err != nil {
				b.Fatal(err)
			}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			srv := &http.Server{Handler: s, ReadHeaderTimeout: siotest.Patience}
			served := make(chan error, 1)
			go func() { served <- srv.Serve(ln) }()
			g := startLoad(b, ln.Addr().String(), viewers)
			frame := `{"type":"readings","token":"abcdefgh-1z2y3","readings":[["greenhouse-1","temperature",1766000000123,21.375,0]]}`
			frame += strings.Repeat(" ", 180-len(frame))
			before, began := cpu(b), time.Now()
			for i := 0; b.Loop(); i++ {
				g.wait(i - window)
				feed.publish(frame, "abcdefgh-1z2y3")
			}
			g.wait(b.N - stepSize)
			deliveries := float64(b.N) * float64(viewers)
			b.ReportMetric(deliveries/time.Since(began).Seconds()/1000, "kdeliveries/s")
			b.ReportMetric((cpu(b)-before).Seconds()*1e6/deliveries, "µs/delivery")
			b.StopTimer()
			g.stop()
			_ = srv.Close()
			<-served
			_ = s.Shutdown(context.Background())
		})
	}
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// load drives viewers from another process.
type load struct {
	tb   testing.TB
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	have int // what all viewers have
}

func startLoad(tb testing.TB, addr string, viewers int) *load {
	tb.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", loadEnv, addr, viewers), "GOMAXPROCS=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	l := &load{tb: tb, cmd: cmd, in: in, out: bufio.NewReader(out)}
	l.line()
	return l
}

func (l *load) line() {
	l.tb.Helper()
	line, err := l.out.ReadString('\n')
	if err == nil {
		l.have, err = strconv.Atoi(strings.TrimSpace(line))
	}
	if err != nil {
		l.tb.Fatalf("the load generator says %q: %v", line, err)
	}
}

// wait returns when all viewers have so many readings.
func (l *load) wait(n int) {
	for l.have < n {
		l.line()
	}
}

func (l *load) stop() {
	l.tb.Helper()
	if err := l.in.Close(); err != nil {
		l.tb.Error(err)
	}
	if err := l.cmd.Wait(); err != nil {
		l.tb.Error(err)
	}
}

// generate is the load generator: it opens connections, says 0, and then how many readings all of them have.
func generate(args string) error {
	addr, count, _ := strings.Cut(args, " ")
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	conns := make([]*bufio.Reader, n)
	for i := range conns {
		if conns[i], err = view(addr); err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
	}
	fmt.Println(0)
	var steps [1 << 20]atomic.Int32 // how many connections have got so far
	failed := make(chan error, n)
	for _, r := range conns {
		go func() { failed <- follow(r, n, &steps) }()
	}
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the parent
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case err := <-failed:
		return err
	}
}

// view connects one viewer and reads its welcome.
func view(addr string) (*bufio.Reader, error) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, siotest.Request("")); err != nil {
		return nil, err
	}
	r := bufio.NewReaderSize(conn, 8<<10)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line == "\r\n" {
			break
		}
	}
	if _, err := conn.Write(siotest.Frame(siotest.Fin|siotest.OpText, `40{"token":"viewer","subscribe":{"mode":"all"}}`)); err != nil {
		return nil, err
	}
	for {
		p, err := skip(r)
		if err != nil || bytes.Contains(p, []byte("welcome")) {
			return r, err
		}
	}
}

// skip reads one frame and returns the beginning of its payload, valid until the next call.
func skip(r *bufio.Reader) ([]byte, error) {
	h, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	head, n := 2, int(h[1])
	if n == 126 {
		head, n = 4, int(binary.BigEndian.Uint16(h[2:]))
	}
	if head+n > r.Size() {
		return nil, fmt.Errorf("a frame of %d bytes", n)
	}
	p, err := r.Peek(head + n)
	if err != nil {
		return nil, err
	}
	_, err = r.Discard(head + n)
	return p[head:], err
}

func follow(r *bufio.Reader, conns int, steps *[1 << 20]atomic.Int32) error {
	for got := 0; ; {
		p, err := skip(r)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(p, []byte(`42["reading"`)) {
			continue
		}
		if got++; got%stepSize == 0 {
			step := &steps[got/stepSize%len(steps)]
			if int(step.Add(1)) == conns {
				step.Store(0)
				fmt.Println(got)
			}
		}
	}
}
