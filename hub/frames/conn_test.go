package frames_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"telemetryhub/hub/crew"
	"telemetryhub/hub/frames"
)

// owner notes what it is told.
type owner struct {
	frames.Conn
	limit    atomic.Int64
	panics   bool // Receive does
	out      chan string
	log      strings.Builder // the reader's own
	panicked any
	over     chan struct{}
}

func (o *owner) Fill(dst []byte) ([]byte, bool) {
	dst = o.AppendControl(dst)
	select {
	case text := <-o.out:
		return frames.Finish(append(frames.Begin(dst), text...), len(dst), frames.Text), true
	default:
		return dst, false
	}
}

func (o *owner) Came(int) (frame, message uint64) {
	return uint64(o.limit.Load()), uint64(o.limit.Load())
}

func (o *owner) Receive(text bool, data []byte) {
	if o.panics {
		panic("no")
	}
	fmt.Fprintf(&o.log, "%t %s\n", text, data)
	o.out <- string(data)
	o.Wake()
}

func (o *owner) Controlled() { o.log.WriteString("controlled\n") }

func (o *owner) Left(code uint16) {
	fmt.Fprintf(&o.log, "left %d\n", code)
	o.Close(code, "")
}

func (o *owner) Broke(code uint16, reason string) {
	fmt.Fprintf(&o.log, "broke %d\n", code)
	o.Close(code, reason)
}

func (o *owner) Over(panicked any) {
	if o.panicked = panicked; panicked != nil {
		o.Close(frames.CloseInternal, "no")
	}
	o.Settle(func() { o.log.WriteString("end\n") })
	close(o.over)
}

// open upgrades one end of a connection and returns the other one. early is what the peer sends right behind its request.
func open(t *testing.T, early []byte, offer ...string) (*owner, io.ReadWriteCloser) {
	t.Helper()
	deflate := frames.AnswerDeflate(&http.Request{Header: http.Header{"Sec-Websocket-Extensions": offer}})
	o := &owner{out: make(chan string, 100), over: make(chan struct{})}
	o.limit.Store(1000)
	o.Init(&crew.Rules{
		Crew: crew.New(), WriteTimeout: 10 * time.Second, CloseTimeout: 2 * time.Second, Written: new(atomic.Uint64),
	}, o)
	ours, theirs := net.Pipe()
	o.Take(ours, early)
	opened := make(chan error, 1)
	go func() {
		opened <- frames.NewUpgrader(1000, 64, "one", "two").Open(&o.Conn, "dGhlIHNhbXBsZSBub25jZQ==", "two", deflate)
	}()
	in := bufio.NewReader(theirs)
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get(frames.HeaderProtocol) != "two" ||
		resp.Header.Get("Sec-WebSocket-Extensions") != deflate || resp.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" { // RFC 6455 section 1.3
		t.Fatalf("the upgrade was answered %v, %v", resp, err)
	}
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	o.Read()
	o.Release()
	return o, struct {
		io.Reader
		io.WriteCloser
	}{in, theirs}
}

// frame returns a short frame of a client, with a masking key of zeros.
func frame(b0 byte, payload string) []byte {
	return append([]byte{b0, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)
}

func closeOf(code uint16, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, code)) + reason
}

func TestConversation(t *testing.T) {
	const text, ping, closed = 0x81, 0x89, 0x88
	for name, c := range map[string]struct {
		early, sent []byte
		prepare     func(*owner)
		want        string // what the peer gets
		log         string
		panicked    any
	}{
		"messages and an end": {
			early: frame(text, "early"), sent: append(frame(text, "later"), frame(closed, closeOf(1001, "bye"))...),
			want: "\x81\x05early\x81\x05later\x88\x02" + closeOf(1000, ""), log: "true early\ntrue later\nleft 1000\nend\n",
		},
		"a pong": {
			sent: append(frame(ping, "there?"), frame(closed, "")...),
			want: "\x8a\x06there?\x88\x00", log: "controlled\nleft 1005\nend\n",
		},
		"what gws finds":       {sent: frame(text, "\xff"), want: "\x88\x02" + closeOf(1007, ""), log: "broke 1007\nend\n"},
		"what the guard finds": {sent: maskedLong(), want: "\x88\x2a" + closeOf(1002, "the highest bit of a frame length is set"), log: "broke 1002\nleft 1000\nend\n"},
		"a limit that changes": {
			prepare: func(o *owner) { o.limit.Store(3) }, sent: frame(text, "four"),
			want: "\x88\x1a" + closeOf(1009, "a message over the limit"), log: "broke 1009\nleft 1000\nend\n",
		},
		"the first end wins": {
			prepare: func(o *owner) { o.Close(4000, strings.Repeat("ä", 70)) }, sent: frame(text, "unheard"),
			want: "\x88\x7c" + closeOf(4000, strings.Repeat("ä", 61)), log: "left 1000\nend\n",
		},
		"a panic": {
			prepare: func(o *owner) { o.panics = true }, sent: frame(text, "x"),
			want: "\x88\x04" + closeOf(1011, "no"), log: "end\n", panicked: "no",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o, peer := open(t, c.early)
				life := o.Life()
				if c.prepare != nil {
					c.prepare(o)
				}
				go func() { _, _ = peer.Write(c.sent) }()
				got, err := io.ReadAll(peer)
				if err != nil || string(got) != c.want {
					t.Errorf("the peer got %q, %v, want %q", got, err, c.want)
				}
				<-o.over
				_ = peer.Close()
				if o.log.String() != c.log || o.panicked != c.panicked {
					t.Errorf("the owner was told %q and %v, want %q and %v", o.log.String(), o.panicked, c.log, c.panicked)
				}
				<-life.Done()
			})
		})
	}
}

