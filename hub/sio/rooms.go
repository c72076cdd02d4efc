package sio

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"telemetryhub/hub/access"
	"telemetryhub/hub/sio/socket"
)

const (
	// message is the event that everybody may send to the lobby.
	message = "message"
	// maxRooms is the most rooms that a socket may be in.
	maxRooms = 16
	// maxRoomName is the longest name of a room, in characters.
	maxRoomName = 64
)

// Limits of what one client may ask for: changes of its subscription, of which each costs a snapshot, and what it sends to
// others.
var (
	changeRate  = rate{perSecond: 2, burst: 10}
	messageRate = rate{perSecond: 20, burst: 100}
	byteRate    = rate{perSecond: 1 << 20, burst: 4 << 20}
)

// rate is a limit on how much may happen.
type rate struct{ perSecond, burst float64 }

// bucket is a token bucket. A new one is full.
type bucket struct {
	tokens float64
	at     time.Time
}

// take takes n tokens and reports whether there were so many.
func (b *bucket) take(r rate, n float64, now time.Time) bool {
	if b.at.IsZero() {
		b.tokens = r.burst
	} else {
		b.tokens = min(r.burst, b.tokens+now.Sub(b.at).Seconds()*r.perSecond)
	}
	b.at = now
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

// reserved are the events that are the hub's own: nobody else ever sends them.
func reserved(event string) bool {
	switch event {
	case "welcome", "snapshot", "reading", "device", "people", "command":
		return true
	}
	return socket.Reserved(event) || strings.HasPrefix(event, "connect") || strings.HasPrefix(event, "disconnect")
}

// deniedError is why something that a client asked for was not done, as its ack says.
type deniedError string

func (e deniedError) Error() string { return string(e) }

// event does what a client asks for, and answers if it waits for an answer.
func (s *Server) event(at *socket.Socket, e *socket.Event) {
	answer, err := s.handle(followerOf(at), e)
	if err != nil {
		s.Metrics.Denied.Add(1)
		answer = struct {
			Error string `json:"error"`
		}{err.Error()}
	}
	if !e.Wanted() {
		return
	}
	m, err := socket.Values(answer)
	if err != nil {
		panic(fmt.Sprintf("an answer cannot be encoded: %v", err))
	}
	e.Ack(m)
}

func (s *Server) handle(f *follower, e *socket.Event) (answer any, err error) {
	switch e.Name {
	case "subscribe":
		return s.changeSubscription(f, e)
	case "join", "leave":
		return s.moveRoom(f, e)
	case "emit":
		return s.relayTo(f, e)
	case message:
		return s.relay(f, lobby, message, e.Message)
	case "command":
		return nil, deniedError("not available yet: this hub sends no commands to devices")
	}
	if reserved(e.Name) {
		return nil, deniedError(fmt.Sprintf("%q is an event of the hub: clients cannot send it", e.Name))
	}
	return nil, deniedError(fmt.Sprintf("unknown event %.64q: use subscribe, join, leave, emit or message", e.Name))
}

func (s *Server) changeSubscription(f *follower, e *socket.Event) (any, error) {
	if !f.changes.take(changeRate, 1, time.Now()) {
		return nil, deniedError("too many changes of the subscription: wait a second")
	}
	var wanted subscription
	if len(e.Args) > 0 {
		if err := json.Unmarshal(e.Args[0], &wanted); err != nil {
			return nil, deniedError(`subscribe takes an object such as {devices: ["*"], metrics: ["*"], mode: "all"}`)
		}
	}
	sub, err := wanted.read()
	if err != nil {
		return nil, err
	}
	sub.Scope = f.id.Scope(access.ReadLive)
	resumed, err := f.change(sub, socket.ReadOffset(wanted.After))
	return struct {
		Resumed bool `json:"resumed"`
	}{resumed}, err
}

// readRoom reads the name of a room.
func readRoom(m socket.Message) (string, error) {
	var room string
	if len(m.Args) == 0 || json.Unmarshal(m.Args[0], &room) != nil || room == "" || utf8.RuneCountInString(room) > maxRoomName ||
		strings.ContainsFunc(room, unicode.IsControl) {
		return "", deniedError(fmt.Sprintf("name a room: a string of 1 to %d characters", maxRoomName))
	}
	return room, nil
}

func (s *Server) moveRoom(f *follower, e *socket.Event) (any, error) {
	if !f.messages.take(messageRate, 1, time.Now()) {
		return nil, deniedError("too many messages: wait a second")
	}
	room, err := readRoom(e.Message)
	if err != nil {
		return nil, err
	}
	in := e.Name == "join"
	if rooms := f.socket.Rooms(); in && len(rooms) >= maxRooms && !slices.Contains(rooms, room) {
		return nil, deniedError(fmt.Sprintf("a client can be in %d rooms: leave one first", maxRooms))
	}
	if in {
		f.socket.Join(room)
	} else {
		f.socket.Leave(room)
	}
	if room == lobby {
		f.enterLobby(in)
		s.people.changed()
	}
	return struct {
		Room    string `json:"room"`
		Members int    `json:"members"`
	}{room, len(s.space.Members(room))}, nil
}

// relayTo sends an event of the client's choice to a room of its choice.
func (s *Server) relayTo(f *follower, e *socket.Event) (any, error) {
	room, err := readRoom(e.Message)
	if err != nil {
		return nil, err
	}
	var event string
	if len(e.Args) < 2 || json.Unmarshal(e.Args[1], &event) != nil || event == "" || len(event) > maxRoomName {
		return nil, deniedError("name an event: emit(room, event, …)")
	}
	return s.relay(f, room, event, socket.Message{Args: e.Args[2:], Attachments: e.Attachments})
}

// relay sends an event to the others in a room, with who sent it as one more argument.
func (s *Server) relay(f *follower, room, event string, m socket.Message) (any, error) {
	switch {
	case reserved(event):
		return nil, deniedError(fmt.Sprintf("%q is an event of the hub: clients cannot send it", event))
	case f.id.Role < access.Operator && (room != lobby || event != message):
		return nil, deniedError(fmt.Sprintf("a viewer may send %q to the room %q only: ask for the role of an operator", message, lobby))
	}
	now, size := time.Now(), 0
	for _, a := range m.Args {
		size += len(a)
	}
	for _, a := range m.Attachments {
		size += len(a)
	}
	if !f.messages.take(messageRate, 1, now) || !f.bytes.take(byteRate, float64(size), now) {
		return nil, deniedError("too many messages, or too much in them: wait a second")
	}
	from, _ := json.Marshal(struct { // always marshals
		From string `json:"from"`
		Name string `json:"name"`
		Room string `json:"room"`
		At   int64  `json:"at"`
	}{f.socket.ID(), f.id.Name(), room, now.UnixMilli()})
	m.Args = append(slices.Clone(m.Args), from)
	s.Metrics.Relayed.Add(1)
	return struct {
		Sent int `json:"sent"`
	}{s.space.Emit(room, event, m, f.socket)}, nil
}
