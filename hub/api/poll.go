package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
)

const (
	// defaultWait is how long a poll is held open, within what proxies wait for an answer.
	defaultWait = 25 * time.Second
	maxWait     = 60 * time.Second
)

// pollQuery are the parameters that a poll takes.
var pollQuery = []string{"devices", "metrics", "mode", "after", "tick", "wait"}

// poll answers GET /api/v1/live/poll: the frames after the token of the parameter after, as soon as there are any, or none when
// the wait is over. Without a token they are a welcome and a snapshot. The answer is
//
//	{"frames":[F,…],"token":T}
//
// where F are the frames of hub.Viewer and T is what the next poll sends as after. It begins with "reset":true if what came
// after the token is not known any more, so that a snapshot follows.
//
// The token is the ETag too. A request that names it in If-None-Match is answered 304 if nothing has come when the wait is
// over. If something has, a request without after gets the whole state, as a cache needs it.
func (a *API) poll(w http.ResponseWriter, r *http.Request) {
	if err := a.tryPoll(w, r); err != nil {
		writeProblem(w, a.outward(r.Context(), err))
	}
}

// tryPoll returns an error as long as nothing was answered.
func (a *API) tryPoll(w http.ResponseWriter, r *http.Request) error {
	ctx, id := r.Context(), who(r.Context()).id
	sub, values, err := newSubscription(r, id, pollQuery)
	if err != nil {
		return err
	}
	wait, err := parseWait(values.Get("wait"))
	if err != nil {
		return err
	}
	p := pollers.Get().(*poller)
	defer p.release()
	p.peer, p.writeBy = newEventPeer(), time.Now().Add(a.RequestTimeout+a.WriteTimeout) // as the guard has set it
	if wait > 0 {
		stop := a.Access.Watch(id, func(why access.Reason) { p.peer.Close(closeOf(why)) })
		defer stop()
		timer := time.NewTimer(wait)
		defer timer.Stop()
		p.over = timer.C
	}
	known := entityTag(r.Header.Get("If-None-Match"))
	w.Header().Set("Cache-Control", "private, no-cache")
	if sub.After == "" && known != "" {
		changed, err := a.changed(ctx, p, sub, known)
		if err != nil {
			a.extend(w, p)
			return err
		}
		if !changed {
			a.notModified(w, p, known)
			return nil
		}
	}
	sub.Greet = sub.After == ""
	viewer, reset, err := a.subscribe(ctx, sub, p.peer)
	if err != nil {
		return err
	}
	defer viewer.End()
	frame, token, ok, err := p.next(ctx, viewer)
	switch {
	case err != nil:
		a.extend(w, p)
		return err
	case ok:
		a.answer(w, p, viewer, frame, token, reset)
		return nil
	case sub.After == known:
		a.notModified(w, p, known)
		return nil
	}
	p.body = append(append(append(p.body[:0], `{"frames":[],"token":"`...), sub.After...), `"}`...)
	w.Header()["Content-Type"] = asJSON
	w.Header()["Etag"] = []string{`"` + sub.After + `"`}
	a.write(w, p, p.body)
	return nil
}

// changed waits for anything that comes after a token.
func (a *API) changed(ctx context.Context, p *poller, sub hub.Subscription, after string) (bool, error) {
	sub.After = after
	viewer, err := a.Hub.Subscribe(ctx, sub, p.peer)
	if errors.Is(err, hub.ErrResume) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer viewer.End()
	_, _, ok, err := p.next(ctx, viewer)
	return ok, err
}

// poller is the memory of a poll.
type poller struct {
	peer    *eventPeer
	over    <-chan time.Time // nil if the poll does not wait
	writeBy time.Time        // the write deadline
	frame   []byte
	body    []byte
}

// asJSON is the header that says so. Nobody may write to it.
var asJSON = []string{"application/json"}

var pollers = sync.Pool{New: func() any { return new(poller) }}

func (p *poller) release() {
	p.peer, p.over = nil, nil
	if cap(p.frame)+cap(p.body) <= 4*maxEvents {
		pollers.Put(p)
	}
}

