package sio

import (
	"cmp"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/hub/sio/socket"
)

const (
	// lobby is the room where people meet.
	lobby = "lobby"
	// peopleEvery is the least time between two lists of people.
	peopleEvery = time.Second
	// maxListed is the most people that a list names.
	maxListed = 64
)

// people is who is in the lobby, as those who are there are told: once for all of them, and not more often than need be.
type people struct {
	space   *socket.Namespace
	version atomic.Uint64
	packet  atomic.Pointer[[]byte] // the list of the version

	mu      sync.Mutex // guards the fields below
	timer   *time.Timer
	due     bool
	stopped bool
	told    time.Time
}

// person is one of a list.
type person struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Role      string `json:"role"`
	Transport string `json:"transport"`
}

// changed has a new list made soon.
func (p *people) changed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.due || p.stopped {
		return
	}
	p.due = true
	wait := max(peopleEvery-time.Since(p.told), 0)
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.tell)
		return
	}
	p.timer.Reset(wait)
}

// tell makes a list.
func (p *people) tell() {
	p.mu.Lock()
	p.due, p.told = false, time.Now()
	p.mu.Unlock()
	members := p.space.Members(lobby)
	if len(members) == 0 {
		return
	}
	listed := make([]person, 0, len(members))
	for _, at := range members {
		f := followerOf(at)
		listed = append(listed, person{at.ID(), f.id.Name(), f.id.Role.String(), at.Transport()})
	}
	slices.SortFunc(listed, func(a, b person) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	list, _ := json.Marshal(struct { // always marshals
		Connected int      `json:"connected"`
		Count     int      `json:"count"`
		People    []person `json:"people"`
	}{p.space.Len(), len(listed), listed[:min(len(listed), maxListed)]})
	packet := append(append([]byte(`2["people",`), list...), ']')
	p.packet.Store(&packet)
	p.version.Add(1)
	for _, at := range members {
		at.Wake()
	}
}

// stop ends the making of lists.
func (p *people) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.timer != nil {
		p.timer.Stop()
	}
}

// enterLobby notes that the follower is in the lobby, and waits for the next list, or that it has left.
func (f *follower) enterLobby(in bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seenPeople = f.srv.people.version.Load()
	f.lobby.Store(in)
}

// nextPeople appends the list of people, if there is one that the follower has not got.
func (f *follower) nextPeople(dst []byte) ([]byte, bool) {
	version := f.srv.people.version.Load()
	if version == f.seenPeople || !f.lobby.Load() {
		return dst, false
	}
	f.seenPeople = version
	return append(dst, *f.srv.people.packet.Load()...), true
}
