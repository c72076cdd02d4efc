package eio_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"telemetryhub/hub/sio/eio"
	"telemetryhub/hub/sio/siotest"
)

func TestAStrangerMayOnlySendSoMuch(t *testing.T) {
	r := serve(t, eio.Options{StrangerPayload: 100, MaxPayload: 1000})
	p := r.Poll()
	if status := p.Post("4" + strings.Repeat("x", 100)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("101 bytes were answered %d", status)
	}
	r.stream(t).wait(t)
	p = r.Poll()
	p.Send("4" + strings.Repeat("x", 99))
	p.Want("4" + strings.Repeat("x", 99))
	p.Send("4admit")
	p.Want("4admit")
	p.Send("4" + strings.Repeat("x", 999))
	p.Want("4" + strings.Repeat("x", 999))
	if status := p.Post("4" + strings.Repeat("x", 1000)); status != http.StatusRequestEntityTooLarge {
		t.Errorf("1,001 bytes were answered %d", status)
	}

	for name, send := range map[string]func(c *siotest.Socket){
		"one frame":  func(c *siotest.Socket) { c.Say("4" + strings.Repeat("x", 100)) },
		"the header": func(c *siotest.Socket) { c.Put(siotest.FrameOf(siotest.Fin|siotest.OpText, 101, "4")) },
		"fragments": func(c *siotest.Socket) {
			c.Put(siotest.Frame(siotest.OpText, "4"+strings.Repeat("x", 59)), siotest.FrameOf(siotest.Fin, 41, ""))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := r.Open()
			send(c)
			c.WantClose(1009)
		})
	}
	c, _ := r.Open()
	c.Say("4admit")
	c.Want("4admit")
	long := "4" + strings.Repeat("x", 999)
	c.Say(long)
	c.Want(long)
	c.Put(siotest.Frame(siotest.OpText, "4"+strings.Repeat("x", 499)), siotest.Frame(siotest.Fin, strings.Repeat("x", 500)))
	c.Want(long)
	c.Say(long + "x")
	c.WantClose(1009)
}

func TestAStrangerHasOnlySoMuchTime(t *testing.T) {
	r := serve(t, eio.Options{StrangerTimeout: time.Second})
	c, _ := r.Open()
	p := r.Poll()
	got := make(chan string, 1)
	r.waitsIn(t, p, got)
	c.Say("4alive")
	c.Want("4alive")
	c.WantClose(4001)
	if answer := <-got; answer != "1" {
		t.Errorf("the poll was answered %q", answer)
	}
	c, _ = r.Open()
	c.Say("4admit")
	c.Want("4admit")
	c.Say("4dismiss")
	c.Want("4dismiss")
	c.WantClose(4001)
}

// The body of a request must come in a stranger's time too.
func TestAStrangerCannotHoldARequest(t *testing.T) {
	r := serve(t, eio.Options{StrangerTimeout: 50 * time.Millisecond})
	p := r.Poll()
	e := r.stream(t)
	_, resp := r.Knock("POST /socket.io/?EIO=4&transport=polling&sid=" + p.SID + " HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n\r\n4x")
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("half a request was answered %s", resp.Status)
	}
	e.wait(t)
}

func TestARefusedRequestIsNotWaitedFor(t *testing.T) {
	r := serve(t, eio.Options{WriteTimeout: 50 * time.Millisecond})
	for _, query := range []string{"transport=polling&sid=unknown", "transport=abc", "transport=polling"} {
		_, resp := r.Knock("POST /socket.io/?EIO=4&" + query + " HTTP/1.1\r\nHost: hub\r\nContent-Length: 5\r\n\r\n4x")
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("half a request was answered %s", resp.Status)
		}
	}
}

func TestStrangersGiveWay(t *testing.T) {
	const places = 4
	source := func(r *http.Request) netip.Addr { return netip.MustParseAddr(r.Header.Get("From-Test")) }
	r := serve(t, eio.Options{MaxStrangers: places, StrangerTimeout: 5 * siotest.Patience, Source: source}) // all of it happens in their grace
	many := make([]*siotest.Socket, places)
	for i := range many {
		many[i], _ = r.Open("From-Test: 192.0.2.1")
	}
	if status, _ := r.Ask(http.MethodGet, "transport=polling", "", "From-Test: 192.0.2.1"); status != http.StatusServiceUnavailable {
		t.Errorf("one more from the same address was answered %d", status)
	}
	other, _ := r.Open("From-Test: 192.0.2.2")
	many[0].WantClose(4001) // the oldest of the many
	other.Say("4here")
	other.Want("4here")
	many[1].Say("4admit")
	many[1].Want("4admit")
	r.Open("From-Test: 192.0.2.1") // there is a place again
	if n := r.metrics.Displaced.Load(); n != 1 {
		t.Errorf("counted %d that gave way", n)
	}
}