// next waits for the next frame. It reports false when the wait is over.
func (p *poller) next(ctx context.Context, viewer *hub.Viewer) (frame []byte, token string, ok bool, err error) {
	for {
		if p.frame, token, ok = viewer.Next(p.frame[:0]); ok {
			return p.frame, token, true, nil
		}
		if p.peer.ended.Load() {
			return nil, "", false, p.peer.bye.fault()
		}
		if p.over == nil {
			return nil, "", false, nil
		}
		select {
		case <-p.peer.wake:
		case <-p.over:
			return nil, "", false, nil
		case <-ctx.Done():
			return nil, "", false, context.Cause(ctx)
		}
	}
}

// fault is what a poll is answered that the hub ends.
func (f farewell) fault() error {
	switch f.Code {
	case wire.CloseRevoked:
		return faultf(http.StatusUnauthorized, "%s", sentence(f.Reason))
	case wire.CloseDraining:
		return hub.ErrDraining
	}
	return faultf(http.StatusGone, "%s", sentence(f.Reason+": ask again without after"))
}

// answer writes the first frame and those that are there already, a snapshot whole. If that fails the connection breaks, so
// that nobody takes a part for the whole.
func (a *API) answer(w http.ResponseWriter, p *poller, viewer *hub.Viewer, frame []byte, token string, reset bool) {
	h := w.Header()
	h["Content-Type"] = asJSON
	b := append(p.body[:0], '{')
	if reset {
		b = append(b, `"reset":true,`...)
	}
	b = append(b, `"frames":[`...)
	last, size := "", 0
	for ok := true; ok; frame, token, ok = viewer.Next(frame[:0]) {
		if size > 0 {
			b = append(b, ',')
		}
		b = append(b, frame...)
		size += len(frame)
		if last = token; last != "" && size > maxEvents {
			break
		}
		if len(b) > maxEvents {
			a.write(w, p, b)
			b = b[:0]
		}
	}
	if last == "" { // the hub ends the viewer amid a snapshot
		panic(http.ErrAbortHandler)
	}
	b = append(append(append(b, `],"token":"`...), last...), `"}`...)
	if size <= maxEvents {
		one := []string{`"` + last + `"`, strconv.Itoa(len(b))}
		h["Etag"], h["Content-Length"] = one[:1:1], one[1:]
	}
	a.write(w, p, b)
	p.frame, p.body = frame, b
}

func (a *API) write(w http.ResponseWriter, p *poller, b []byte) {
	a.extend(w, p)
	if _, err := w.Write(b); err != nil {
		panic(http.ErrAbortHandler)
	}
}

// extend sets the write deadline if what is left is not enough. To set one costs as much as copying kilobytes.
func (a *API) extend(w http.ResponseWriter, p *poller) {
	if now := time.Now(); p.writeBy.Sub(now) < a.WriteTimeout {
		p.writeBy = now.Add(a.WriteTimeout)
		a.deadlines(w, time.Time{}, p.writeBy)
	}
}

func (a *API) notModified(w http.ResponseWriter, p *poller, tag string) {
	a.extend(w, p)
	w.Header()["Etag"] = []string{`"` + tag + `"`}
	w.WriteHeader(http.StatusNotModified)
}

// entityTag returns the first entity tag of a header If-None-Match, and nothing for "*" (RFC 9110 section 13.1.2).
func entityTag(header string) string {
	first, _, _ := strings.Cut(header, ",")
	tag, ok := strings.CutPrefix(strings.TrimPrefix(strings.TrimSpace(first), "W/"), `"`)
	tag, closed := strings.CutSuffix(tag, `"`)
	if !ok || !closed {
		return ""
	}
	return tag
}

// parseWait reads how long to wait: a duration, or a number of seconds.
func parseWait(text string) (time.Duration, error) {
	if text == "" {
		return defaultWait, nil
	}
	wait, err := time.ParseDuration(text)
	if err != nil {
		wait, err = time.ParseDuration(text + "s")
	}
	if err != nil || wait < 0 || wait > maxWait {
		return 0, faultf(http.StatusUnprocessableEntity, "The wait %.40q is not understood: use 0 to %s, as 25s.", text, maxWait)
	}
	return wait, nil
}
