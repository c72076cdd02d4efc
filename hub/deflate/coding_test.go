package deflate_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"telemetryhub/hub/deflate"
)

func TestCodingsAreAcceptedAsTheHeaderSays(t *testing.T) {
	for _, c := range []struct {
		header []string
		want   deflate.Coding
	}{
		{nil, deflate.Identity},
		{[]string{""}, deflate.Identity},
		{[]string{"identity"}, deflate.Identity},
		{[]string{"br"}, deflate.Identity},
		{[]string{"gzip"}, deflate.Gzip},
		{[]string{"deflate"}, deflate.Zlib},
		{[]string{"gzip, deflate, br, zstd"}, deflate.Zlib}, // browsers
		{[]string{"GZIP ,\tDeflate"}, deflate.Zlib},
		{[]string{"gzip", "deflate"}, deflate.Zlib},
		{[]string{"gzip;q=1.0, deflate;q=0.9"}, deflate.Gzip},
		{[]string{"deflate; q=0.5, gzip; Q=0.5"}, deflate.Zlib},
		{[]string{"deflate;q=0, gzip"}, deflate.Gzip},
		{[]string{"deflate;q=0, gzip;q=0.000"}, deflate.Identity},
		{[]string{"*"}, deflate.Zlib},
		{[]string{"*;q=0"}, deflate.Identity},
		{[]string{"deflate;q=0, *"}, deflate.Gzip},
		{[]string{"gzip, *;q=0"}, deflate.Gzip},
		{[]string{"gzip;q=0.5, identity"}, deflate.Identity},
		{[]string{"gzip, identity;q=0.5"}, deflate.Gzip},
		{[]string{"identity;q=0, gzip;q=0.1"}, deflate.Gzip},
		{[]string{",, gzip ,"}, deflate.Gzip},
		{[]string{"gzip;q=2"}, deflate.Identity},
		{[]string{"gzip;q=NaN"}, deflate.Identity},
		{[]string{"gzip;q=-1"}, deflate.Identity},
		{[]string{"gzip;q="}, deflate.Identity},
		{[]string{"gzip;level=9"}, deflate.Identity},
		{[]string{"deflated, xgzip"}, deflate.Identity},
	} {
		if got := deflate.Accepted(c.header, deflate.Zlib, deflate.Gzip); got != c.want {
			t.Errorf("%q accepts %s, want %s", c.header, got, c.want)
		}
	}
}

func TestOnlyCodingsThatThereAreAreAccepted(t *testing.T) {
	for header, want := range map[string]deflate.Coding{
		"gzip;q=1.0,deflate;q=0.6,identity;q=0.3": deflate.Zlib, // Net::HTTP of Ruby
		"gzip":                              deflate.Identity,
		"gzip, *;q=0.1":                     deflate.Zlib,
		"gzip, deflate;q=0":                 deflate.Identity,
		"gzip, deflate;q=.1, identity;q=.2": deflate.Identity,
	} {
		if got := deflate.Accepted([]string{header}, deflate.Zlib); got != want {
			t.Errorf("%q accepts %s, want %s", header, got, want)
		}
	}
}

// reader reads a body as the standard library does.
func reader(c deflate.Coding, r io.Reader) (io.ReadCloser, error) {
	switch c {
	case deflate.Zlib:
		return zlib.NewReader(r)
	case deflate.Gzip:
		return gzip.NewReader(r)
	}
	return io.NopCloser(r), nil
}

var codings = []deflate.Coding{deflate.Identity, deflate.Zlib, deflate.Gzip}

// TestEveryPieceCanBeReadBeforeTheNextIsThere sends each piece only when the text of the one before has been read.
func TestEveryPieceCanBeReadBeforeTheNextIsThere(t *testing.T) {
	for _, c := range codings {
		for _, shared := range []bool{false, c == deflate.Zlib} {
			synctest.Test(t, func(t *testing.T) { readPieces(t, c, shared) })
		}
	}
}

func readPieces(t *testing.T, c deflate.Coding, shared bool) {
	from, to := io.Pipe()
	sent := make(chan []byte)
	go func() {
		for p := range sent {
			if len(p) > 0 { // the pipe would have it read
				if _, err := to.Write(p); err != nil {
					t.Errorf("%s: %v", c, err)
				}
			}
		}
		_ = to.Close() // it never fails
	}()
	b := deflate.NewBody(c)
	var in io.Reader
	for i, text := range [][]byte{
		[]byte("retry: 2000\n\n"), readings(4), []byte(":\n\n"), []byte("Grüße\n"), readings(1000), noise(100), noise(70_000), {},
		bytes.Repeat([]byte("x"), 2<<20), noise(63), {0xff}, readings(1),
	} {
		piece := []byte("before")
		if shared && i%2 == 1 {
			piece = b.Take(deflate.AppendShared(piece, text), len("before"))
		} else {
			piece = b.Append(piece, text)
		}
		piece, kept := bytes.CutPrefix(piece, []byte("before"))
		sent <- piece
		if in == nil {
			var err error
			if in, err = reader(c, from); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
		}
		got := make([]byte, len(text))
		if _, err := io.ReadFull(in, got); err != nil || !bytes.Equal(got, text) || !kept {
			t.Errorf("%s: %.50q became %.50q, %v", c, text, got, err)
		}
	}
	sent <- b.End(nil)
	close(sent)
	if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 { // the sum is checked here
		t.Errorf("%s: it ends in %q, %v", c, rest, err)
	}
}