func TestThereAreOnlySoManySessions(t *testing.T) {
	r := serve(t, eio.Options{MaxSessions: 2})
	r.Poll()
	r.Open()
	status, _ := r.Ask(http.MethodGet, "transport=polling", "")
	if status != http.StatusServiceUnavailable {
		t.Errorf("the third session was answered %d", status)
	}
}

// gws v1.8.9 panics on a length whose highest bit is set, and knows no limit on fragments and control frames.
func TestFramesThatGWSCannotBear(t *testing.T) {
	r := serve(t, eio.Options{})
	for name, c := range map[string]struct {
		frames [][]byte
		code   uint16
	}{
		"top bit":           {[][]byte{siotest.FrameOf(siotest.Fin|siotest.OpText, 1<<63+1, "")}, 1002},
		"long ping":         {[][]byte{siotest.FrameOf(siotest.Fin|siotest.OpPing, 126, "")}, 1002},
		"reserved bit":      {[][]byte{siotest.Frame(siotest.Fin|0x40|siotest.OpText, "4x")}, 1002},
		"unmasked":          {[][]byte{{siotest.Fin | siotest.OpText, 2, '4', 'x'}}, 1002},
		"not UTF-8":         {[][]byte{siotest.Frame(siotest.Fin|siotest.OpText, "4\xff")}, 1007},
		"many fragments":    {append([][]byte{siotest.Frame(siotest.OpText, "4")}, repeat(siotest.Frame(0, ""), 1100)...), 1008},
		"many pings":        {repeat(siotest.Frame(siotest.Fin|siotest.OpPing, "x"), 200), 4029},
		"no packet":         {[][]byte{siotest.Frame(siotest.Fin|siotest.OpText, "abc")}, 1008},
		"nothing":           {[][]byte{siotest.Frame(siotest.Fin|siotest.OpText, "")}, 1008},
		"ping of a client":  {[][]byte{siotest.Frame(siotest.Fin|siotest.OpText, "2")}, 1008},
		"a message too bad": {[][]byte{siotest.Frame(siotest.Fin|siotest.OpText, "4bad")}, 1008},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := r.Open()
			s.Put(c.frames...)
			s.WantClose(c.code)
		})
	}
	if n := r.metrics.Panics.Load(); n != 0 {
		t.Errorf("%d panics", n)
	}
	c, _ := r.Open()
	c.Put(siotest.Frame(siotest.Fin|siotest.OpPing, "payload"))
	if b0, got, err := c.Read(); err != nil || b0 != siotest.Fin|siotest.OpPong || got != "payload" {
		t.Errorf("a ping was answered %#x %q, %v", b0, got, err)
	}
}

func repeat(frame []byte, n int) (frames [][]byte) {
	for range n {
		frames = append(frames, frame)
	}
	return frames
}

func TestFramesOfEverySizeArriveWhole(t *testing.T) {
	r := serve(t, eio.Options{})
	c, _ := r.Open()
	e := r.stream(t)
	e.Admit()
	for _, n := range []int{0, 1, 123, 124, 125, 126, 127, 65533, 65534, 65535, 65536, 300_000} {
		data := strings.Repeat("x", n)
		e.send(message{true, data}, message{false, data}, message{true, fmt.Sprint(n)})
		c.Want("4" + data)
		c.WantBinary(data)
		c.Want("4" + fmt.Sprint(n))
	}
}

func TestAClientThatDoesNotReadIsCut(t *testing.T) {
	r := serve(t, eio.Options{WriteTimeout: 500 * time.Millisecond})
	c, _ := r.Open()
	e := r.stream(t)
	e.Admit()
	for range 200 {
		e.push(message{true, strings.Repeat("x", 1<<17)})
	}
	e.Wake()
	e.wait(t)
	_ = c.Close()
}

func TestClosingDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	r := serve(t, eio.Options{WriteTimeout: time.Hour, CloseTimeout: 100 * time.Millisecond})
	r.Open()
	e := r.stream(t)
	e.Admit()
	for range 200 {
		e.push(message{true, strings.Repeat("x", 1<<17)})
	}
	e.Wake()
	siotest.Until(t, "the socket to be full", func() bool { return r.metrics.BytesOut.Load() > 100_000 })
	e.Close(4001, "enough")
	e.wait(t)
}
