package ws_test

import (
	"bytes"
	"context"
	"runtime"
	"strings"
	"testing"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub/ws"
)

func TestFrameLengthsThatBreakGWSCloseTheConnection(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{})
	for name, n := range map[string]uint64{
		"2^64-1": 1<<64 - 1, "2^63": 1 << 63, "2^63+1": 1<<63 + 1, "2^63+4": 1<<63 + 4, "-4 as int64": 1<<64 - 4,
	} {
		for _, b0 := range []byte{fin | opText, opText, fin | opBinary, opBinary, fin | opContinuation, opContinuation} {
			c := dial(t, s.addr, "dev:a")
			c.put(maskedHeader(b0, n, "xxxxxxxx"))
			if c.wantClose(1002); t.Failed() {
				t.Fatalf("%s with first byte %#x", name, b0)
			}
		}
	}
	for _, n := range []uint64{64<<10 + 1, 1 << 20, 1<<63 - 1, 1<<63 - 4} {
		for _, b0 := range []byte{fin | opText, opBinary} {
			c := dial(t, s.addr, "dev:a")
			c.put(maskedHeader(b0, n, "xxxxxxxx"))
			c.wantClose(4513)
		}
	}
	if n := s.metrics.Panics.Load(); n != 0 {
		t.Errorf("%d panics", n)
	}
	echo(t, s, "dev:b")
}

// echo checks that the site still serves others.
func echo(t *testing.T, s *site, token string) {
	t.Helper()
	c := dial(t, s.addr, token)
	c.put(masked(fin|opText, "still there?"))
	c.want(opText, "still there?")
}

func TestFramesThatRFC6455ForbidsClose(t *testing.T) {
	unmasked := []byte{fin | opText, 2, 'h', 'i'}
	for name, c := range map[string]struct {
		sent []byte
		code uint16
	}{
		"unmasked":                     {unmasked, 1002},
		"RSV1":                         {masked(fin|opText|0x40, "x"), 1002},
		"RSV2":                         {masked(fin|opText|0x20, "x"), 1002},
		"RSV3":                         {masked(fin|opBinary|0x10, "x"), 1002},
		"RSV on a ping":                {masked(fin|opPing|0x40, "x"), 1002},
		"opcode 3":                     {masked(fin|3, "x"), 1002},
		"opcode 4":                     {masked(fin|4, ""), 1002},
		"opcode 5":                     {masked(fin|5, "x"), 1002},
		"opcode 6":                     {masked(fin|6, "x"), 1002},
		"opcode 7":                     {masked(fin|7, "x"), 1002},
		"opcode 11":                    {masked(fin|11, "x"), 1002},
		"opcode 15":                    {masked(fin|15, "x"), 1002},
		"fragmented ping":              {masked(opPing, "x"), 1002},
		"fragmented close":             {masked(opClose, "\x03\xe8"), 1002},
		"long ping":                    {masked(fin|opPing, strings.Repeat("x", 126)), 1002},
		"long close":                   {masked(fin|opClose, "\x03\xe8"+strings.Repeat("x", 130)), 1002},
		"ping of 65,536":               {masked(fin|opPing, strings.Repeat("x", 65536)), 1002},
		"ping over the limit":          {maskedHeader(fin|opPing, 65537, "x"), 1002},
		"continuation of nothing":      {masked(fin|opContinuation, "x"), 1002},
		"open continuation of nothing": {masked(opContinuation, "x"), 1002},
		"text inside a message":        {append(masked(opText, "a"), masked(fin|opText, "b")...), 1002},
		"open text inside a message":   {append(masked(opText, "a"), masked(opText, "b")...), 1002},
		"binary inside a text":         {append(masked(opText, "a"), masked(fin|opBinary, "b")...), 1002},
		"not UTF-8":                    {masked(fin|opText, "\xff\xfe"), 1007},
		"overlong UTF-8":               {masked(fin|opText, "\xc0\xaf"), 1007},
		"surrogate":                    {masked(fin|opText, "\xed\xa0\x80"), 1007},
		"rune cut at the end":          {masked(fin|opText, "\xe2\x82"), 1007},
		"bad rune over two fragments":  {append(masked(opText, "\xe2\x82"), masked(fin|opContinuation, "x")...), 1007},
		"close reason not UTF-8":       {closeFrame(1000, "\xff"), 1007},
		"message over the limit":       {append(masked(opBinary, strings.Repeat("x", 40<<10)), masked(fin|opContinuation, strings.Repeat("x", 40<<10))...), 4513},
		"close with 1 byte":            {masked(fin|opClose, "\x03"), 1002},
		"close with 0":                 {closeFrame(0, ""), 1002},
		"close with 999":               {closeFrame(999, ""), 1002},
		"close with 1004":              {closeFrame(1004, ""), 1002},
		"close with 1005":              {closeFrame(1005, ""), 1002},
		"close with 1006":              {closeFrame(1006, ""), 1002},
		"close with 1015":              {closeFrame(1015, ""), 1002},
		"close with 1016":              {closeFrame(1016, ""), 1002},
		"close with 2999":              {closeFrame(2999, ""), 1002},
		"close with 5000":              {closeFrame(5000, ""), 1002},
		"close with 65535":             {closeFrame(65535, ""), 1002},
		"close with nothing":           {masked(fin|opClose, ""), 1005},
		"close with 1000":              {closeFrame(1000, "bye"), 1000},
		"close with 1001":              {closeFrame(1001, ""), 1000},
		"close with 3000":              {closeFrame(3000, ""), 3000},
		"close with 4999":              {closeFrame(4999, ""), 4999},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub()
			s, _ := devices(t, h, ws.Options{})
			d := dial(t, s.addr, "dev:a")
			d.put(c.sent)
			d.wantClose(c.code)
			session := wait(t, h.connected, "the session")
			wait(t, session.ended, "the end of the session")
			if got := session.got(); len(got) != 0 {
				t.Errorf("the hub got %v", got)
			}
			if n := s.metrics.Panics.Load(); n != 0 {
				t.Errorf("%d panics", n)
			}
		})
	}
}

