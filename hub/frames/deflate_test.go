package frames_test

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"telemetryhub/hub/deflate"
	"telemetryhub/hub/frames"
)

const (
	answer   = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	withBits = answer + "; server_max_window_bits=15"
)

func TestOffersOfCompressionAreAnswered(t *testing.T) {
	for _, c := range []struct {
		offers []string
		want   string
	}{
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"permessage-deflate"}, answer},
		{[]string{"Permessage-Deflate ; CLIENT_max_window_bits"}, answer},
		{[]string{"permessage-deflate; client_max_window_bits"}, answer}, // browsers
		{[]string{"permessage-deflate;client_max_window_bits=8;server_no_context_takeover; client_no_context_takeover"}, answer},
		{[]string{`permessage-deflate; client_max_window_bits="15"`}, answer},
		{[]string{"permessage-deflate; server_max_window_bits=15"}, withBits},
		{[]string{`permessage-deflate; server_max_window_bits="15"`}, withBits},
		{[]string{"permessage-deflate; server_max_window_bits=10, permessage-deflate"}, answer},
		{[]string{"permessage-deflate; server_max_window_bits=10", "x, permessage-deflate; server_max_window_bits=15"}, withBits},
		{[]string{`x; y="a, permessage-deflate, \", b", permessage-deflate`}, answer},
		{[]string{`x; y="permessage-deflate, permessage-deflate`}, ""},
		{[]string{"permessage-deflate; server_max_window_bits=14"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits=8"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits=16"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits="}, ""},
		{[]string{"permessage-deflate; server_max_window_bits=015"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits=7"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits=16"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits=1x"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits=010"}, ""},
		{[]string{"permessage-deflate; client_max_window_bits="}, ""},
		{[]string{"permessage-deflate; client_max_window_bits; client_max_window_bits=10"}, ""},
		{[]string{"permessage-deflate; server_no_context_takeover; server_no_context_takeover"}, ""},
		{[]string{"permessage-deflate; server_no_context_takeover=1"}, ""},
		{[]string{"permessage-deflate; client_no_context_takeover="}, ""},
		{[]string{"permessage-deflate; colour=red"}, ""},
		{[]string{"permessage-deflate;"}, ""},
		{[]string{"permessage-deflate-x, x-webkit-deflate-frame"}, ""},
		{[]string{"permessage-deflate; server_max_window_bits=15 15"}, ""},
	} {
		r := &http.Request{Header: http.Header{"Sec-Websocket-Extensions": c.offers}}
		if got := frames.AnswerDeflate(r); got != c.want {
			t.Errorf("%q is answered %q, want %q", c.offers, got, c.want)
		}
	}
}

func FuzzAnswerDeflate(f *testing.F) {
	for _, s := range []string{"permessage-deflate; client_max_window_bits", `x; y="a, \", b", permessage-deflate; server_max_window_bits=15`, ";,=\"\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, offer string) {
		r := &http.Request{Header: http.Header{"Sec-Websocket-Extensions": {offer}}}
		got := frames.AnswerDeflate(r)
		if got != "" && got != answer && got != withBits {
			t.Fatalf("%q is answered %q", offer, got)
		}
		if got != "" && !strings.Contains(strings.ToLower(offer), "permessage-deflate") {
			t.Fatalf("%q was taken", offer)
		}
	})
}

// deflated returns a frame of a client that holds what a peer with another implementation makes of a text.
func deflated(b0 byte, text string) []byte { return frame(b0|0x40, compressed(text)) }

func compressed(text string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression) // the level is valid
	_, _ = w.Write([]byte(text))                       // to memory
	_ = w.Flush()
	return strings.TrimSuffix(b.String(), deflate.Tail)
}

