package bench

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// FeedLoad is what the generator of Feed does. It is given to its process as JSON.
type FeedLoad struct {
	Addr string `json:"addr"`
	// Viewers is how many follow.
	Viewers int `json:"viewers"`
	// Window is how many readings are on their way: the publisher goes on when every viewer has the one that many before.
	Window int `json:"window"`
	// Rate is how many deliveries to all viewers together are made in a second; zero means as many as the window lets.
	Rate int `json:"rate"`
	// Floor says that the server hands on what the publisher sends as it is.
	Floor bool `json:"floor"`
	// SocketIO says that the viewers are clients of Socket.IO.
	SocketIO bool `json:"socketio"`
	// WarmUp and Duration are in seconds.
	WarmUp   float64 `json:"warmup"`
	Duration float64 `json:"duration"`
	// PID is the process of the server, whose processor time is measured.
	PID int `json:"pid"`
}

// feedGenerator is the publisher and all viewers.
type feedGenerator struct {
	load    FeedLoad
	viewers []*feedViewer
	pub     *publisher
	buf     []byte

	sent      uint64
	got       [1024]atomic.Int32 // viewers that have the reading, by number
	complete  atomic.Uint64      // up to here everybody has everything
	more      chan struct{}      // holds one when complete has grown
	measuring atomic.Bool
	failed    chan error
	stop      chan struct{} // closed when the run is over
	running   sync.WaitGroup
}

// feedViewer is one viewer.
type feedViewer struct {
	g         *feedGenerator
	conn      net.Conn
	last      uint64
	latencies []float64
}

// Run drives the server and reports what it saw. Result.Readings counts deliveries.
func (l FeedLoad) Run() (Result, error) {
	g := &feedGenerator{load: l, more: make(chan struct{}, 1), failed: make(chan error, l.Viewers+1), stop: make(chan struct{})}
	defer g.close()
	if err := g.connect(); err != nil {
		return Result{}, err
	}
	g.running.Go(func() {
		if err := g.publish(); err != nil {
			g.failed <- err
		}
	})
	if err := g.wait(l.WarmUp); err != nil {
		return Result{}, err
	}
	cpuBefore, err := cpuSeconds(l.PID)
	if err != nil {
		return Result{}, err
	}
	g.measuring.Store(true)
	before, began := g.complete.Load(), time.Now()
	if err := g.wait(l.Duration); err != nil {
		return Result{}, err
	}
	n, took := g.complete.Load()-before, time.Since(began)
	cpuAfter, err := cpuSeconds(l.PID)
	if err != nil {
		return Result{}, err
	}
	g.measuring.Store(false)
	if n == 0 {
		return Result{}, errors.New("nothing was delivered")
	}
	r := Result{Readings: n * uint64(l.Viewers), Seconds: took.Seconds(), ServerCPU: cpuAfter - cpuBefore}
	close(g.stop)
	g.close()
	g.running.Wait()
	r.P50, r.P99 = g.percentiles()
	return r, nil
}

func (g *feedGenerator) wait(seconds float64) error {
	select {
	case err := <-g.failed:
		return err
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		return nil
	}
}

func (g *feedGenerator) close() {
	if g.pub != nil {
		_ = g.pub.conn.Close() // the run is over
	}
	for _, v := range g.viewers {
		_ = v.conn.Close()
	}
}

func (g *feedGenerator) percentiles() (p50, p99 float64) {
	var all []float64
	for _, v := range g.viewers {
		all = append(all, v.latencies...)
	}
	if len(all) == 0 {
		return 0, 0 // the pace was not given
	}
	slices.Sort(all)
	return all[len(all)/2], all[len(all)*99/100]
}

func (g *feedGenerator) connect() error {
	path, hello := "/api/v1/live", `{"subscribe":{"mode":"all","tick":-1}}`
	if g.load.SocketIO {
		path, hello = "/socket.io/?EIO=4&transport=websocket", `40{"subscribe":{"mode":"all","tick":-1}}`
	}
	for range g.load.Viewers {
		conn, in, err := upgrade(g.load.Addr, path, "", "bench", 128<<10)
		if err != nil {
			return err
		}
		v := &feedViewer{g: g, conn: conn}
		g.viewers = append(g.viewers, v)
		if _, err := conn.Write(appendMasked(nil, 0x81, []byte(hello))); err != nil {
			return err
		}
		g.running.Go(func() { g.failed <- v.read(in) })
	}
	var err error
	g.pub, err = newPublisher(g.load.Addr, "bench", feedDevice, g.load.Floor, notes())
	return err
}

// upgrade opens a WebSocket without a library, whose work would count as the server's delay.
func upgrade(addr, path, protocol, token string, buffer int) (net.Conn, *bufio.Reader, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	request := "GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer " + token + "\r\n"
	if protocol != "" {
		request += "Sec-WebSocket-Protocol: " + protocol + "\r\n"
	}
	in := bufio.NewReaderSize(conn, buffer)
	_, err = io.WriteString(conn, request+"\r\n")
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(in, nil); err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
			err = fmt.Errorf("%s: %s", path, resp.Status)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, in, nil
}

// appendMasked appends a frame of a client, with a mask of zeros (RFC 6455 section 5.2).
func appendMasked(dst []byte, op byte, payload []byte) []byte {
	switch n := len(payload); {
	case n <= 125:
		dst = append(dst, op, 0x80|byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, op, 0x80|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, op, 0x80|127), uint64(n))
	}
	return append(append(dst, 0, 0, 0, 0), payload...)
}

