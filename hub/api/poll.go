package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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

// poll answers GET /api/v1/live/poll: the frames after the token of the parameter after, as soon as there are any, or none when
// the wait is over. Without a token they are a welcome and a snapshot. The answer is
//
//	{"frames":[F,…],"token":T}
//
// where F are the frames of hub.Viewer and T is what the next poll sends as after. It begins with "reset":true if what came
// after the token is not known any more, so that a snapshot follows.
//
// The token is the ETag too. A request that names it in If-None-Match is answered 304 if nothing has come when the wait is
// over. If something has, a request without after gets the whole state, as a cache needs it. Whoever goes on after a token and
// names none is told none. An answer without an ETag has the coding that the client accepts, deflate before gzip, if that saves
// something.
func (a *API) poll(w http.ResponseWriter, r *http.Request) {
	if err := a.tryPoll(w, r); err != nil {
		writeProblem(w, a.outward(r.Context(), err))
	}
}

// tryPoll returns an error as long as nothing was answered.
func (a *API) tryPoll(w http.ResponseWriter, r *http.Request) error {
	ctx, id := r.Context(), &w.(*answer).caller.id
	sub, wait, err := parseLive(r.URL.RawQuery, pollQuery)
	if err != nil {
		return err
	}
	sub.Scope = id.Scope(access.ReadLive)
	known := entityTag(r.Header.Get("If-None-Match"))
	sub.Greet = sub.After == ""
	out := w.(*answer)
	switch h := w.Header(); {
	case !out.lean(r):
		h["Cache-Control"] = revalidate
	case tagged(sub.After, known):
		h["Cache-Control"] = revalidateToken
	default:
		delete(h, "Cache-Control")
		h["Vary"] = unshared
	}
	if c := a.pollConn(out, r, sub.After, known); c != nil {
		return c.ask(out, r, sub, wait, known)
	}
	p := pollers.Get().(*poller)
	defer p.release()
	p.writeBy = time.Now().Add(a.RequestTimeout + a.WriteTimeout) // as the guard has set it
	if wait > 0 {
		p.waitFor(wait)
		peer := p.peer // it may be told still when p is somebody else's
		defer a.Access.Watch(*id, func(why access.Reason) { peer.Close(closeOf(why)) })()
	} else {
		p.lookOnce()
		sub.Once = true
	}
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
	body := newPollBody(r, sub.After, known)
	if body.viewer, body.reset, err = a.subscribe(ctx, sub, p.peer); err != nil {
		a.extend(w, p) // it may have waited for the change
		return err
	}
	defer body.viewer.End()
	p.looks()
	piece := noPiece
	for more := true; more && piece == noPiece; {
		if p.body, piece = body.next(p.body[:0], &a.twins); piece == noPiece {
			if more, err = p.wait(ctx); err != nil {
				a.extend(w, p)
				return err
			}
		}
	}
	switch {
	case piece != noPiece:
		a.answer(w, p, &body, piece)
		return nil
	case sub.After == known:
		a.notModified(w, p, known)
		return nil
	}
	p.body = append(append(append(p.body[:0], `{"frames":[],"token":"`...), sub.After...), `"}`...)
	w.Header()["Content-Type"] = asJSON
	if known != "" {
		w.Header()["Etag"] = []string{`"` + sub.After + `"`}
	}
	a.write(w, p, p.body)
	return nil
}

// changed waits for anything that comes after a token.
func (a *API) changed(ctx context.Context, p *poller, sub hub.Subscription, after string) (bool, error) {
	sub.After, sub.Greet = after, false // a welcome is no change
	viewer, err := a.Hub.Subscribe(ctx, sub, p.peer)
	if errors.Is(err, hub.ErrResume) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer viewer.End()
	p.looks()
	for more := true; more; {
		var ok bool
		if p.body, _, ok = viewer.Next(p.body[:0]); ok {
			return true, nil
		}
		if more, err = p.wait(ctx); err != nil {
			return false, err
		}
	}
	return false, nil
}

