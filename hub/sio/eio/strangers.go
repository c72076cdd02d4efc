package eio

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

// strangers are the sessions that were not admitted yet, by where they come from.
type strangers struct {
	max   int
	grace time.Duration // how long one is left alone by others from its own address

	mu    sync.Mutex // guards the fields below
	count int
	from  map[netip.Addr]*list.List // of *Session, oldest first
}

// place is that of a session among the strangers. It is guarded by strangers.mu.
type place struct {
	el    *list.Element // nil: no stranger
	since time.Time
}

// add makes s a stranger. It returns the one that has to go for it, or false if s itself has to.
func (x *strangers) add(s *Session, now time.Time) (victim *Session, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.count >= x.max {
		victim = x.oldestLocked()
		if victim.source == s.source && now.Sub(victim.stranger.since) < x.grace {
			return nil, false
		}
		x.removeLocked(victim)
	}
	from := x.from[s.source]
	if from == nil {
		from = list.New()
		x.from[s.source] = from
	}
	s.stranger = place{from.PushBack(s), now}
	x.count++
	return victim, true
}

// remove makes s no stranger any more. It reports false if it was none.
func (x *strangers) remove(s *Session) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s.stranger.el == nil {
		return false
	}
	x.removeLocked(s)
	return true
}

func (x *strangers) removeLocked(s *Session) {
	from := x.from[s.source]
	from.Remove(s.stranger.el)
	if from.Len() == 0 {
		delete(x.from, s.source)
	}
	s.stranger.el = nil
	x.count--
}

// oldestLocked returns the oldest stranger of the address with most of them. There is one.
func (x *strangers) oldestLocked() *Session {
	var most *list.List
	for _, from := range x.from {
		if most == nil || from.Len() > most.Len() {
			most = from
		}
	}
	return most.Front().Value.(*Session)
}
