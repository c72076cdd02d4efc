package live

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"telemetryhub/device/wire"
)

// pollWait is how long the hub may hold a poll, within what proxies wait for an answer.
const pollWait = 25 * time.Second

// watchdog ends a request that brings nothing for too long.
type watchdog struct {
	context.Context
	timer *time.Timer
	end   context.CancelCauseFunc
}

func watch(ctx context.Context, d time.Duration) *watchdog {
	ctx, cancel := context.WithCancelCause(ctx)
	return &watchdog{ctx, time.AfterFunc(d, func() { cancel(errSilent) }), cancel}
}

func (w *watchdog) stop() {
	w.timer.Stop()
	w.end(nil)
}

// reason returns why a request failed: what ended its context, if that was it.
func (w *watchdog) reason(err error) error {
	if cause := context.Cause(w); err != nil && cause != nil {
		return cause
	}
	return err
}

// get asks for an answer of that media type.
func (f *follower) get(r *http.Request, media string) (*http.Response, error) {
	r.Header.Set("Accept", media)
	resp, err := f.http.Do(r)
	if err != nil {
		return nil, err
	}
	got, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if resp.StatusCode == http.StatusOK && got == media {
		return resp, nil
	}
	return nil, errors.Join(refusal(resp), resp.Body.Close())
}

// events follows a stream of server-sent events until it ends.
func (f *follower) events(ctx context.Context) error {
	w := watch(ctx, f.Answer)
	defer w.stop()
	r, err := f.request(w, "/api/v1/live/sse", f.query())
	if err != nil {
		return err
	}
	resp, err := f.get(r, "text/event-stream")
	if err != nil {
		return w.reason(err)
	}
	defer resp.Body.Close() // only read
	in := bufio.NewScanner(resp.Body)
	in.Buffer(make([]byte, 0, 4096), maxFrame)
	var e event
	for in.Scan() {
		if f.seen {
			w.timer.Reset(f.Silence)
		}
		if e.line(in.Bytes()) {
			continue
		}
		if err := f.event(&e); err != nil {
			return err
		}
		e.name, e.data = "", e.data[:0]
	}
	if err := in.Err(); err != nil {
		return w.reason(err)
	}
	return io.ErrUnexpectedEOF
}

// event is a server-sent event as far as it has come.
type event struct {
	name string
	data []byte
}

// line takes a line of the stream (WHATWG HTML, server-sent events). It reports false if the event is complete.
func (e *event) line(line []byte) (more bool) {
	if len(line) == 0 {
		return len(e.data) == 0
	}
	field, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(field) {
	case "event":
		e.name = string(value)
	case "data":
		if len(e.data) > 0 {
			e.data = append(e.data, '\n')
		}
		e.data = append(e.data, value...)
	}
	return true
}

func (f *follower) event(e *event) error {
	switch e.name {
	case "":
		return f.take(e.data)
	case "reset":
		var why struct{ Reason string }
		if err := json.Unmarshal(e.data, &why); err != nil {
			return badFrame(err)
		}
		if err := f.reset(why.Reason); err != nil {
			return &handlerError{err}
		}
	case "bye":
		var bye struct {
			Code   wire.CloseCode
			Reason string
		}
		if err := json.Unmarshal(e.data, &bye); err != nil {
			return badFrame(err)
		}
		return ended(bye.Code, bye.Reason)
	}
	return nil
}

// poll asks again and again until that fails.
func (f *follower) poll(ctx context.Context) error {
	tick := f.Tick
	if tick == 0 {
		tick = 100 * time.Millisecond
	}
	for {
		began := time.Now()
		if err := f.pollOnce(ctx); err != nil {
			return err
		}
		if !pause(ctx, tick-time.Since(began)) {
			return context.Cause(ctx)
		}
	}
}

func (f *follower) pollOnce(ctx context.Context) error {
	query := f.query()
	query.Set("wait", pollWait.String())
	patience := pollWait + f.Answer
	if f.After == "" {
		patience = f.Answer // there is something at once
	}
	w := watch(ctx, patience)
	defer w.stop()
	r, err := f.request(w, "/api/v1/live/poll", query)
	if err != nil {
		return err
	}
	resp, err := f.get(r, "application/json")
	if err != nil {
		return w.reason(err)
	}
	defer resp.Body.Close() // only read
	in := &metered{r: resp.Body, grow: func() { w.timer.Reset(f.Silence) }}
	if err := f.answer(in); err != nil {
		return w.reason(err)
	}
	f.connected()
	return nil
}

// metered ends a body that holds too large a frame, and tells of everything that comes.
type metered struct {
	r    io.Reader
	left int
	grow func()
}

func (m *metered) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("a frame of more than %d bytes", maxFrame)
	}
	n, err := m.r.Read(p[:min(len(p), m.left)])
	m.left -= n
	m.grow()
	return n, err
}

// answer reads {"reset":true,"frames":[F,…],"token":T}, frame by frame.
func (f *follower) answer(in *metered) error {
	in.left = maxFrame
	d := json.NewDecoder(in)
	if err := expect(d, '{'); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		switch name {
		case "reset":
			err = f.pollReset(d)
		case "frames":
			err = f.frames(d, in)
		case "token":
			err = d.Decode(&f.After)
		default:
			var skipped json.RawMessage
			err = d.Decode(&skipped)
		}
		if err != nil {
			return err
		}
	}
	if err := expect(d, '}'); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, io.LimitReader(in, 64)) // a line end, so that the connection can be used again
	return err
}

func (f *follower) pollReset(d *json.Decoder) error {
	var reset bool
	if err := d.Decode(&reset); err != nil || !reset {
		return err
	}
	if err := f.reset(wire.CloseResume.Reason()); err != nil {
		return &handlerError{err}
	}
	return nil
}

func (f *follower) frames(d *json.Decoder, in *metered) error {
	if err := expect(d, '['); err != nil {
		return err
	}
	for d.More() {
		in.left = maxFrame
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		if err := f.take(raw); err != nil {
			return err
		}
	}
	return expect(d, ']')
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("%v where %v was expected: is this the address of a hub?", got, want)
	}
	return err
}
