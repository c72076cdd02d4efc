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
// line that goes on in the next one, one Host, no body, and nothing about the connection but that it is kept.
func parsePoll(head []byte) *http.Request {
	line, rest, _ := bytes.Cut(head, crlf)
	target, ok := bytes.CutPrefix(line, []byte(pollLine))
	if !ok || len(head) > maxPollHead || len(target) == 0 || target[0] != '?' && target[0] != ' ' || !bytes.HasSuffix(line, []byte(" HTTP/1.1")) || !printable(line) {
		return nil
	}
	hosts, conditional := 0, false
	for lines := 0; ; lines++ {
		line, rest, _ = bytes.Cut(rest, crlf)
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || lines == maxPollLines || bytes.IndexByte(name, ' ') >= 0 || !printable(line) { // a space may hide Content-Length
			return nil
		}
		switch field := string(name); {
		case strings.EqualFold(field, "Host"):
			hosts++
		case strings.EqualFold(field, "If-None-Match"):
			conditional = true
		case strings.EqualFold(field, "Connection"):
			if !bytes.EqualFold(bytes.TrimSpace(value), []byte("keep-alive")) { // which many clients say, and which goes without saying
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
	if conditional { // without a token to go on from it is answered in another way, see pollConn
		if sub, _, err := parseLive(r.URL.RawQuery, pollQuery); err != nil || sub.After == "" {
			return nil
		}
	}
	return r
}

var crlf = []byte("\r\n")

// notInPolls are header fields that say something about a body or about the connection.
var notInPolls = []string{"Content-Length", "Transfer-Encoding", "Proxy-Connection", "Upgrade", "Expect", "Trailer", "TE", "Keep-Alive"}

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
