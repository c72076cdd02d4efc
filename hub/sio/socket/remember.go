package socket

import "time"

// rememberLocked keeps an emit for a socket whose client may miss it, and returns its number.
func (n *Namespace) rememberLocked(s *Socket, o outgoing) uint64 {
	s.emitted++
	o.socket, o.n = s, s.emitted
	s.emits, s.times = append(s.emits, o), append(s.times, time.Now())
	s.bytes += o.size()
	s.forgetOldLocked(&n.srv.options)
	return s.emitted
}

// forgetOldLocked drops what is over the limits.
func (s *Socket) forgetOldLocked(o *Options) {
	drop := 0
	for drop < len(s.emits) && (s.bytes > o.RememberBytes || time.Since(s.times[drop]) > o.RememberFor) {
		s.bytes -= s.emits[drop].size()
		s.emits[drop] = outgoing{}
		drop++
	}
	s.emits, s.times = s.emits[drop:], s.times[drop:]
}

// away remembers a socket whose connection broke.
func (n *Namespace) away(s *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s.pid == "" || n.pids[s.pid] != s {
		n.dropLocked(s)
		return
	}
	s.live = false
	delete(n.sockets, s)
	s.place = n.gone.PushBack(s)
	n.srv.options.Metrics.Remembered.Add(1)
	if n.gone.Len() > n.srv.options.RememberSockets {
		n.dropLocked(n.gone.Front().Value.(*Socket))
	}
	s.timer = time.AfterFunc(n.srv.options.RememberFor, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if s.place != nil {
			n.dropLocked(s)
		}
	})
}

// unremember sees to it that nothing is remembered of the socket when it ends.
func (n *Namespace) unremember(s *Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pids[s.pid] == s {
		delete(n.pids, s.pid)
	}
}

// forgetAll forgets all sockets whose clients are away.
func (n *Namespace) forgetAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.gone.Len() > 0 {
		n.dropLocked(n.gone.Front().Value.(*Socket))
	}
}

// Recovered makes the socket the one that its client had before, with its id and its rooms, if the client names it, owner is
// what it was then, and nothing that was missed is lost. It returns the State of that socket, which has ended or is about to;
// false if there is none. The owner of a socket is who it belongs to, as exactly as the handler can tell. Only
// Handler.Connect calls it, once, also for clients that were never here.
func (s *Socket) Recovered(owner string) (before any, ok bool) {
	s.owner = owner
	n := s.space
	n.mu.Lock()
	old := n.pids[s.presented.pid]
	if s.pid == "" || old == nil || !s.presented.good || old.owner != owner || !old.hasLocked(s.presented.n, &n.srv.options) {
		n.mu.Unlock()
		s.presented.n = 0
		return nil, false
	}
	s.id, s.pid = old.id, old.pid
	s.emitted, s.emits, s.times, s.bytes = old.emitted, old.emits, old.times, old.bytes
	for i := range s.emits {
		s.emits[i].socket = s
	}
	s.sent.Store(s.presented.n)
	for room := range old.rooms {
		n.joinLocked(s, room)
	}
	stillThere := old.live
	n.dropLocked(old)
	n.pids[s.pid] = s
	n.mu.Unlock()
	n.srv.options.Metrics.Recovered.Add(1)
	if stillThere {
		old.client.session.Close(closeTaken, "replaced by a newer connection")
	}
	return old.State, true
}

// hasLocked reports whether all is remembered that came after emit n, which is not one that was never emitted.
func (s *Socket) hasLocked(n uint64, o *Options) bool {
	s.forgetOldLocked(o)
	return n <= s.emitted && s.emitted-n <= uint64(len(s.emits))
}