// maskedLong is a header with the highest bit of the length set.
func maskedLong() []byte {
	return append(binary.BigEndian.AppendUint64([]byte{0x82, 0xff}, 1<<63), 0, 0, 0, 0)
}

func TestPeerThatHangsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, peer := open(t, nil)
		_ = peer.Close()
		<-o.over
		if code, _ := o.Ended(); code != frames.CloseLost || o.log.String() != "end\n" {
			t.Errorf("it ended with %d, and %q", code, o.log.String())
		}
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, peer := open(t, nil)
		o.Ping()
		if got := make([]byte, 2); !read(peer, got) || !bytes.Equal(got, []byte{0x89, 0}) {
			t.Errorf("the peer got %x", got)
		}
		_ = peer.Close()
		<-o.over
	})
}

func read(from io.Reader, p []byte) bool { _, err := io.ReadFull(from, p); return err == nil }

func TestHeadersOfAllLengths(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 300_000} {
		body := strings.Repeat("x", n)
		form, want := frames.Binary|frames.Deflated, []byte("before\xc2")
		if n%2 == 0 {
			form, want = frames.Text, []byte("before\x81")
		}
		got := frames.Finish(append(frames.Begin([]byte("before")), body...), 6, form)
		switch {
		case n <= 125:
			want = append(want, byte(n))
		case n <= 65535:
			want = binary.BigEndian.AppendUint16(append(want, 126), uint16(n))
		default:
			want = binary.BigEndian.AppendUint64(append(want, 127), uint64(n))
		}
		if want = append(want, body...); !bytes.Equal(got, want) {
			t.Errorf("%d bytes have the header %x", n, got[6:min(len(got), 20)])
		}
	}
}

func TestOpeningHandshake(t *testing.T) {
	const key = "dGhlIHNhbXBsZSBub25jZQ=="
	for _, c := range []struct {
		name, value     string
		wants, is13, ok bool
	}{
		{"Connection", "keep-alive, Upgrade", true, true, true},
		{"Connection", "close", false, true, true},
		{"Upgrade", "WebSocket", true, true, true},
		{"Upgrade", "h2c", false, true, true},
		{frames.HeaderVersion, " 13 ", true, true, true},
		{frames.HeaderVersion, "8", true, false, true},
		{"Sec-WebSocket-Key", "c2hvcnQ=", true, true, false},
		{"Sec-WebSocket-Key", "no base64", true, true, false},
	} {
		r := &http.Request{Header: http.Header{}}
		for name, value := range map[string]string{
			"Connection": "upgrade", "Upgrade": "websocket", frames.HeaderVersion: "13", "Sec-WebSocket-Key": key, c.name: c.value,
		} {
			r.Header.Set(name, value)
		}
		if wants, is13, got := frames.WantsUpgrade(r), frames.IsVersion13(r), frames.Key(r); wants != c.wants || is13 != c.is13 || (got == key) != c.ok {
			t.Errorf("%s: %s: %t, %t, %q", c.name, c.value, wants, is13, got)
		}
	}
	twice := &http.Request{Header: http.Header{"Sec-Websocket-Key": {key, key}, frames.HeaderVersion: {"13", "13"}}}
	if frames.Key(twice) != "" || frames.IsVersion13(twice) {
		t.Error("what is there twice was taken")
	}
}
