package api

import (
	"bytes"
	"context"
	"errors"
	"net/http"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/crew"
	"telemetryhub/hub/deflate"
)

// farewell says why a stream ends. Clients of EventSource come back by themselves unless they are told otherwise.
type farewell struct {
	Code   wire.CloseCode `json:"code"`
	Reason string         `json:"reason"`
}

// events answers GET /api/v1/live/sse, with the coding deflate where the client accepts it.
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
	sub, _, err := parseLive(r.URL.RawQuery, eventQuery)
	if err != nil {
		return err
	}
	sub.Scope = id.Scope(access.ReadLive)
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		sub.After = last
	}
	sub.Greet = true
	s := a.newEventStream()
	s.coding = deflate.Accepted(r.Header["Accept-Encoding"], deflate.Zlib) // the sums of gzip cannot be put together
	if s.coding == deflate.Zlib {
		sub.Packing = eventPacking{}
	}
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

// subscribe begins a subscription, and with a snapshot where it cannot resume.
func (a *API) subscribe(ctx context.Context, sub hub.Subscription, peer hub.Peer) (v *hub.Viewer, reset bool, err error) {
	v, err = a.Hub.Subscribe(ctx, sub, peer)
	if reset = errors.Is(err, hub.ErrResume); reset {
		sub.After = ""
		v, err = a.Hub.Subscribe(ctx, sub, peer)
	}
	return v, reset, err
}