func TestCompressionIsNotAgreedOnNorRead(t *testing.T) {
	deflated := "\xab\x56\x2a\x51\xb2\x52\x50\xaa\x05\x00" // valid with the extension
	for offer, tokens := range map[string][]string{
		"permessage-deflate": {"dev:a"}, "permessage-deflate; client_max_window_bits": {"dev:a"}, "permessage-deflate; server_max_window_bits=10, x": {"dev:a", "viewer"},
	} {
		for _, sent := range [][]byte{
			masked(fin|opText|0x40, deflated), append(masked(opText|0x40, deflated), masked(fin|opContinuation, "")...),
			append(masked(opText, "a"), masked(fin|opContinuation|0x40, deflated)...),
		} {
			h := newFakeHub()
			forDevices, _ := devices(t, h, ws.Options{})
			forViewers, _ := viewers(t, newFakeFeed(), ws.Options{})
			for _, token := range tokens {
				s := map[string]*site{"dev:a": forDevices, "viewer": forViewers}[token]
				c, resp := open(t, s.addr, request(token, "Sec-WebSocket-Extensions: "+offer))
				if got := resp.Header.Values("Sec-WebSocket-Extensions"); resp.StatusCode != 101 || len(got) != 0 {
					t.Fatalf("%s: %s with extensions %q", token, resp.Status, got)
				}
				c.put(sent)
				c.wantClose(1002)
			}
			if got := wait(t, h.connected, "the session").got(); len(got) != 0 {
				t.Errorf("the hub got %v", got)
			}
		}
	}
}

