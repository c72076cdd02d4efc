package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/alarm"
	"telemetryhub/hub/crew"
	"telemetryhub/hub/deflate"
)

const (
	// closeTimeout is how long a client may take to read the last of an event stream.
	closeTimeout = 2 * time.Second
	// maxChatter is how much a client may send behind its request, where nothing is expected.
	maxChatter = 4 << 10
)

// eventStream is a connection that events are sent over, and the Peer of the hub. It is taken from net/http once the request is
// found good, so that an idle one is nothing but a goroutine that reads and a timer.
type eventStream struct {
	crew.Outlet

	// The writer's own.
	viewer  *hub.Viewer
	chunked bool
	coding  deflate.Coding // Identity or Zlib
	packed  deflate.Body
	failed  bool   // the viewer panicked: it is not asked any more
	head    []byte // of the answer, with the first events; nil once it is sent

	beatDue atomic.Bool
	started atomic.Bool // it is complete
	ended   sync.Once
	bye     farewell // set before the outlet is ending

	api     *API
	beat    alarm.Alarm
	unwatch func() // ends the watch over the identity

	// The reader's own.
	chatter int // what the client may still send
	bin     [64]byte
}

var _ crew.Source = (*eventStream)(nil)

func (a *API) newEventStream() *eventStream {
	s := &eventStream{api: a, chatter: maxChatter}
	s.Init(&a.rules, s)
	return s
}

// answer prepares the head of the answer and the first events. An answer in chunks lets everybody in between tell its end from a
// broken connection.
func (s *eventStream) answer(r *http.Request, h http.Header, reset bool) {
	s.chunked = r.ProtoAtLeast(1, 1)
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would gather events otherwise
	h.Set("Connection", "close")
	h.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if s.coding != deflate.Identity {
		h.Set("Content-Encoding", s.coding.String())
	}
	head := bytes.NewBufferString("HTTP/1.0 200 OK\r\n")
	if s.chunked {
		h.Set("Transfer-Encoding", "chunked")
		head = bytes.NewBufferString("HTTP/1.1 200 OK\r\n")
	}
	_ = h.Write(head) // a buffer takes everything
	head.WriteString("\r\n")
	events := []byte("retry: 2000\n\n")
	if reset {
		events = appendEvent(events, "reset", "", []byte(`{"reason":"what came after the last event is not known any more: a snapshot follows"}`))
	}
	s.packed = deflate.NewBody(s.coding)
	s.head = s.chunk(s.packed.Append(head.Bytes(), events), head.Len())
}

// start lets a stream go that is complete.
func (s *eventStream) start() {
	s.beat.Init(s.api.clock, func() {
		s.beatDue.Store(true)
		s.Wake()
	})
	s.beatLater()
	s.api.streams.add(s)
	s.started.Store(true)
	if s.Ending() {
		s.Hurry()
	}
	s.Wake()
	s.Release()
	// The request, its buffers and this stack are free as soon as the handler has returned. The stream needs none of it.
	go s.read()
}

// beatLater has the next heartbeat come in time, at a moment that many streams share.
func (s *eventStream) beatLater() {
	s.beat.Set(alarm.Sooner(s.api.clock.Now()+s.api.Heartbeat, s.api.Heartbeat))
}

// Close ends the stream with a farewell.
func (s *eventStream) Close(code wire.CloseCode, reason string) {
	s.ended.Do(func() {
		s.bye = farewell{code, reason}
		s.End()
		if s.started.Load() {
			s.Hurry()
		}
	})
}

// Fill appends events.
func (s *eventStream) Fill(dst []byte) (out []byte, more bool) {
	if s.failed {
		return dst, false
	}
	defer s.recovered()
	if s.head != nil {
		dst = append(dst, s.head...)
		s.head = nil
	}
	out, at := dst, len(dst)
	if s.beatDue.Swap(false) {
		out = s.packed.Append(out, heartbeat)
		s.beatLater()
	}
	for more = true; more && len(out) < crew.Gather; {
		out, more = s.appendNext(out)
	}
	return s.chunk(out, at), more
}

var heartbeat = []byte(":\n\n")

// appendNext appends the next frame of the viewer as an event. Without a coding it is copied once, from where the hub has it; with
// one it comes as eventPacking has made it.
func (s *eventStream) appendNext(dst []byte) ([]byte, bool) {
	start := len(dst)
	if s.coding == deflate.Identity {
		dst = append(dst, data...)
	}
	body := len(dst)
	dst, token, packed, ok := s.viewer.NextPacked(dst)
	switch {
	case !ok:
		return dst[:start], false
	case packed:
		return s.packed.Take(dst, start), true
	case bytes.IndexByte(dst[body:], '\n') >= 0:
		return appendEvent(dst[:start], "", token, bytes.Clone(dst[body:])), true
	}
	return endFrame(dst, token), true
}

const data = "data: "

// appendFrame appends a frame as an event.
func appendFrame(dst, frame []byte, token string) []byte {
	if bytes.IndexByte(frame, '\n') >= 0 {
		return appendEvent(dst, "", token, frame)
	}
	return endFrame(append(append(dst, data...), frame...), token)
}

// endFrame ends the event of a frame in one line.
func endFrame(dst []byte, token string) []byte {
	if token != "" {
		dst = append(append(dst, "\nid: "...), token...)
	}
	return append(dst, "\n\n"...)
}

