package bench

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/device"
)

// WatchLoad is what the generator of Transports does. It is given to its process as JSON.
type WatchLoad struct {
	Addr string `json:"addr"`
	// Way is the name of one of ways.
	Way string `json:"way"`
	// Floor says that the server hands on what the publisher sends as it is.
	Floor bool `json:"floor"`
	// Token is a viewer's, DeviceToken that of Device, which publishes.
	Token       string    `json:"token"`
	DeviceToken string    `json:"device_token"`
	Device      device.ID `json:"device"`
	Watchers    int       `json:"watchers"`
	// WarmUp and Duration are in seconds.
	WarmUp   float64 `json:"warmup"`
	Duration float64 `json:"duration"`
	// PID is the process of the server, whose processor time is measured.
	PID int `json:"pid"`
}

// ways are the transports, each with what a watcher does all the time.
var ways = []struct {
	name  string
	watch func(*watcher) error
}{
	{"poll", (*watcher).poll}, {"long poll", (*watcher).longPoll}, {"sse", (*watcher).events}, {"websocket", (*watcher).socket},
	{"socket.io", (*watcher).socketIO},
}

// Ways returns the names of the transports that Transports measures.
func Ways() []string {
	names := make([]string, len(ways))
	for i, w := range ways {
		names[i] = w.name
	}
	return names
}

// watchers is the publisher and all who watch.
type watchers struct {
	load      WatchLoad
	pub       *publisher
	list      []*watcher
	up, down  atomic.Uint64 // bytes
	updates   atomic.Uint64
	measuring atomic.Bool
	lossy     bool // polls of the floor see only the last reading
	following atomic.Int64
	ready     sync.WaitGroup // until everybody follows
	failed    chan error
	stopped   atomic.Bool
	running   sync.WaitGroup
}

// strangers is how many may be about to connect: a hub keeps only so many waiting whose token it has not seen.
const strangers = 256

// watcher is one who watches.
type watcher struct {
	all       *watchers
	index     int
	conn      net.Conn
	in        *bufio.Reader
	request   []byte
	token     string // of the last answer to a poll
	last      uint64
	ready     bool
	latencies []float64
}

// metered counts what goes over a connection.
type metered struct {
	net.Conn
	all *watchers
}

func (m metered) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.all.down.Add(uint64(n))
	return n, err
}

func (m metered) Write(p []byte) (int, error) {
	n, err := m.Conn.Write(p)
	m.all.up.Add(uint64(n))
	return n, err
}

// Run drives the server and reports what it saw. Result.Readings counts updates to all watchers together.
func (l WatchLoad) Run() (r Result, err error) {
	a := &watchers{load: l, failed: make(chan error, l.Watchers+1), lossy: l.Floor && l.Way == "poll"}
	at := slices.IndexFunc(ways, func(w struct {
		name  string
		watch func(*watcher) error
	}) bool {
		return w.name == l.Way
	})
	if at < 0 {
		return Result{}, fmt.Errorf("unknown way %q", l.Way)
	}
	defer a.close()
	if a.pub, err = newPublisher(l.Addr, l.DeviceToken, l.Device, l.Floor, climate()); err != nil {
		return Result{}, err
	}
	a.running.Go(a.publish)
	a.ready.Add(l.Watchers)
	for i := range l.Watchers {
		for int64(i)-a.following.Load() > strangers && len(a.failed) == 0 {
			time.Sleep(time.Millisecond)
		}
		w := &watcher{all: a, index: i}
		if err := w.connect(); err != nil {
			return Result{}, err
		}
		a.list = append(a.list, w)
		a.running.Go(func() {
			if err := ways[at].watch(w); err != nil && !a.stopped.Load() {
				a.failed <- fmt.Errorf("watcher %d after reading %d: %w", w.index, w.last, err)
			}
		})
	}
	everybody := make(chan struct{})
	go func() {
		a.ready.Wait()
		close(everybody)
	}()
	select {
	case <-everybody:
	case err := <-a.failed:
		return Result{}, err
	case <-time.After(time.Minute):
		return Result{}, errors.New("not everybody follows after a minute")
	}
	return a.measure()
}

