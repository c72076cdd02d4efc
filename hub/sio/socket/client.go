package socket

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"telemetryhub/hub/frames"
	"telemetryhub/hub/sio/eio"
)

// Close codes, as on the hub's other sockets.
const (
	closeSlow  = 4001
	closeAgain = 4002
	closeTaken = 4509
)

// maxRefused is how often a client may be refused in one session: the next time ends it.
const maxRefused = 8

// client is one Engine.IO session: the sockets of one client, in as many namespaces as it likes.
type client struct {
	srv     *Server
	session *eio.Session
	only    atomic.Pointer[Socket]    // the one in sources if there is one: it saves steps to other places in memory
	sources atomic.Pointer[[]*Socket] // those with a source, replaced as a whole under mu
	waits   atomic.Bool               // queue is not empty; set under mu

	// Of Next only.
	asked   uint32   // the source that was asked last
	pending [][]byte // attachments of the packet that was sent last

	// Of Receive only.
	partial  *packet // waits for attachments
	text     []byte  // what partial is part of
	gathered [][]byte
	bytes    int

	mu      sync.Mutex // guards the fields below
	sockets map[string]*Socket
	queue   []outgoing // from head on
	head    int
	queued  int // bytes
	slow    bool

	refused uint8 // connections to namespaces; of Receive only
}

// outgoing is a packet that waits. body is shared with other clients and never changed.
type outgoing struct {
	body        []byte
	attachments [][]byte
	socket      *Socket // nil: body is complete. Otherwise it lacks the offset and the bracket at its end
	n           uint64  // number of the emit
}

func (o *outgoing) size() int {
	n := len(o.body)
	for _, a := range o.attachments {
		n += len(a)
	}
	return n
}

// enqueue has a packet sent. It reports false if the client is too slow for it, and closes it then.
func (c *client) enqueue(o outgoing) bool {
	c.mu.Lock()
	good := c.enqueueLocked(o)
	c.mu.Unlock()
	c.hurry(good)
	return good
}

// hurry has what was enqueued sent, or closes a client that is too slow for it.
func (c *client) hurry(good bool) {
	if good {
		c.session.Wake()
		return
	}
	c.session.Close(closeSlow, "too slow: what you were sent was not read in time")
}

func (c *client) enqueueLocked(o outgoing) bool {
	size := o.size()
	if c.slow || c.queued > 0 && c.queued+size > c.srv.options.SendQueue {
		if !c.slow {
			c.slow = true
			c.srv.options.Metrics.Slow.Add(1)
		}
		return false
	}
	if c.head > 0 && c.head == len(c.queue) {
		c.queue, c.head = c.queue[:0], 0
	}
	c.queue = append(c.queue, o)
	c.queued += size
	c.waits.Store(true)
	return true
}

