package api

import (
	"bufio"
	"bytes"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// pollLine begins the head of a poll.
const pollLine = "GET /api/v1/live/poll"

// maxPollLines is the most lines that the head of a poll has.
const maxPollLines = 64

// parsePoll returns the request of a head if it is nothing but a poll that a pollConn can answer, and else nil. It is strict, so
// that there is nothing that net/http would understand in another way, or refuse: no control characters but the line ends, no
// line that goes on in the next one, one Host, no body, and nothing about the connection.
func parsePoll(head []byte) *http.Request {
	line, rest, _ := bytes.Cut(head, crlf)
	target, ok := bytes.CutPrefix(line, []byte(pollLine))
	if !ok || len(target) == 0 || target[0] != '?' && target[0] != ' ' || !bytes.HasSuffix(line, []byte(" HTTP/1.1")) || !printable(line) {
		return nil
	}
	after := bytes.Contains(target, []byte("after="))
	hosts := 0
	for lines := 0; ; lines++ {
		line, rest, _ = bytes.Cut(rest, crlf)
		if len(line) == 0 {
			break
		}
		name, _, ok := bytes.Cut(line, []byte(":"))
		if !ok || lines == maxPollLines || line[0] == ' ' || !printable(line) {
			return nil
		}
		switch field := string(name); {
		case strings.EqualFold(field, "Host"):
			hosts++
		case strings.EqualFold(field, "If-None-Match"):
			if !after {
				return nil
			}
		case slices.ContainsFunc(notInPolls, func(s string) bool { return strings.EqualFold(field, s) }):
			return nil
		}
	}
	p := requestReaders.Get().(*requestReader)
	defer requestReaders.Put(p)
	p.text.Reset(head)
	p.buffer.Reset(&p.text)
	r, err := http.ReadRequest(p.buffer)
	if err != nil || hosts != 1 || !validHost(r.Host) || r.URL.Path != pollLine[len("GET "):] || r.ContentLength != 0 || r.Close {
		return nil
	}
	return r
}

var crlf = []byte("\r\n")

// notInPolls are header fields that say something about a body or about the connection.
var notInPolls = []string{"Content-Length", "Transfer-Encoding", "Connection", "Proxy-Connection", "Upgrade", "Expect", "Trailer", "TE", "Keep-Alive"}

// printable reports whether a line has nothing but printable ASCII.
func printable(line []byte) bool {
	for _, b := range line {
		if b < ' ' || b > '~' {
			return false
		}
	}
	return true
}

// validHost reports whether a host consists of what is in names, addresses and ports.
func validHost(host string) bool {
	for i := range len(host) {
		if b := host[i]; !('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte(".-_:[]", b) >= 0) {
			return false
		}
	}
	return host != ""
}

// requestReader is what it takes to parse a request.
type requestReader struct {
	text   bytes.Reader
	buffer *bufio.Reader
}

var requestReaders = sync.Pool{New: func() any { return &requestReader{buffer: bufio.NewReaderSize(nil, 1<<10)} }}