func (a *watchers) measure() (r Result, err error) {
	wait := func(seconds float64) error {
		select {
		case err := <-a.failed:
			return err
		case <-time.After(time.Duration(seconds * float64(time.Second))):
			return nil
		}
	}
	if err := wait(a.load.WarmUp); err != nil {
		return Result{}, err
	}
	cpu, err := runSeconds(a.load.PID)
	if err != nil {
		return Result{}, err
	}
	a.measuring.Store(true)
	n, up, down, began := a.updates.Load(), a.up.Load(), a.down.Load(), time.Now()
	if err := wait(a.load.Duration); err != nil {
		return Result{}, err
	}
	r = Result{Readings: a.updates.Load() - n, Up: a.up.Load() - up, Down: a.down.Load() - down, Seconds: time.Since(began).Seconds()}
	later, err := runSeconds(a.load.PID)
	if err != nil {
		return Result{}, err
	}
	a.measuring.Store(false)
	r.ServerCPU = later - cpu
	if want := uint64(float64(a.load.Watchers) * a.load.Duration * 0.9); r.Readings < want {
		return Result{}, fmt.Errorf("%d updates came, want %d", r.Readings, want)
	}
	a.close()
	a.running.Wait()
	var all []float64
	for _, w := range a.list {
		all = append(all, w.latencies...)
	}
	slices.Sort(all)
	r.P50, r.P99 = all[len(all)/2], all[len(all)*99/100]
	return r, nil
}

func (a *watchers) close() {
	a.stopped.Store(true)
	for _, w := range a.list {
		_ = w.conn.Close() // the run is over
	}
}

// publish sends an update a second until the run is over.
func (a *watchers) publish() {
	defer a.pub.conn.Close() // nobody watches any more
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var frame []byte
	for n := uint64(1); !a.stopped.Load(); n++ {
		var err error
		if frame, err = a.pub.appendUpdate(frame[:0], n); err == nil {
			_, err = a.pub.conn.Write(frame)
		}
		if err != nil {
			a.failed <- fmt.Errorf("publisher: %w", err)
			return
		}
		<-tick.C
	}
}

func (w *watcher) connect() error {
	conn, err := net.Dial("tcp", w.all.load.Addr)
	if err != nil {
		return err
	}
	w.conn = metered{conn, w.all}
	w.in = bufio.NewReaderSize(w.conn, 4096)
	return nil
}

// take looks for updates in what came. What comes before the first one is not counted.
func (w *watcher) take(text []byte) error {
	if bytes.Contains(text, []byte(`"type":"snapshot"`)) {
		w.follows()
		return nil
	}
	for {
		n, rest, err := nextUpdate(text)
		if rest == nil {
			return nil
		}
		if err != nil || w.last > 0 && n != w.last+1 && !w.all.lossy {
			return fmt.Errorf("an update in %.200q", text)
		}
		text = rest
		w.last = n
		w.follows()
		a := w.all
		a.updates.Add(1)
		if a.measuring.Load() {
			sent := a.pub.sentAt[n%uint64(len(a.pub.sentAt))].Load()
			w.latencies = append(w.latencies, float64(int64(time.Since(a.pub.start))-sent)/1e6)
		}
	}
}

func (w *watcher) follows() {
	if !w.ready {
		w.ready = true
		w.all.following.Add(1)
		w.all.ready.Done()
	}
}

// get sends a request with the headers that a program sends, and returns the answer's head.
func (w *watcher) get(path, more string) (*http.Response, error) {
	w.request = fmt.Appendf(w.request[:0], "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: watcher\r\nAccept: */*\r\nAccept-Encoding: gzip, deflate\r\nAuthorization: Bearer %s\r\n%s\r\n",
		path, w.all.load.Addr, w.all.load.Token, more)
	if _, err := w.conn.Write(w.request); err != nil {
		return nil, err
	}
	return http.ReadResponse(w.in, nil)
}

