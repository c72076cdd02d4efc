package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

// maxEvents is how much is gathered before it is sent.
const maxEvents = 64 << 10

// farewell says why a stream ends. Clients of EventSource come back by themselves unless they are told otherwise.
type farewell struct {
	Code   wire.CloseCode `json:"code"`
	Reason string         `json:"reason"`
}

// eventPeer is an event stream as the hub sees it.
type eventPeer struct {
	wake chan struct{} // holds one element while there may be something to write, or it has ended

	once  sync.Once
	ended atomic.Bool // by Close
	bye   farewell    // set before ended is
}

func newEventPeer() *eventPeer {
	return &eventPeer{wake: make(chan struct{}, 1)}
}

// Wake lets the handler look for frames.
func (p *eventPeer) Wake() {
	select {
	case p.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Close lets the handler end the stream.
func (p *eventPeer) Close(code wire.CloseCode, reason string) {
	p.once.Do(func() {
		p.bye = farewell{code, reason}
		p.ended.Store(true)
		p.Wake()
	})
}

// events answers GET /api/v1/live/sse.
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	ctx, id := r.Context(), who(r.Context()).id
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	sub, _, err := newSubscription(r, id, eventQuery)
	if err != nil {
		writeProblem(w, a.outward(ctx, err))
		return
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		sub.After = last
	}
	sub.Greet = true
	peer := newEventPeer()
	viewer, reset, err := a.subscribe(ctx, sub, peer) // EventSource would ask for the same again for ever
	if err != nil {
		writeProblem(w, a.outward(ctx, err))
		return
	}
	defer viewer.End()
	stop := a.Access.Watch(id, func(why access.Reason) { peer.Close(closeOf(why)) })
	defer stop()

	s := &stream{ctx: ctx, w: w, ctl: http.NewResponseController(w), timeout: a.WriteTimeout, contentType: "text/event-stream"}
	w.Header().Set("X-Accel-Buffering", "no") // nginx would gather events otherwise
	s.buf = append(s.buf, "retry: 2000\n\n"...)
	if reset {
		s.buf = appendEvent(s.buf, "reset", "", []byte(`{"reason":"what came after the last event is not known any more: a snapshot follows"}`))
	}
	a.follow(ctx, s, viewer, peer)
}

// follow writes frames until the stream ends.
func (a *API) follow(ctx context.Context, s *stream, viewer *hub.Viewer, peer *eventPeer) {
	// One channel to wait for costs a third of what four do.
	var due atomic.Bool
	beat := time.AfterFunc(a.Heartbeat, func() {
		due.Store(true)
		peer.Wake()
	})
	defer beat.Stop()
	defer context.AfterFunc(ctx, peer.Wake)()
	var frame []byte
	for {
		ended := peer.ended.Load()
		for len(s.buf) < maxEvents {
			var (
				token string
				ok    bool
			)
			if frame, token, ok = viewer.Next(frame[:0]); !ok {
				break
			}
			s.buf = appendEvent(s.buf, "", token, frame)
		}
		again := len(s.buf) >= maxEvents
		if ended {
			bye, err := json.Marshal(peer.bye)
			if err == nil {
				s.buf = appendEvent(s.buf, "bye", "", bye)
				s.flush()
			}
			return
		}
		if due.Swap(false) {
			s.buf = append(s.buf, ":\n\n"...)
			beat.Reset(a.Heartbeat)
		}
		if len(s.buf) > 0 {
			if s.flush(); s.err != nil {
				return
			}
		}
		if again {
			peer.Wake()
		}
		if <-peer.wake; ctx.Err() != nil {
			return
		}
	}
}

// flush sends what there is, now.
func (s *stream) flush() {
	if s.send(); s.err == nil {
		s.err = s.ctl.Flush()
	}
}

// appendEvent writes one event (WHATWG HTML, server-sent events). Data of several lines is sent as several fields.
func appendEvent(dst []byte, name, id string, data []byte) []byte {
	if name != "" {
		dst = append(append(append(dst, "event: "...), name...), '\n')
	}
	if id != "" {
		dst = append(append(append(dst, "id: "...), id...), '\n')
	}
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		dst = append(append(append(dst, "data: "...), line...), '\n')
	}
	return append(dst, '\n')
}

func closeOf(why access.Reason) (wire.CloseCode, string) {
	if why == access.Changed {
		return wire.CloseDraining, "your role has changed: connect again"
	}
	return wire.CloseRevoked, "this credential is no longer valid (" + string(why) + ")"
}

// eventQuery are the parameters that an event stream takes.
var eventQuery = []string{"devices", "metrics", "mode", "after", "tick"}

// subscribe begins a subscription, and with a snapshot where it cannot resume.
func (a *API) subscribe(ctx context.Context, sub hub.Subscription, peer *eventPeer) (v *hub.Viewer, reset bool, err error) {
	v, err = a.Hub.Subscribe(ctx, sub, peer)
	if reset = errors.Is(err, hub.ErrResume); reset {
		sub.After = ""
		v, err = a.Hub.Subscribe(ctx, sub, peer)
	}
	return v, reset, err
}

// newSubscription reads the parameters of a stream or a poll, which huma does not see. It also returns them all.
func newSubscription(r *http.Request, id access.Identity, known []string) (hub.Subscription, url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return hub.Subscription{}, nil, faultf(http.StatusUnprocessableEntity, "The query of the address is malformed.")
	}
	for name := range values {
		if !slices.Contains(known, name) {
			return hub.Subscription{}, nil, faultf(http.StatusUnprocessableEntity,
				"Unknown parameter %.40q. This address takes %s.", name, strings.Join(known, ", "))
		}
	}
	mode, err := hub.ParseMode(values.Get("mode"))
	if err != nil {
		return hub.Subscription{}, nil, err
	}
	sub := hub.Subscription{
		Devices: splitList(values["devices"]), Metrics: splitList(values["metrics"]), Mode: mode, After: values.Get("after"),
		Scope: id.Scope(access.ReadLive),
	}
	if text := values.Get("tick"); text != "" {
		ms, err := strconv.ParseFloat(text, 64)
		if err != nil || ms != ms {
			return hub.Subscription{}, nil, faultf(http.StatusUnprocessableEntity, "The tick %.40q is not a number of milliseconds.", text)
		}
		sub.Tick = hub.TickOf(ms)
	}
	return sub, values, nil
}

// splitList returns the items of lists separated by commas.
func splitList(values []string) []string {
	var items []string
	for _, v := range values {
		for item := range strings.SplitSeq(v, ",") {
			if item != "" {
				items = append(items, item)
			}
		}
	}
	return items
}