// readFrame returns the payload of the next frame of the server, in memory of in if it fits there.
func readFrame(in *bufio.Reader) (op byte, payload []byte, err error) {
	head, err := in.Peek(2)
	if err != nil {
		return 0, nil, err
	}
	op = head[0] & 0x0f
	n, size := int(head[1]), 2
	switch n {
	case 126:
		if head, err = in.Peek(4); err != nil {
			return 0, nil, err
		}
		n, size = int(binary.BigEndian.Uint16(head[2:])), 4
	case 127:
		if head, err = in.Peek(10); err != nil {
			return 0, nil, err
		}
		n, size = int(binary.BigEndian.Uint64(head[2:])), 10
	}
	if _, err := in.Discard(size); err != nil {
		return 0, nil, err
	}
	if n > in.Size() {
		payload = make([]byte, n)
		_, err = io.ReadFull(in, payload)
		return op, payload, err
	}
	if payload, err = in.Peek(n); err != nil {
		return 0, nil, err
	}
	_, err = in.Discard(n) // what was peeked stays until the next read
	return op, payload, err
}

// read takes what comes until the connection ends. It reads once each time that there is something: a second try, which would
// only say that there is nothing more, costs as much as the first, and this process must be quicker than the server.
func (v *feedViewer) read(in *bufio.Reader) error {
	early, err := in.Peek(in.Buffered())
	if err != nil {
		return err
	}
	raw, err := v.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 128<<10)
	n := copy(buf, early)
	var failure error
	err = raw.Read(func(fd uintptr) (done bool) {
		for {
			got, err := syscall.Read(int(fd), buf[n:])
			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case errors.Is(err, syscall.EAGAIN):
				return false
			case err == nil && got == 0:
				err = io.EOF
			}
			full := got == len(buf)-n
			if err == nil {
				n, err = v.frames(buf, n+got)
			}
			if failure = err; err != nil || !full { // what is not full was all there was, so that the next byte wakes us
				return err != nil
			}
		}
	})
	if failure != nil {
		err = failure
	}
	return fmt.Errorf("a viewer after reading %d: %w", v.last, err)
}

// frames takes the whole frames in the first n bytes of buf, and moves the rest to the front.
func (v *feedViewer) frames(buf []byte, n int) (left int, err error) {
	rest := buf[:n]
	for {
		op, payload, size := frameIn(rest)
		if size == 0 {
			if len(rest) == len(buf) {
				return 0, fmt.Errorf("a frame of more than %d bytes", len(buf))
			}
			return copy(buf, rest), nil
		}
		switch op {
		case 0x8:
			return 0, fmt.Errorf("closed: %q", payload)
		case 0x1:
			if err := v.text(payload); err != nil {
				return 0, err
			}
		}
		rest = rest[size:]
	}
}

// frameIn returns the frame at the beginning of b. The size is zero if not all of it is there.
func frameIn(b []byte) (op byte, payload []byte, size int) {
	if len(b) < 10 { // no frame that matters is shorter
		return 0, nil, 0
	}
	n, head := int(b[1]), 2
	switch n {
	case 126:
		n, head = int(binary.BigEndian.Uint16(b[2:])), 4
	case 127:
		n, head = int(binary.BigEndian.Uint64(b[2:])), 10
	}
	if len(b) < head+n {
		return 0, nil, 0
	}
	return b[0] & 0x0f, b[head : head+n], head + n
}

// text counts the readings in a message, and fails if any is missing or comes twice.
func (v *feedViewer) text(payload []byte) error {
	at := bytes.LastIndex(payload, []byte(readingMark))
	if at < 0 || len(payload) < at+len(readingMark)+feedDigits || bytes.Contains(payload[:min(at, 64)], []byte(`"type":"snapshot"`)) {
		return nil
	}
	digits := payload[at+len(readingMark):][:feedDigits]
	last, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return fmt.Errorf("a frame that nobody sent: %.200q", payload)
	}
	if n := uint64(bytes.Count(payload, []byte(readingMark))); v.last+n != last {
		return fmt.Errorf("%d readings up to number %d", n, last)
	}
	v.take(last)
	return nil
}

func (v *feedViewer) take(last uint64) {
	g := v.g
	measuring := g.measuring.Load()
	now := int64(time.Since(g.pub.start))
	for n := v.last + 1; n <= last; n++ {
		slot := n % uint64(len(g.got))
		if measuring && g.load.Rate > 0 {
			v.latencies = append(v.latencies, float64(now-g.pub.sentAt[slot].Load())/1e6)
		}
		if int(g.got[slot].Add(1)) == g.load.Viewers {
			g.got[slot].Store(0)
			g.complete.Store(n)
			select {
			case g.more <- struct{}{}:
			default:
			}
		}
	}
	v.last = last
}

// publish sends at the pace of the load until the connection is closed.
func (g *feedGenerator) publish() error {
	var tick <-chan time.Time
	if g.load.Rate > 0 {
		t := time.NewTicker(time.Duration(float64(time.Second) * float64(g.load.Viewers) / float64(g.load.Rate)))
		defer t.Stop()
		tick = t.C
	}
	for {
		if tick != nil {
			<-tick
		}
		g.buf = g.buf[:0]
		n := uint64(0)
		for ; g.sent+n-g.complete.Load() < uint64(g.load.Window) && (tick == nil || n == 0); n++ {
			var err error
			if g.buf, err = g.pub.appendReading(g.buf, g.sent+n+1); err != nil {
				return err
			}
		}
		if n == 0 {
			select {
			case <-g.more:
				continue
			case <-g.stop:
				return nil
			}
		}
		g.sent += n
		if _, err := g.pub.conn.Write(g.buf); errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