// ask polls once: for what comes after the last answer, as the hub's clients do, or for what differs from it.
func (w *watcher) ask(wait string) error {
	path, more := "/api/v1/live/poll?mode=all&wait="+wait, ""
	switch {
	case w.token == "":
	case w.all.load.Floor:
		more = "If-None-Match: " + w.token + "\r\n"
	default:
		path += "&after=" + w.token
	}
	resp, err := w.get(path, more)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode == http.StatusNotModified:
		return nil
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %s", resp.Status, body)
	case w.all.load.Floor:
		w.token = resp.Header.Get("Etag")
		return w.take(body)
	case resp.Header.Get("Content-Encoding") == "deflate" && len(body) > 6:
		return inflate(body[2:len(body)-4], w.goOn) // without the head and the sum of RFC 1950
	}
	return w.goOn(body)
}

// goOn takes an answer of the hub to a poll.
func (w *watcher) goOn(text []byte) error {
	tail := text[max(0, bytes.LastIndex(text, []byte(`"token":"`))):]
	w.token = strings.Trim(strings.TrimPrefix(string(tail), `"token":`), `"}`)
	return w.take(text)
}

// poll asks once a second, each watcher at another moment of it.
func (w *watcher) poll() error {
	if err := w.ask("0"); err != nil {
		return err
	}
	time.Sleep(time.Second * time.Duration(w.index) / time.Duration(w.all.load.Watchers))
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for ; ; <-tick.C {
		if err := w.ask("0"); err != nil {
			return err
		}
	}
}

func (w *watcher) longPoll() error {
	for {
		if err := w.ask("25s"); err != nil {
			return err
		}
	}
}

func (w *watcher) events() error {
	resp, err := w.get("/api/v1/live/sse?mode=all", "")
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	body := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "deflate" {
		if body, err = zlib.NewReader(body); err != nil {
			return err
		}
	}
	lines := bufio.NewReaderSize(body, 4096)
	for {
		line, err := lines.ReadSlice('\n')
		if err == nil {
			err = w.take(line)
		}
		if err != nil {
			return err
		}
	}
}

func (w *watcher) socket() error {
	if err := w.upgrade("/api/v1/live"); err != nil {
		return err
	}
	if err := w.say(`{"subscribe":{"mode":"all"}}`); err != nil {
		return err
	}
	return w.listen(w.take)
}

// socketIO speaks Engine.IO v4 and Socket.IO v5 over WebSocket, as the stock client does once it has changed to that.
func (w *watcher) socketIO() error {
	if err := w.upgrade("/socket.io/?EIO=4&transport=websocket"); err != nil {
		return err
	}
	if err := w.say(`40{"token":"` + w.all.load.Token + `","subscribe":{"mode":"all"}}`); err != nil {
		return err
	}
	return w.listen(func(packet []byte) error {
		switch {
		case len(packet) > 0 && packet[0] == '2': // ping
			return w.say("3")
		case bytes.HasPrefix(packet, []byte("44")):
			return fmt.Errorf("refused: %s", packet)
		}
		return w.take(packet)
	})
}

// upgrade opens a WebSocket, with the offers that browsers make.
func (w *watcher) upgrade(path string) error {
	resp, err := w.get(path, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(resp.Status)
	}
	return err
}

func (w *watcher) say(text string) error {
	_, err := w.conn.Write(appendMasked(nil, 0x81, []byte(text)))
	return err
}

// listen gives every text to take.
func (w *watcher) listen(take func([]byte) error) error {
	for {
		head, err := w.in.Peek(1)
		if err != nil {
			return err
		}
		deflated := head[0]&0x40 != 0
		op, payload, err := readFrame(w.in)
		switch {
		case err != nil:
			return err
		case op == 0x8:
			return fmt.Errorf("closed: %q", payload)
		case op == 0x9:
			_, err = w.conn.Write(appendMasked(nil, 0x8a, payload))
		case op == 0x1 && deflated:
			err = inflate(payload, take)
		case op == 0x1:
			err = take(payload)
		}
		if err != nil {
			return err
		}
	}
}
