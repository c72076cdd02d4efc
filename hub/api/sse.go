package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
)

// maxEvents is how much of an answer to a poll is gathered before it is sent.
const maxEvents = 64 << 10

// farewell says why a stream ends. Clients of EventSource come back by themselves unless they are told otherwise.
type farewell struct {
	Code   wire.CloseCode `json:"code"`
	Reason string         `json:"reason"`
}

// eventPeer is a poll as the hub sees it.
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
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream")
		return
	}
	if err := a.beginEvents(w, r); err != nil {
		writeProblem(w, a.outward(r.Context(), err))
	}
}

// beginEvents begins a stream. It returns an error as long as nothing was answered.
func (a *API) beginEvents(w http.ResponseWriter, r *http.Request) error {
	id := who(r.Context()).id
	sub, _, err := newSubscription(r, id, eventQuery)
	if err != nil {
		return err
	}
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		sub.After = last
	}
	sub.Greet = true
	s := a.newEventStream()
	if err := a.streams.enter(); err != nil {
		return err
	}
	begun := false
	defer func() {
		if !begun {
			a.streams.leave()
		}
	}()
	viewer, reset, err := a.subscribe(r.Context(), sub, s) // EventSource would ask for the same again for ever
	if err != nil {
		return err
	}
	s.viewer = viewer
	raw, early, err := crew.Hijack(w)
	if err != nil {
		viewer.End()
		return faultf(http.StatusInternalServerError, "The hub cannot send events over a connection of this kind: poll instead.")
	}
	s.Raw, s.chatter = raw, s.chatter-len(early)
	s.answer(r, w.Header(), reset)
	s.unwatch = a.Access.Watch(id, func(why access.Reason) { s.Close(closeOf(why)) })
	begun = true
	s.start()
	return nil
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
func (a *API) subscribe(ctx context.Context, sub hub.Subscription, peer hub.Peer) (v *hub.Viewer, reset bool, err error) {
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