// eventPacking makes pieces of event streams of frames, once for all streams with the coding Zlib that show the same.
type eventPacking struct{}

// Pack appends the event for deflate.Body.Take.
func (eventPacking) Pack(dst, frame []byte, resume string) (packed []byte, ok bool) {
	text := texts.Get().(*[]byte)
	defer recycle(text)
	*text = appendFrame((*text)[:0], frame, resume)
	return deflate.AppendShared(dst, *text), true
}

// Last appends the farewell.
func (s *eventStream) Last(dst []byte) []byte {
	if s.failed {
		return dst
	}
	bye, _ := json.Marshal(s.bye) // always marshals
	dst = s.chunk(s.packed.End(s.packed.Append(dst, appendEvent(nil, "bye", "", bye))), len(dst))
	if s.chunked {
		dst = append(dst, "0\r\n\r\n"...)
	}
	return dst
}

// recovered is deferred around all that the viewer does: a panic breaks the one stream, so that nobody takes what has arrived
// for the whole.
func (s *eventStream) recovered() {
	if v := recover(); v != nil {
		s.failed = true
		s.api.log.Error("event stream panicked", "panic", v, "stack", string(debug.Stack()))
		s.Kill()
	}
}

// chunk makes a chunk of the events from the place on, if the answer is sent in chunks.
func (s *eventStream) chunk(dst []byte, at int) []byte {
	if !s.chunked {
		return dst
	}
	return insertSize(dst, at)
}

// insertSize makes a chunk of what begins at the place (RFC 9112 section 7.1). Of nothing it makes none, as that would be the last
// one.
func insertSize(dst []byte, at int) []byte {
	n := len(dst) - at
	if n == 0 {
		return dst
	}
	size := append(strconv.AppendUint(make([]byte, 0, 24), uint64(n), 16), "\r\n"...)
	return append(slices.Insert(dst, at, size...), "\r\n"...)
}

// read waits until the client leaves or the stream ends. Its stack stays with an idle stream.
func (s *eventStream) read() {
	for s.chatter > 0 {
		n, err := s.Raw.Read(s.bin[:])
		if err != nil {
			s.finish(errors.Is(err, os.ErrDeadlineExceeded))
			return
		}
		s.chatter -= n
	}
	s.finish(false)
}

// finish takes the stream down. orderly says that the client may be there to read the last of it.
func (s *eventStream) finish(orderly bool) {
	a := s.api
	defer a.streams.drop(s)
	if !orderly {
		s.Kill() // a writer that waits for this client need not wait any longer
	}
	s.unwatch()
	s.Stop()
	s.beat.Stop()
	s.viewer.End()
	if orderly {
		s.Linger()
	}
	s.Kill()
	a.figures.request("GET /api/v1/live/sse", http.MethodGet, http.StatusOK)
}

// drain does nothing: the hub ends the viewer.
func (s *eventStream) drain() {}

// busy reports whether something would be cut.
func (s *eventStream) busy() bool { return true }

// taken is a connection that was taken from net/http.
type taken interface {
	// drain says that it should end as soon as what it is about is done.
	drain()
	// busy reports whether it is not done yet.
	busy() bool
	Kill()
}

// streamSet holds the connections that net/http does not know of any more.
type streamSet struct {
	empty chan struct{} // closed when none is left while draining

	mu       sync.Mutex // guards the fields below
	open     map[taken]struct{}
	places   int  // of streams, and of requests for one
	draining bool // nobody new
	cutting  bool // those that are left
}

func newStreamSet() streamSet {
	return streamSet{open: map[taken]struct{}{}, empty: make(chan struct{})}
}

// enter takes a place for a stream. Whoever got one gives it back by leave.
func (x *streamSet) enter() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.draining {
		return hub.ErrDraining
	}
	x.places++
	return nil
}

func (x *streamSet) leave() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.leaveLocked(1)
}

func (x *streamSet) leaveLocked(n int) {
	x.places -= n
	if x.draining && x.places == 0 {
		close(x.empty)
	}
}

func (x *streamSet) add(s taken) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open[s] = struct{}{}
	if x.draining {
		s.drain()
	}
	if x.cutting {
		s.Kill()
	}
}

func (x *streamSet) drop(s taken) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.open, s)
	x.leaveLocked(1)
}

// Shutdown refuses event streams from now on, and polls over connections that were taken from net/http, and returns when none is
// left. The hub must end them, which also tells clients when to come back. When ctx ends, what is left is cut, and Shutdown returns an error that says how many there were.
func (a *API) Shutdown(ctx context.Context) error {
	x := &a.streams
	x.mu.Lock()
	if !x.draining {
		x.draining = true
		for s := range x.open {
			s.drain()
		}
		x.leaveLocked(0)
	}
	x.mu.Unlock()
	select {
	case <-x.empty:
		return nil
	case <-ctx.Done():
	}
	x.mu.Lock()
	x.cutting = true
	cut := 0
	for s := range x.open {
		if s.busy() {
			cut++
		}
		s.Kill()
	}
	x.mu.Unlock()
	<-x.empty
	if cut == 0 {
		return nil
	}
	return fmt.Errorf("stop in order: %w: %d event streams and polls were cut", context.Cause(ctx), cut)
}