// dequeue returns the packet that waits longest.
func (c *client) dequeue() (o outgoing, ok bool) {
	if !c.waits.Load() {
		return outgoing{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head == len(c.queue) {
		if cap(c.queue) > 64 {
			c.queue = nil
		}
		c.queue, c.head = c.queue[:0], 0
		c.waits.Store(false)
		return outgoing{}, false
	}
	o, c.queue[c.head] = c.queue[c.head], outgoing{}
	c.head++
	c.queued -= o.size()
	return o, true
}

// Next gives Engine.IO the next message to send.
func (c *client) Next(dst []byte) (msg []byte, form frames.Form, ok bool) {
	if len(c.pending) > 0 {
		dst = append(dst, c.pending[0]...)
		c.pending = c.pending[1:]
		return dst, frames.Binary, true
	}
	if o, waits := c.dequeue(); waits {
		dst = append(dst, o.body...)
		if s := o.socket; s != nil {
			s.sent.Store(o.n)
			dst = append(dst, ',', '"')
			if f := s.space.handler.Mark; f != nil {
				dst = f(s, dst)
			}
			dst = append(s.EndOffset(dst), ']')
		}
		c.pending = o.attachments
		return dst, frames.Text, true
	}
	if s := c.only.Load(); s != nil {
		return s.next(dst)
	}
	sources := c.sources.Load()
	if sources == nil {
		return dst, frames.Text, false
	}
	for range *sources { // each in turn
		c.asked++
		s := (*sources)[c.asked%uint32(len(*sources))]
		if dst, form, ok = s.next(dst); ok {
			return dst, form, true
		}
	}
	return dst, frames.Text, false
}

// next asks the source of the socket.
func (s *Socket) next(dst []byte) (msg []byte, form frames.Form, ok bool) {
	msg, deflated, ok := s.space.handler.Next(s, dst)
	if form = frames.Text; deflated {
		form |= frames.Deflated
	}
	return msg, form, ok
}

// Receive takes a message of Engine.IO.
func (c *client) Receive(text bool, data []byte) error {
	if !text {
		return c.attach(data)
	}
	if c.partial != nil {
		return fmt.Errorf("%w: a packet came before the attachments of the last one", errPacket)
	}
	p, err := readPacket(data)
	if err != nil {
		return err
	}
	if p.attachments == 0 {
		return c.take(&p, nil)
	}
	c.text = bytes.Clone(p.payload)
	p.payload = c.text
	c.partial, c.gathered, c.bytes = &p, make([][]byte, 0, p.attachments), len(data)
	return nil
}

// attach takes an attachment.
func (c *client) attach(data []byte) error {
	if c.partial == nil {
		return fmt.Errorf("%w: an attachment of nothing", errPacket)
	}
	if c.bytes += len(data); c.bytes > c.session.MaxPayload() {
		return fmt.Errorf("%w: attachments of more than %d bytes in all", errPacket, c.session.MaxPayload())
	}
	c.gathered = append(c.gathered, bytes.Clone(data))
	if len(c.gathered) < c.partial.attachments {
		return nil
	}
	p, attachments := c.partial, c.gathered
	c.partial, c.text, c.gathered = nil, nil, nil
	return c.take(p, attachments)
}

// take handles a packet that is complete.
func (c *client) take(p *packet, attachments [][]byte) error {
	if p.kind == typeConnect {
		return c.connect(p)
	}
	c.mu.Lock()
	s := c.sockets[p.namespace]
	c.mu.Unlock()
	if s == nil {
		if p.kind == typeDisconnect && c.session.Admitted() {
			return nil // both sides hung up
		}
		return fmt.Errorf("%w: not connected to the namespace", errPacket)
	}
	if p.kind == typeDisconnect {
		c.leave(s, false)
		return nil
	}
	args, err := p.readArgs()
	if err != nil {
		return err
	}
	m := Message{Args: args, Attachments: attachments}
	if p.kind == typeAck || p.kind == typeBinaryAck {
		s.acked(p.id, m)
		return nil
	}
	if len(args) == 0 {
		return fmt.Errorf("%w: an event without a name", errPacket)
	}
	name, err := readName(args[0])
	if err != nil {
		return err
	}
	m.Args = args[1:]
	c.srv.options.Metrics.EventsIn.Add(1)
	e := &Event{Name: name, Message: m, socket: s, id: p.id}
	e.answered.Store(!p.wantsAck)
	if f := s.space.handler.Event; f != nil {
		f(s, e)
	}
	return nil
}

// connect connects the client to a namespace.
func (c *client) connect(p *packet) error {
	c.mu.Lock()
	twice := c.sockets[p.namespace] != nil
	c.mu.Unlock()
	switch {
	case twice:
		return fmt.Errorf("%w: connected to the namespace already", errPacket)
	case c.refused == maxRefused:
		return fmt.Errorf("%w: refused %d times", errPacket, maxRefused)
	}
	n := c.srv.spaces[p.namespace]
	if n == nil {
		return c.refuse(p.namespace, &ConnectError{Message: "Invalid namespace"})
	}
	auth := json.RawMessage("{}")
	if len(p.payload) > 0 {
		auth = bytes.Clone(p.payload)
	}
	s := n.newSocket(c, auth)
	if f := n.handler.Connect; f != nil {
		if err := f(s, auth); err != nil {
			n.drop(s)
			if errors.Is(err, ErrAgain) {
				c.session.Close(closeAgain, "come again later")
				return nil
			}
			refused, ok := errors.AsType[*ConnectError](err)
			if !ok {
				c.srv.options.Logger.Error("cannot connect a client", "remote", c.session.Remote(), "err", err)
				refused = &ConnectError{Message: "internal error"}
			}
			return c.refuse(p.namespace, refused)
		}
	}
	c.srv.options.Metrics.Connected.Add(1)
	c.session.Admit()
	n.connected(s)
	if f := n.handler.Connected; f != nil {
		f(s)
	}
	if n.handler.Next != nil {
		c.addSource(s)
	}
	return nil
}

func (c *client) refuse(namespace string, e *ConnectError) error {
	c.refused++
	c.srv.options.Metrics.Refused.Add(1)
	body, err := json.Marshal(struct {
		Message string `json:"message"`
		Data    any    `json:"data,omitempty"`
	}{e.Message, e.Data})
	if err != nil {
		body = []byte(`{"message":"internal error"}`)
	}
	c.enqueue(outgoing{body: append(appendHead(nil, typeConnectError, 0, namespace), body...)})
	return nil
}

func (c *client) addSource(s *Socket) {
	c.mu.Lock()
	sources := []*Socket{s}
	if old := c.sources.Load(); old != nil {
		sources = append(sources, *old...)
	}
	c.setSourcesLocked(sources)
	c.mu.Unlock()
	c.session.Wake()
}

// setSourcesLocked leaves no moment at which a source that stays is not found, as it would not be asked then.
func (c *client) setSourcesLocked(list []*Socket) {
	switch len(list) {
	case 0:
		c.sources.Store(nil)
		c.only.Store(nil)
	case 1:
		c.sources.Store(&list)
		c.only.Store(list[0])
	default:
		c.sources.Store(&list)
		c.only.Store(nil)
	}
}

// leave ends a socket of the client. It may come back if its connection broke.
func (c *client) leave(s *Socket, broken bool) {
	c.mu.Lock()
	if c.sockets[s.space.name] != s {
		c.mu.Unlock()
		return
	}
	delete(c.sockets, s.space.name)
	last := len(c.sockets) == 0
	if old := c.sources.Load(); old != nil {
		var left []*Socket
		for _, o := range *old {
			if o != s {
				left = append(left, o)
			}
		}
		c.setSourcesLocked(left)
	}
	c.mu.Unlock()
	if last && !broken {
		c.session.Dismiss()
	}
	if broken {
		s.space.away(s)
	} else {
		s.space.drop(s)
	}
	s.failAcks()
	c.srv.options.Metrics.Connected.Add(-1)
	if f := s.space.handler.Disconnected; f != nil {
		f(s)
	}
}

// End ends all sockets of the client.
func (c *client) End() {
	c.mu.Lock()
	all := make([]*Socket, 0, len(c.sockets))
	for _, s := range c.sockets {
		all = append(all, s)
	}
	c.mu.Unlock()
	for _, s := range all {
		c.leave(s, true)
	}
}
