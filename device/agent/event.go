package agent

import (
	"sync"
	"time"

	"telemetryhub/device/wire"
)

// maxEvents bounds the events that wait for a connection. The oldest are dropped.
const maxEvents = 16

// notices wait to be sent. They are for people to see now, and not kept in the spool.
type notices struct {
	mu   sync.Mutex // guards list
	list []notice
}

type notice struct {
	at time.Time
	wire.Event
}

// Event tells the people at the hub that something happened now. It is sent when there is a connection, at most once, and lost
// if the process ends before. e.TimeMS is not looked at. A text that is too long is cut.
func (a *Agent) Event(e wire.Event) {
	a.notices.mu.Lock()
	if len(a.notices.list) == maxEvents {
		a.notices.list = a.notices.list[1:]
	}
	a.notices.list = append(a.notices.list, notice{time.Now(), e})
	a.notices.mu.Unlock()
	a.credit.signal()
}

// next takes the oldest event and returns its frame, or nil if there is none.
func (q *notices) next() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return nil
	}
	e := q.list[0]
	q.list = q.list[1:]
	e.TimeMS = -time.Since(e.at).Milliseconds() // relative to sending: right whatever the clock says
	return wire.AppendEvent(nil, wire.CBOR, &e.Event)
}
