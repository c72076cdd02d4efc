package socket

import (
	"container/list"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// Namespace is a namespace of a server. It is safe for concurrent use.
type Namespace struct {
	name    string
	srv     *Server
	handler Handler

	mu      sync.Mutex // guards the fields below and the memory of every socket
	sockets map[*Socket]struct{}
	rooms   map[string]map[*Socket]struct{}
	pids    map[string]*Socket // connected or away
	gone    list.List          // of *Socket that are away, the longest in front
}

// memory is what outlives the connection of a socket.
type memory struct {
	live    bool // what is emitted is sent, and not only remembered
	rooms   map[string]struct{}
	emitted uint64     // number of the last emit
	emits   []outgoing // the last of them, oldest first
	times   []time.Time
	bytes   int
	place   *list.Element // in Namespace.gone, nil if the client is not away
	timer   *time.Timer
}

func newNamespace(s *Server, name string, h Handler) *Namespace {
	return &Namespace{
		name: name, srv: s, handler: h, sockets: map[*Socket]struct{}{}, rooms: map[string]map[*Socket]struct{}{},
		pids: map[string]*Socket{},
	}
}

func (n *Namespace) newSocket(c *client, auth json.RawMessage) *Socket {
	s := &Socket{space: n, client: c, session: c.session, id: newID()}
	if n.handler.Recover {
		s.pid, s.presented = newID(), readPresented(auth)
	}
	return s
}

// connected tells the client that it is, sends it what it missed, and lets what is emitted from now on follow.
func (n *Namespace) connected(s *Socket) {
	hello, _ := json.Marshal(struct {
		SID string `json:"sid"`
		PID string `json:"pid,omitempty"`
	}{s.id, s.pid}) // always marshals
	body := append(appendHead(nil, typeConnect, 0, n.name), hello...)
	n.mu.Lock()
	c := s.client
	c.mu.Lock()
	c.sockets[n.name] = s
	good := c.enqueueLocked(outgoing{body: body})
	for _, o := range s.emits {
		if o.n > s.presented.n {
			good = c.enqueueLocked(o) && good
		}
	}
	c.mu.Unlock()
	s.live = true
	n.sockets[s] = struct{}{}
	if s.pid != "" {
		n.pids[s.pid] = s
	}
	n.mu.Unlock()
	c.hurry(good)
}

// Each calls yield with every socket that was connected when it was called, until it returns false.
func (n *Namespace) Each(yield func(*Socket) bool) {
	n.mu.Lock()
	all := make([]*Socket, 0, len(n.sockets))
	for s := range n.sockets {
		all = append(all, s)
	}
	n.mu.Unlock()
	for _, s := range all {
		if !yield(s) {
			return
		}
	}
}

// Len returns how many sockets are connected.
func (n *Namespace) Len() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.sockets)
}

// Members returns the connected sockets in a room, in no order.
func (n *Namespace) Members(room string) []*Socket {
	n.mu.Lock()
	defer n.mu.Unlock()
	var members []*Socket
	for s := range n.rooms[room] {
		if s.live {
			members = append(members, s)
		}
	}
	return members
}

// Emit sends an event to all in a room but one, who may be nil, and returns to how many. Sockets whose clients are away get it
// when they come back.
func (n *Namespace) Emit(room, event string, m Message, but *Socket) (sent int) {
	o := outgoing{body: appendEvent(nil, n.name, 0, event, m), attachments: m.Attachments}
	whole := outgoing{body: append(slices.Clip(o.body), ']'), attachments: m.Attachments}
	var woken, slow []*client
	n.mu.Lock()
	for s := range n.rooms[room] {
		if s == but {
			continue
		}
		one := whole
		if n.handler.Recover {
			one = o
			one.socket = s
			one.n = n.rememberLocked(s, o)
		}
		switch {
		case !s.live:
		case s.client.push(one):
			woken = append(woken, s.client)
		default:
			slow = append(slow, s.client)
		}
	}
	n.mu.Unlock()
	for _, c := range woken {
		c.hurry(true)
	}
	for _, c := range slow {
		c.hurry(false)
	}
	n.srv.options.Metrics.EventsOut.Add(uint64(len(woken)))
	return len(woken)
}

// push is enqueue, but leaves it to the caller to hurry.
func (c *client) push(o outgoing) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.enqueueLocked(o)
}

// Join puts the socket into a room.
func (s *Socket) Join(room string) {
	n := s.space
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, connected := n.sockets[s]; !connected {
		return // it ended meanwhile
	}
	n.joinLocked(s, room)
}

func (n *Namespace) joinLocked(s *Socket, room string) {
	if s.rooms == nil {
		s.rooms = map[string]struct{}{}
	}
	s.rooms[room] = struct{}{}
	members := n.rooms[room]
	if members == nil {
		members = map[*Socket]struct{}{}
		n.rooms[room] = members
	}
	members[s] = struct{}{}
}

// Leave takes the socket out of a room.
func (s *Socket) Leave(room string) {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	s.space.leaveLocked(s, room)
}

func (n *Namespace) leaveLocked(s *Socket, room string) {
	delete(s.rooms, room)
	members := n.rooms[room]
	delete(members, s)
	if len(members) == 0 {
		delete(n.rooms, room)
	}
}

// Rooms returns the rooms that the socket is in, sorted.
func (s *Socket) Rooms() []string {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	rooms := make([]string, 0, len(s.rooms))
	for r := range s.rooms {
		rooms = append(rooms, r)
	}
	slices.Sort(rooms)
	return rooms
}

// drop forgets the socket.
func (n *Namespace) drop(s *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dropLocked(s)
}

func (n *Namespace) dropLocked(s *Socket) {
	s.live = false
	delete(n.sockets, s)
	for room := range s.rooms {
		n.leaveLocked(s, room)
	}
	if n.pids[s.pid] == s {
		delete(n.pids, s.pid)
	}
	if s.place != nil {
		n.gone.Remove(s.place)
		s.place = nil
		s.timer.Stop()
		n.srv.options.Metrics.Remembered.Add(-1)
	}
	s.emits, s.times, s.bytes = nil, nil, 0
}