func TestMessagesArriveWhole(t *testing.T) {
	full := strings.Repeat("0123456789abcdef", 4096)
	var bytewise, snippets [][]byte
	for i := range 1000 {
		b0 := byte(opContinuation)
		switch i {
		case 0:
			b0 = opText
		case 999:
			b0 = fin | opContinuation
		}
		bytewise = append(bytewise, masked(b0, full[i:i+1]))
	}
	for i, r := range []string{"\xe2", "\x82", "\xac"} {
		snippets = append(snippets, masked([]byte{opText, opContinuation, fin | opContinuation}[i], r), masked(fin|opPing, "between"))
	}
	for name, c := range map[string]struct {
		sent   [][]byte
		format wire.Format
		want   string
	}{
		"text":                  {[][]byte{masked(fin|opText, "hallo, Grüße")}, wire.JSON, "hallo, Grüße"},
		"binary":                {[][]byte{masked(fin|opBinary, "\xff\x00\xfe")}, wire.CBOR, "\xff\x00\xfe"},
		"empty":                 {[][]byte{masked(fin|opText, "")}, wire.JSON, ""},
		"125 bytes":             {[][]byte{masked(fin|opText, full[:125])}, wire.JSON, full[:125]},
		"126 bytes":             {[][]byte{masked(fin|opText, full[:126])}, wire.JSON, full[:126]},
		"64 KiB":                {[][]byte{masked(fin|opBinary, full)}, wire.CBOR, full},
		"1,000 fragments":       {bytewise, wire.JSON, full[:1000]},
		"rune over 3 fragments": {snippets, wire.JSON, "€"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub()
			s, _ := devices(t, h, ws.Options{})
			all := bytes.Join(c.sent, nil)
			for _, split := range []int{len(all), 1} {
				if split == 1 && len(all) > 8000 {
					continue
				}
				d := dial(t, s.addr, "dev:a")
				for rest := all; len(rest) > 0; {
					n := min(split, len(rest))
					d.put(rest[:n])
					rest = rest[n:]
				}
				for {
					op, got, err := d.read()
					if err != nil {
						t.Fatal(err)
					}
					if op == fin|opPong {
						continue
					}
					if got != c.want {
						t.Fatalf("got back %d bytes %.40q, want %d bytes %.40q", len(got), got, len(c.want), c.want)
					}
					break
				}
				session := wait(t, h.connected, "the session")
				if got := session.got(); len(got) != 1 || got[0].format != c.format {
					t.Fatalf("the hub got %d messages", len(got))
				}
			}
		})
	}
}

func TestEndlessFragmentsAreCut(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{})
	for name, part := range map[string]string{"empty": "", "one byte": "x"} {
		c := dial(t, s.addr, "dev:a")
		c.put(masked(opText, part), bytes.Repeat(masked(opContinuation, part), 100_000))
		if got := c.wantClose(4500); !strings.Contains(got, "fragments") {
			t.Errorf("%s: closed with %q", name, got)
		}
	}
	if n := s.metrics.BytesIn.Load(); n > 2*(2000*7+8192) {
		t.Errorf("%d bytes were read", n)
	}
}

func TestControlFloodsAreCut(t *testing.T) {
	for name, flood := range map[string][]byte{
		"pings": masked(fin|opPing, "x"), "pongs": masked(fin|opPong, "x"), "empty pings": masked(fin|opPing, ""),
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHub()
			s, _ := devices(t, h, ws.Options{})
			c := dial(t, s.addr, "dev:a")
			c.put(bytes.Repeat(flood, 10_000))
			c.wantClose(4029)
			session := wait(t, h.connected, "the session")
			wait(t, session.ended, "the end of the session")
			if n := len(session.signs); n > 150 {
				t.Errorf("%d control frames were let through", n)
			}
		})
	}
}

func TestPingIsAnsweredWithItsPayload(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	for _, payload := range []string{"", "x", strings.Repeat("y", 125)} {
		c.put(masked(fin|opPing, payload))
		c.want(opPong, payload)
	}
	session := wait(t, h.connected, "the session")
	wait(t, session.signs, "a sign of life")
}