func TestDeflatedMessagesAreReadInTheirOrder(t *testing.T) {
	const text, binary, part, last, ping, closed = 0x81, 0x82, 0x01, 0x80, 0x89, 0x88
	bomb := compressed(strings.Repeat("x", 1001))
	for name, c := range map[string]struct {
		sent [][]byte
		want string // what the peer gets of control frames
		log  string
	}{
		"all kinds": {
			[][]byte{
				frame(text, "a"), deflated(text, "b"), deflated(binary, "\xff"), frame(binary, "c"), frame(ping, "p"), deflated(text, "d"), deflated(text, "e"), frame(text, "f"),
				deflated(text, ""), frame(closed, ""),
			},
			"\x88\x00", "true a\ntrue b\nfalse \xff\nfalse c\ncontrolled\ntrue d\ntrue e\ntrue f\ntrue \nleft 1005\nend\n",
		},
		"parts": {
			[][]byte{
				frame(part|0x40, compressed("a text")[:3]), frame(ping, ""), frame(0, ""), frame(last, compressed("a text")[3:]), frame(text, "b"),
				frame(part, "c"), frame(last, "d"), deflated(text, "e"), frame(closed, ""),
			},
			"\x88\x00", "controlled\ntrue a text\ntrue b\ntrue cd\ntrue e\nleft 1005\nend\n",
		},
		"a last block":        {[][]byte{frame(text|0x40, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), frame(closed, "")}, "\x88\x00", "true Hello\nleft 1005\nend\n"}, // section 7.2.3.4
		"two blocks":          {[][]byte{frame(text|0x40, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), frame(closed, "")}, "\x88\x00", "true Hello\nleft 1005\nend\n"},
		"as much as may be":   {[][]byte{deflated(text, strings.Repeat("x", 1000)), frame(closed, "")}, "\x88\x00", "true " + strings.Repeat("x", 1000) + "\nleft 1005\nend\n"},
		"more than may be":    {[][]byte{frame(text|0x40, bomb), frame(text, "unheard")}, "", "broke 1009\nleft 1000\nend\n"},
		"broken":              {[][]byte{frame(text|0x40, "\xff\xff\xff"), frame(text, "unheard")}, "", "broke 1007\nleft 1000\nend\n"},
		"a part of one":       {[][]byte{frame(text|0x40, compressed(strings.Repeat("xyz", 30))[:6])}, "", "broke 1007\nleft 1000\nend\n"},
		"more after the last": {[][]byte{frame(text|0x40, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"+compressed("x"))}, "", "broke 1007\nleft 1000\nend\n"},
		"no UTF-8":            {[][]byte{deflated(text, "\xff")}, "", "broke 1007\nleft 1000\nend\n"},
		"a mark on a ping":    {[][]byte{deflated(ping, "x")}, "", "broke 1002\nend\n"},
		"a mark on a part":    {[][]byte{frame(part|0x40, compressed("x")[:1]), frame(last|0x40, compressed("x")[1:])}, "", "broke 1002\nend\n"},
		"another mark":        {[][]byte{frame(text|0x60, compressed("x"))}, "", "broke 1002\nend\n"},
		"a reserved opcode":   {[][]byte{deflated(0x83, "x")}, "", "broke 1002\nend\n"},
		"a message in one":    {[][]byte{frame(part|0x40, compressed("x")[:1]), deflated(text, "x")}, "", "broke 1002\nend\n"},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			t.Run(fmt.Sprint(name, "/", size), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					o, peer := open(t, nil, "permessage-deflate; client_max_window_bits")
					if !o.Deflates() {
						t.Fatal("nothing was agreed on")
					}
					go func() {
						for rest := bytes.Join(c.sent, nil); len(rest) > 0; {
							n, err := peer.Write(rest[:min(size, len(rest))])
							if rest = rest[n:]; err != nil {
								return
							}
						}
					}()
					got, err := io.ReadAll(peer)
					if err != nil || !strings.Contains(string(got), c.want) || len(got) == 0 {
						t.Errorf("the peer got %q, %v", got, err)
					}
					<-o.over
					_ = peer.Close()
					if o.log.String() != c.log {
						t.Errorf("the owner was told %q, want %q", o.log.String(), c.log)
					}
				})
			})
		}
	}
}

// TestManyMessagesInOneReadKeepTheirMarks has the guard many messages ahead of gws.
func TestManyMessagesInOneReadKeepTheirMarks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, peer := open(t, nil, "permessage-deflate")
		var sent []byte
		var want strings.Builder
		random := rand.New(rand.NewPCG(3, 4))
		for i := range 90 { // the owner holds 100
			text := fmt.Sprint(i)
			if fmt.Fprintf(&want, "true %s\n", text); random.IntN(2) == 0 {
				sent = append(sent, deflated(0x81, text)...)
			} else {
				sent = append(sent, frame(0x81, text)...)
			}
		}
		go func() { _, _ = peer.Write(append(sent, frame(0x88, "")...)) }()
		if _, err := io.Copy(io.Discard, peer); err != nil {
			t.Error(err)
		}
		<-o.over
		_ = peer.Close()
		if got := o.log.String(); got != want.String()+"left 1005\nend\n" {
			t.Errorf("the owner was told %s", got)
		}
	})
}

func TestWithoutTheExtensionMarksAreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o, peer := open(t, nil)
		go func() { _, _ = peer.Write(deflated(0x81, "x")) }()
		if _, err := io.Copy(io.Discard, peer); err != nil {
			t.Error(err)
		}
		<-o.over
		_ = peer.Close()
		if got := o.log.String(); got != "broke 1002\nend\n" || o.Deflates() {
			t.Errorf("the owner was told %q", got)
		}
	})
}
