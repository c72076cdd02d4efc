package api

import (
	"net/http"
	"time"

	"telemetryhub/hub/deflate"
)

// SetPollIdle sets how long a connection may be left between polls.
func (a *API) SetPollIdle(d time.Duration) { a.pollIdle = d }

// ParsePoll is parsePoll.
func ParsePoll(head []byte) *http.Request { return parsePoll(head) }

// Twins is twins.
type Twins = twins

// AppendWhole is appendWhole.
func (t *twins) AppendWhole(dst, text []byte, c deflate.Coding) ([]byte, bool) {
	return t.appendWhole(dst, text, c)
}

// Size returns how much memory it keeps.
func (t *twins) Size() (n int) {
	for _, last := range t.last {
		n += cap(last.text) + cap(last.packed)
	}
	return n
}
