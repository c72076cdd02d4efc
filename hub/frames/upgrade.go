package frames

import (
	"bufio"
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/lxzan/gws"
)

// Header fields of the opening handshake, RFC 6455 section 11.3.
const (
	HeaderVersion  = "Sec-Websocket-Version"
	HeaderProtocol = "Sec-Websocket-Protocol"

	headerKey        = "Sec-Websocket-Key"
	headerExtensions = "Sec-Websocket-Extensions"
)

// HasToken reports whether the comma-separated lists name the token, in any case.
func HasToken(lists []string, token string) bool {
	for _, list := range lists {
		for item := range strings.SplitSeq(list, ",") {
			if strings.EqualFold(strings.TrimSpace(item), token) {
				return true
			}
		}
	}
	return false
}

// WantsUpgrade reports whether a request asks to become a WebSocket, of whatever version.
func WantsUpgrade(r *http.Request) bool {
	return HasToken(r.Header.Values("Connection"), "upgrade") && HasToken(r.Header.Values("Upgrade"), "websocket")
}

// IsVersion13 reports whether a request asks for the one version there is.
func IsVersion13(r *http.Request) bool {
	v := r.Header.Values(HeaderVersion)
	return len(v) == 1 && strings.TrimSpace(v[0]) == "13"
}

// Key returns the key of a request, "" if it is not there once or is none.
func Key(r *http.Request) string {
	keys := r.Header.Values(headerKey)
	if len(keys) != 1 {
		return ""
	}
	if raw, err := base64.StdEncoding.DecodeString(keys[0]); err != nil || len(raw) != 16 {
		return ""
	}
	return keys[0]
}

// Upgrader opens the WebSockets of a server. It is safe for concurrent use.
type Upgrader struct {
	// gws refuses a client that offers no subprotocol when it has any to choose from, so there are two.
	plain, agreed *gws.Upgrader
	buffer        int
}

// NewUpgrader returns an upgrader for messages of at most so many bytes. buffer is how many bytes stay with every connection to
// read into; payloads that are larger are read past it.
func NewUpgrader(message, buffer int, protocols ...string) *Upgrader {
	return &Upgrader{newUpgrader(message, nil), newUpgrader(message, protocols), buffer}
}

func newUpgrader(message int, protocols []string) *gws.Upgrader {
	return gws.NewUpgrader(new(events), &gws.ServerOption{
		ReadMaxPayloadSize: message,
		CheckUtf8Enabled:   true,
		ParallelGolimit:    1, // of parallel handling, which is off; it only sizes a channel that is made all the same
		SubProtocols:       protocols,
		NewSession:         func() gws.SessionStorage { return nil }, // never used
		Logger:             discard{},
	})
}

// discard is the logger of gws, which has nothing to say that Conn does not say.
type discard struct{}

func (discard) Error(...any) {}

// Open does the upgrade, with the key of the request, the subprotocol that was agreed on, and what AnswerDeflate has returned; ""
// if nothing was. Messages are inflated only where the buffer has at most 256 bytes. It waits for the peer as Outlet.Answer does.
func (u *Upgrader) Open(c *Conn, key, protocol, deflate string) error {
	if deflate != "" {
		if u.buffer > maxBuffer {
			panic("frames: the buffer is too large for messages to be inflated")
		}
		c.guard.deflate = &inflating{answer: deflate}
	}
	upgrader := u.plain
	// gws looks only at the first line of each of these, so it gets a request that has but one.
	r := &http.Request{Method: http.MethodGet, Header: http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, HeaderVersion: {"13"}, headerKey: {key},
	}}
	if protocol != "" {
		upgrader = u.agreed
		r.Header[HeaderProtocol] = []string{protocol}
	}
	socket, err := upgrader.UpgradeFromConn((*side)(c), bufio.NewReaderSize((*side)(c), u.buffer), r)
	c.ws = socket
	return err
}