// pollPeer is a poll as the hub sees it.
type pollPeer struct {
	wake chan struct{} // holds one element while there may be something to write, or it has ended

	once  sync.Once
	ended atomic.Bool // by Close
	bye   farewell    // set before ended is
}

func newPollPeer() *pollPeer {
	return &pollPeer{wake: make(chan struct{}, 1)}
}

// Wake lets the handler look for frames.
func (p *pollPeer) Wake() {
	select {
	case p.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Close lets the handler end the stream.
func (p *pollPeer) Close(code wire.CloseCode, reason string) {
	p.once.Do(func() {
		p.bye = farewell{code, reason}
		p.ended.Store(true)
		p.Wake()
	})
}

// poller is the memory of a poll.
type poller struct {
	peer    *pollPeer
	alone   pollPeer // of a poll that does not wait: nobody else has it
	timer   *time.Timer
	over    <-chan time.Time // nil if the poll does not wait
	writeBy time.Time        // the write deadline
	body    []byte
}

// Headers that say the same each time. Nobody may write to them.
var (
	asJSON     = []string{"application/json"}
	revalidate = []string{"private, no-cache"}
	// What is answered to a token is private by itself (RFC 9111 section 3.5).
	revalidateToken = []string{"no-cache"}
	// What goes on after a token has no tag by which it could be looked for again. No cache may use it for another request then
	// (RFC 9111 section 4.1), nor does nginx store it, which heeds no Authorization.
	unshared = []string{"*"}
)

var pollers = sync.Pool{New: func() any { return new(poller) }}

// lookOnce makes the poll one that does not wait. Nothing is sent to a nil channel.
func (p *poller) lookOnce() {
	p.alone = pollPeer{}
	p.peer = &p.alone
}

// waitFor makes the poll one that waits.
func (p *poller) waitFor(wait time.Duration) {
	p.peer = newPollPeer() // somebody may still tell it of something when the poll is over
	if p.timer == nil {
		p.timer = time.NewTimer(wait)
	} else {
		p.timer.Reset(wait)
	}
	p.over = p.timer.C
}

// looks takes the wake-up that a subscription begins with: what it is for is looked for anyway.
func (p *poller) looks() {
	select {
	case <-p.peer.wake:
	default:
	}
}

func (p *poller) release() {
	if p.over != nil {
		p.timer.Stop()
	}
	p.peer, p.over = nil, nil
	if cap(p.body) <= 4*maxEvents {
		pollers.Put(p)
	}
}

// wait waits until there may be a frame. It reports false when there is no more time.
func (p *poller) wait(ctx context.Context) (more bool, err error) {
	if p.peer.ended.Load() {
		return false, p.peer.bye.fault()
	}
	select {
	case <-p.peer.wake:
		return true, nil // also if the wait is over: the viewer may not have looked at everything yet
	default:
	}
	if p.over == nil {
		return false, nil
	}
	select {
	case <-p.peer.wake:
		return true, nil
	case <-p.over:
		return false, nil
	case <-ctx.Done():
		return false, context.Cause(ctx)
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

// counted is how long an answer may be for net/http to count it for us, which costs less.
const counted = 2 << 10

// answer writes what body.next has put into p.body, and what follows. If that fails the connection breaks.
func (a *API) answer(w http.ResponseWriter, p *poller, body *pollBody, made piece) {
	h := w.Header()
	h["Content-Type"] = asJSON
	if coding := body.named(); coding != "" {
		h["Content-Encoding"] = []string{coding}
	}
	if made == lastPiece {
		if tag := body.tag(); tag != "" {
			h["Etag"] = []string{`"` + tag + `"`}
		}
		if len(p.body) > counted {
			h["Content-Length"] = []string{strconv.Itoa(len(p.body))}
		}
	}
	for made == somePiece {
		a.write(w, p, p.body)
		p.body, made = body.next(p.body[:0], &a.twins)
	}
	if made == brokenPiece {
		panic(http.ErrAbortHandler)
	}
	a.write(w, p, p.body)
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
