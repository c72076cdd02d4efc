package api

import (
	"net/http"
	"time"
)

// SetPollIdle sets how long a connection may be left between polls.
func (a *API) SetPollIdle(d time.Duration) { a.pollIdle = d }

// ParsePoll is parsePoll.
func ParsePoll(head []byte) *http.Request { return parsePoll(head) }