// TestPiecesThatWouldTakeTooLongAreSentAsTheyAre has them made while others wait, as the hub does.
func TestPiecesThatWouldTakeTooLongAreSentAsTheyAre(t *testing.T) {
	text := bytes.Repeat([]byte("x"), 1<<20+1)
	for _, c := range codings[1:] {
		b := deflate.NewBody(c)
		if body := b.Append(nil, text); len(body) < len(text) {
			t.Errorf("%s: %d bytes became %d", c, len(text), len(body))
		} else {
			checkText(t, c, b.End(body), text)
		}
	}
	if piece := deflate.AppendShared(nil, text); len(piece) < len(text) {
		t.Errorf("shared: %d bytes became %d", len(text), len(piece))
	}
	if piece := deflate.AppendShared(nil, text[1:]); len(piece) > len(text)/100 {
		t.Errorf("shared: 1 MiB became %d", len(piece))
	}
}

func TestABodyMayBeginWithASharedPiece(t *testing.T) {
	for _, text := range [][]byte{{}, []byte("x"), readings(4)} {
		b := deflate.NewBody(deflate.Zlib)
		body := b.Take(deflate.AppendShared([]byte("before"), text), len("before"))
		checkText(t, deflate.Zlib, b.End(body)[len("before"):], text)
	}
}

func checkText(t *testing.T, c deflate.Coding, body, want []byte) {
	t.Helper()
	in, err := reader(c, bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	if got, err := io.ReadAll(in); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: %.50q became %.50q, %v", c, want, got, err)
	}
}

func TestWholeBodiesAreSmallerByWhatTheyCost(t *testing.T) {
	for _, n := range []int{4, 20, 1000} {
		text := readings(n)
		for _, c := range codings[1:] {
			const cost = 24
			body, ok := c.AppendWhole([]byte("before"), text, cost)
			if !ok || len(body)-len("before")+cost >= len(text) || string(body[:6]) != "before" {
				t.Fatalf("%s: %d bytes of %d, %t", c, len(body), len(text), ok)
			}
			checkText(t, c, body[len("before"):], text)
			saved := len(text) - (len(body) - len("before"))
			if _, ok := c.AppendWhole(nil, text, saved-1); !ok {
				t.Errorf("%s: a byte is not worth it", c)
			}
			if got, ok := c.AppendWhole([]byte("before"), text, saved); ok || string(got) != "before" {
				t.Errorf("%s: nothing is saved: %.20q", c, got)
			}
		}
	}
}

func TestABodyWithoutAPieceIsEmpty(t *testing.T) {
	for _, c := range codings {
		b := deflate.NewBody(c)
		checkText(t, c, b.End(nil), nil)
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte("data: x\n\n"), uint64(1))
	f.Fuzz(func(t *testing.T, text []byte, seed uint64) {
		random := rand.New(rand.NewPCG(seed, 1))
		for _, c := range codings {
			b := deflate.NewBody(c)
			var body []byte
			for rest := text; len(rest) > 0; {
				n := 1 + random.IntN(len(rest))
				if c == deflate.Zlib && random.IntN(2) == 0 {
					start := len(body)
					body = b.Take(deflate.AppendShared(body, rest[:n]), start)
				} else {
					body = b.Append(body, rest[:n])
				}
				rest = rest[n:]
			}
			checkText(t, c, b.End(body), text)
			if whole, ok := c.AppendWhole(nil, text, 0); ok {
				checkText(t, c, whole, text)
			}
		}
	})
}

func FuzzAccepted(f *testing.F) {
	f.Add("gzip;q=0.5, deflate, *;q=0")
	f.Fuzz(func(t *testing.T, header string) {
		if c := deflate.Accepted([]string{header}, deflate.Zlib, deflate.Gzip); c != deflate.Identity && !strings.Contains(header, "*") &&
			!strings.Contains(strings.ToLower(header), c.String()) {
			t.Errorf("%q accepts %s", header, c)
		}
	})
}

func BenchmarkWhole(b *testing.B) {
	for _, c := range codings[1:] {
		for _, n := range []int{4, 1000} {
			b.Run(fmt.Sprint(c, "/", n), func(b *testing.B) {
				text, dst := readings(n), []byte(nil)
				b.ReportAllocs()
				for b.Loop() {
					dst, _ = c.AppendWhole(dst[:0], text, 0)
				}
				b.ReportMetric(float64(len(dst))/float64(len(text)), "ratio")
			})
		}
	}
}

// BenchmarkAccepted reads what browsers send.
func BenchmarkAccepted(b *testing.B) {
	h := http.Header{"Accept-Encoding": {"gzip, deflate, br, zstd"}}
	b.ReportAllocs()
	for b.Loop() {
		if deflate.Accepted(h["Accept-Encoding"], deflate.Zlib, deflate.Gzip) != deflate.Zlib {
			b.Fatal("it is not accepted")
		}
	}
}
