package live

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"telemetryhub/device/wire"
)

// maxFrame is the largest frame that is taken. The hub cuts them at some 64 KiB, but not within a device.
const maxFrame = 16 << 20

// Follow calls handle with every frame, until ctx ends, handle fails or the hub refuses for good. It returns the cause of the
// former, the error of handle, or a *StopError; another error says what is wrong with the options. The hub waits for a handle
// that is slow only so long: then mode latest leaves out what has changed again, and in mode all the connection is made anew.
// handle and Options.Status are called by the goroutine that calls Follow.
func Follow(ctx context.Context, o Options, handle func(Frame) error) error {
	if err := o.fill(); err != nil {
		return err
	}
	base, err := o.base()
	if err != nil {
		return err
	}
	transport := &http.Transport{
		DialContext: o.Dial, Proxy: o.Proxy, TLSClientConfig: o.TLS, DisableCompression: true, TLSHandshakeTimeout: o.Answer,
		MaxResponseHeaderBytes: maxAnswer, MaxIdleConnsPerHost: 1,
	}
	defer transport.CloseIdleConnections()
	f := &follower{Options: o, base: base, handle: handle, http: &http.Client{
		Transport: transport,
		// A token is not to be carried elsewhere, and an address that moved is to be corrected.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if o.Proxy != nil {
		proxy, err := o.Proxy(&http.Request{URL: base})
		f.proxied = err != nil || proxy != nil
	}
	return f.run(ctx)
}

// follower is one Follow.
type follower struct {
	Options
	base    *url.URL
	http    *http.Client
	proxied bool
	handle  func(Frame) error

	current int // of Transports
	seen    bool
	window  time.Duration // within which the next try is made
}

func (f *follower) run(ctx context.Context) error {
	for {
		f.seen = false
		began := time.Now()
		err := f.attempt(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var (
			handled *handlerError
			stop    *StopError
		)
		switch {
		case errors.As(err, &handled):
			return handled.err
		case errors.As(err, &stop):
			return stop
		}
		used := f.Transports[f.current]
		wait, fatal := f.plan(err, time.Since(began))
		if fatal != nil {
			return fatal
		}
		f.Status(Status{Transport: used, Err: err, Retry: wait})
		if !pause(ctx, wait) {
			return context.Cause(ctx)
		}
	}
}

// attempt makes one connection and returns why it ended.
func (f *follower) attempt(ctx context.Context) error {
	if f.current > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, f.Better, errBetter)
		defer cancel()
	}
	switch f.Transports[f.current] {
	case WebSocket:
		return f.socket(ctx)
	case Events:
		return f.events(ctx)
	default:
		return f.poll(ctx)
	}
}

// plan decides about the next connection after one that lived so long. It returns how long to wait before it.
func (f *follower) plan(err error, lived time.Duration) (wait time.Duration, fatal error) {
	var (
		closed *closedError
		busy   *busyError
	)
	switch {
	case errors.Is(err, errBetter):
		f.current = 0
		return 0, nil
	case errors.As(err, &closed) && closed.code == wire.CloseResume:
		lost := f.After != ""
		if fatal := f.reset(closed.Error()); fatal != nil {
			return 0, fatal
		}
		if lost && !f.seen {
			return 0, nil
		}
	case f.seen:
		if lived >= f.window {
			f.window = 0
		}
	case !unreachable(err, f.proxied):
		if f.current++; f.current < len(f.Transports) {
			return 0, nil
		}
		f.current = 0
	}
	f.window = min(max(2*f.window, f.MinRetry), f.MaxRetry)
	if errors.As(err, &busy) && busy.after > 0 {
		return busy.after + time.Duration(f.Rand()*float64(f.MinRetry)), nil
	}
	return time.Duration(f.Rand() * float64(f.window)), nil
}

// reset forgets the place.
func (f *follower) reset(reason string) error {
	f.After = ""
	return f.handle(&Reset{reason})
}

// take hands on a frame and notes the place after it.
func (f *follower) take(raw []byte) error {
	frame, err := decode(raw)
	if err != nil {
		return badFrame(err)
	}
	f.connected()
	if frame == nil {
		return nil
	}
	if err := f.handle(frame); err != nil {
		return &handlerError{err}
	}
	if token := frame.place(); token != "" {
		f.After = token
	}
	return nil
}

// connected notes that the transport works.
func (f *follower) connected() {
	if !f.seen {
		f.seen = true
		f.Status(Status{Transport: f.Transports[f.current], Connected: true})
	}
}

// request makes a request for a live address, with the subscription in the query where there is one.
func (f *follower) request(ctx context.Context, path string, query url.Values) (*http.Request, error) {
	u := f.base.JoinPath(path)
	u.RawQuery = query.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if f.Token != "" {
		r.Header.Set("Authorization", "Bearer "+f.Token)
	}
	return r, nil
}

// query is the subscription as the parameters of an address.
func (f *follower) query() url.Values {
	q := url.Values{"mode": {string(f.Mode)}}
	for name, list := range map[string][]string{"devices": f.Devices, "metrics": f.Metrics} {
		if len(list) > 0 {
			q.Set(name, strings.Join(list, ","))
		}
	}
	if f.After != "" {
		q.Set("after", f.After)
	}
	if f.Tick != 0 {
		q.Set("tick", strconv.FormatFloat(f.tickMS(), 'g', -1, 64))
	}
	return q
}

// tickMS is the tick as the hub takes it.
func (f *follower) tickMS() float64 {
	if f.Tick < 0 {
		return -1
	}
	return float64(f.Tick) / float64(time.Millisecond)
}

// pause waits, and reports false if ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