func TestFramesBehindTheRequestAreNotLost(t *testing.T) {
	s, _ := devices(t, newFakeHub(), ws.Options{})
	first, second := masked(fin|opText, "first"), masked(fin|opText, strings.Repeat("s", 9000))
	c, resp := open(t, s.addr, request("dev:a")+string(first)+string(second)+string(masked(fin|opText, "third")))
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	c.want(opText, "first")
	c.want(opText, strings.Repeat("s", 9000))
	c.want(opText, "third")
}

// Headers that announce a full frame, with nothing behind: gws makes room for the whole frame, rounded up to 128 KiB,
// when the header comes. Memory that is never written costs no RSS, but it counts as heap.
func TestAnnouncedFramesCostNoMoreThanAFrameEach(t *testing.T) {
	const sockets = 300
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{FirstFrame: 2 * time.Second})
	before := heap()
	var all []*client
	for range sockets {
		c := dial(t, s.addr, "dev:a")
		c.put(maskedHeader(fin|opBinary, 64<<10, "begin"))
		all = append(all, c)
	}
	for range sockets {
		wait(t, h.connected, "the sessions")
	}
	if got := int64(heap()-before) / sockets; got > 160<<10 {
		t.Errorf("a socket costs %d bytes of heap, want at most 128 KiB and its own", got)
	}
	for _, c := range all {
		c.wantClose(4001)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestCloseFrameSurvivesUnreadInput(t *testing.T) {
	h := newFakeHub()
	h.receive = nil
	s, _ := devices(t, h, ws.Options{})
	for range 20 {
		c := dial(t, s.addr, "dev:a")
		session := wait(t, h.connected, "the session")
		flooding := make(chan struct{})
		go func() {
			defer close(flooding)
			chunk := bytes.Repeat(masked(fin|opBinary, strings.Repeat("x", 1000)), 30)
			for {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}()
		if _, _, err := c.read(); err != nil {
			t.Fatal(err)
		}
		session.peer.Close(wire.CloseRevoked, wire.CloseRevoked.Reason())
		c.wantClose(4503)
		_ = c.Close()
		<-flooding
	}
}

func TestNothingIsTakenAfterClose(t *testing.T) {
	h := newFakeHub()
	s, auth := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	session := wait(t, h.connected, "the session")
	c.put(masked(fin|opText, "one"))
	c.want(opText, "one")
	if n := auth.tell("dev:a", "revoked"); n != 1 {
		t.Fatalf("%d connections watch the token, want 1", n)
	}
	c.put(masked(fin|opText, "two"))
	c.wantClose(4503)
	wait(t, session.ended, "the end of the session")
	if got := session.got(); len(got) != 1 {
		t.Errorf("the hub got %v", got)
	}
	if n := auth.tell("dev:a", "revoked"); n != 0 {
		t.Errorf("%d connections still watch the token", n)
	}
}

func TestFramesThatWaitBehindAClosingOneAreNotTaken(t *testing.T) {
	h := newFakeHub()
	h.receive = func(_ context.Context, s *fakeSession, _ wire.Format, _ []byte) error {
		s.peer.Close(wire.CloseRevoked, "revoked")
		return nil
	}
	s, _ := devices(t, h, ws.Options{})
	c := dial(t, s.addr, "dev:a")
	c.put(masked(fin|opText, "one"), masked(fin|opText, "two"), masked(fin|opText, "three"))
	c.wantClose(4503)
	session := wait(t, h.connected, "the session")
	wait(t, session.ended, "the end of the session")
	if got := session.got(); len(got) != 1 {
		t.Errorf("the hub got %v", got)
	}
}

func TestTruncatedTCPEndsTheSession(t *testing.T) {
	h := newFakeHub()
	s, _ := devices(t, h, ws.Options{})
	frame := masked(fin|opText, "hello")
	for cut := range len(frame) {
		c := dial(t, s.addr, "dev:a")
		c.put(frame[:cut])
		_ = c.Close()
		session := wait(t, h.connected, "the session")
		wait(t, session.ended, "the end of the session")
	}
}
