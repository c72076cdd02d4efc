package crew

import (
	"net"
	"net/http"
)

// Hijack takes the connection from net/http, with what the client has sent behind its request without waiting for the answer.
// Where that came through a listener of package door, the connection is the one below it.
func Hijack(w http.ResponseWriter) (raw net.Conn, early []byte, err error) {
	raw, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	if n := buffered.Reader.Buffered(); n > 0 {
		peeked, _ := buffered.Reader.Peek(n) // cannot fail: so much is there
		early = append(early, peeked...)
	}
	if front, ok := raw.(interface{ Release() (net.Conn, []byte) }); ok {
		inner, more := front.Release()
		return inner, append(early, more...), nil
	}
	return raw, early, nil
}
