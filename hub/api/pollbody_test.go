package api_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"telemetryhub/hub/access"
	"telemetryhub/hub/api"
	"telemetryhub/hub/deflate"
)

// decode takes the coding off a body.
func decode(t testing.TB, coding string, body io.Reader) io.Reader {
	t.Helper()
	var err error
	switch coding {
	case "":
	case "deflate":
		body, err = zlib.NewReader(body)
	case "gzip":
		body, err = gzip.NewReader(body)
	default:
		t.Fatalf("a body has the coding %q", coding)
	}
	if err != nil {
		t.Fatalf("%s: %v", coding, err)
	}
	return body
}

// ask polls as a client that accepts these codings, and returns the names of the header fields too.
func (r *rig) ask(query string, header http.Header, accepts string) (resp *http.Response, p polled, fields string) {
	r.t.Helper()
	header = maps.Clone(header)
	header["Accept-Encoding"] = []string{accepts}
	resp, body := r.do(call{method: "GET", path: "/api/v1/live/poll?mode=all&" + query, header: header})
	text, err := io.ReadAll(decode(r.t, resp.Header.Get("Content-Encoding"), strings.NewReader(body)))
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(text, &p) != nil || p.Token == "" {
		r.t.Fatalf("%s: %s %q, %v", query, resp.Status, text, err)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != int64(len(body)) {
		r.t.Errorf("%s: %d bytes are announced, and %d come", query, resp.ContentLength, len(body))
	}
	return resp, p, strings.Join(slices.Sorted(maps.Keys(resp.Header)), " ")
}

const fourReadings = `{"temperature":21.37,"humidity":48.92,"pressure":1013.25,"tick_count":1000001}`

func TestAnswersToPollsHaveTheCodingThatTheClientAccepts(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	bearer, cookie := bearerOf(viewer), r.with(r.person("vera", access.Viewer))
	start := r.poll(viewer, "mode=all").Token
	r.send("pump", dev, fourReadings)
	r.until("/api/v1/live/poll?mode=all&wait=0&after="+start, viewer, func(body string) bool { return strings.Contains(body, "tick_count") })
	now := r.poll(viewer, "mode=all").Token
	const lean = "Content-Length Content-Type Date"
	for _, c := range []struct {
		name, query     string
		header          http.Header
		accepts, coding string
		fields          string // "" is not looked at
	}{
		{"nothing is accepted", "after=" + start, bearer, "identity", "", lean + " Vary"},
		{"deflate", "after=" + start, bearer, "gzip, deflate", "deflate", "Content-Encoding " + lean + " Vary"},
		{"gzip", "after=" + start, bearer, "gzip", "gzip", "Content-Encoding " + lean + " Vary"},
		{"no frames", "wait=0&after=" + now, bearer, "deflate", "", lean + " Vary"},
		{"a cookie", "after=" + start, cookie, "deflate", "deflate", ""},
		{"a short snapshot", "", bearer, "deflate", "", "Cache-Control " + lean + " Etag"},
		{"a token of another hub", "after=other", bearer, "deflate", "deflate", "Content-Encoding " + lean + " Vary"},
		{"little", "after=" + start + "&metrics=humidity", bearer, "deflate", "", lean + " Vary"},
	} {
		resp, p, fields := r.ask(c.query, c.header, c.accepts)
		if got := resp.Header.Get("Content-Encoding"); got != c.coding || c.fields != "" && fields != c.fields {
			t.Errorf("%s: the coding is %q, want %q; the fields are %s", c.name, got, c.coding, fields)
		}
		cached, vary := resp.Header.Get("Cache-Control"), resp.Header.Get("Vary")
		if want := "private, no-cache"; c.header.Get("Cookie") != "" && cached != want || cached == "" && vary != "*" {
			t.Errorf("%s: Cache-Control is %q, Vary %q", c.name, cached, vary)
		}
		if c.coding != "" && c.query == "after="+start && (resp.ContentLength > 190 || !strings.Contains(p.text(), `"tick_count"`)) {
			t.Errorf("%s: %d bytes are %s", c.name, resp.ContentLength, p.text())
		}
	}
	header := maps.Clone(bearer)
	header.Set("If-None-Match", `"`+start+`"`)
	resp, _, fields := r.ask("after="+start, header, "deflate")
	if resp.Header.Get("Content-Encoding") != "" || resp.Header.Get("Etag") == "" || fields != "Cache-Control "+lean+" Etag" {
		t.Errorf("with an entity tag: %v", resp.Header)
	}
}

func TestALargeSnapshotHasACodingToo(t *testing.T) {
	r := newRig(t)
	n, viewer := r.crowd(), r.token(access.Viewer)
	for _, coding := range []string{"deflate", "gzip"} {
		resp, p, _ := r.ask("wait=0", bearerOf(viewer), coding)
		if got := strings.Count(p.text(), `"id":"d`); got != n || resp.Header.Get("Content-Encoding") != coding || resp.ContentLength >= 0 || len(p.Frames) < 3 {
			t.Errorf("%s: %d devices in %d frames; %v", coding, got, len(p.Frames), resp.Header)
		}
	}
}

func TestTwinsKeepNothingThatIsExceptionallyLarge(t *testing.T) {
	var twins api.Twins
	for _, c := range []deflate.Coding{deflate.Zlib, deflate.Gzip} {
		for _, n := range []int{100, 1 << 20, 1<<20 + 1, 8 << 20} {
			text := bytes.Repeat([]byte("x"), n)
			for range 2 {
				body, ok := twins.AppendWhole([]byte("before"), text, c)
				if ok != (n <= 1<<20) || ok != (len(body) > len("before")) || !bytes.HasPrefix(body, []byte("before")) {
					t.Errorf("%s: %d bytes became %.50q, %t", c, n, body, ok)
				}
			}
		}
	}
	if n := twins.Size(); n > 3<<20 {
		t.Errorf("%d bytes are kept", n)
	}
}

// TestPollersWithAndWithoutCodingsGetTheSame has several ask for the same and for something else at the same time.
func TestPollersWithAndWithoutCodingsGetTheSame(t *testing.T) {
	r := newRig(t)
	dev, viewer := r.device("pump"), r.token(access.Viewer)
	start := r.poll(viewer, "mode=all").Token
	const n = 40
	var all sync.WaitGroup
	defer all.Wait()
	for _, accepts := range []string{"gzip, deflate", "deflate", "gzip", "identity"} {
		for _, metrics := range []string{"*", "temperature,humidity,tick_count"} {
			all.Go(func() {
				next := 1
				for token := start; next <= n; {
					_, p, _ := r.ask("metrics="+metrics+"&after="+token, bearerOf(viewer), accepts)
					if token = p.Token; p.Reset {
						t.Error("it starts over")
						return
					}
					for _, f := range p.Frames {
						for rest := f; ; next++ {
							_, after, found := bytes.Cut(rest, []byte(`"tick_count",`))
							if !found {
								break
							}
							_, after, _ = bytes.Cut(after, []byte(","))
							if want := fmt.Sprint(next, "]"); !bytes.HasPrefix(after, []byte(want)) {
								t.Errorf("%s: %.20q comes where %s should", accepts, after, want)
								return
							}
							rest = after
						}
					}
				}
			})
		}
	}
	for i := range n {
		r.send("pump", dev, strings.Replace(fourReadings, "1000001", fmt.Sprint(i+1), 1))
	}
}
