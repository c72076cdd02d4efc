package ws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/frames"
)

// maxViewerFrame is the largest frame that a viewer may send.
const maxViewerFrame = 4 << 10

// subscribes limits how often a viewer may change what it sees: each change costs a snapshot.
var subscribes = Rate{PerSecond: 2, Burst: 10}

// Viewer is what the adapter needs of one subscription; *hub.Viewer is one.
type Viewer interface {
	NextPacked(dst []byte) (frame []byte, token string, packed, ok bool)
	Change(hub.Subscription) error
	End()
}

var _ Viewer = (*hub.Viewer)(nil)

// Viewers answers GET /api/v1/live. The client's first message says what it wants to see, and later ones change it:
//
//	{"subscribe":{"devices":["*"],"metrics":["*"],"mode":"latest","after":"<token>","tick":100}}
//
// devices and metrics are names, or beginnings with a star behind; without them everything is meant. mode is latest
// (the default) or all. after is the token of the last frame seen. tick is the least time between two frames in
// milliseconds; 0 or none means 100, a negative one means at once. What comes back are a welcome and then the frames of hub.Viewer,
// in CBOR if the subprotocol hub.v1.cbor was agreed on. With a client that offers permessage-deflate (RFC 7692) messages may be
// compressed, each by itself. Frames that do not get smaller are not, and the others are once for all who see the same.
// Viewers is safe for concurrent use.
type Viewers struct{ *server }

// NewViewers returns a handler whose subscriptions subscribe begins, as hub.Hub.Subscribe does. It starts nothing.
func NewViewers[V Viewer](subscribe func(context.Context, hub.Subscription, hub.Peer) (V, error), auth Auth,
	o Options) (*Viewers, error) {
	s, err := newServer(auth, o, maxViewerFrame, viewerReadBuffer)
	if err != nil {
		return nil, err
	}
	begin := func(sub hub.Subscription, p hub.Peer) (Viewer, error) { return subscribe(context.Background(), sub, p) }
	s.deflates = true
	s.begin = func(c *conn, id access.Identity, f wire.Format) (stream, violation) {
		return &viewerStream{conn: c, format: f, scope: id.Scope(access.ReadLive), subscribe: begin}, violation{}
	}
	s.may = mayView
	return &Viewers{s}, nil
}

// mayView lets pass who may see the live values of at least some devices.
func mayView(id access.Identity) *refusedError {
	switch {
	case id.Kind == "":
		return needIdentity()
	case id.Kind == access.KindDevice || id.Kind == access.KindEnrolment || id.Role < access.Viewer:
		return refuse(refusedForbidden, http.StatusForbidden,
			fmt.Sprintf("A credential of kind %q may not see live values: use a viewer token.", id.Kind))
	}
	return nil
}

// viewerStream is the subscription of a viewer, once it has said what it wants.
type viewerStream struct {
	conn      *conn
	format    wire.Format
	scope     func(device.ID) bool
	subscribe func(hub.Subscription, hub.Peer) (Viewer, error)
	viewer    atomic.Pointer[Viewer] // set by the reader, used by the writer too
	changes   bucket
}

func (v *viewerStream) receive(text bool, frame []byte) (bad violation) {
	// Reading JSON needs a large stack, and the one that we are on stays with the connection.
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer v.conn.recovered()
		bad = v.change(text, frame)
	}()
	<-done
	return bad
}

// change begins the subscription, or changes it.
func (v *viewerStream) change(text bool, frame []byte) violation {
	if !v.changes.take(subscribes, time.Now()) {
		return violation{wire.CloseTooFast, "too many changes of the subscription; reconnect later"}
	}
	if !text {
		return violation{wire.CloseProtocol, "a viewer sends text frames with JSON"}
	}
	sub, err := readSubscription(frame)
	if err != nil {
		return violation{wire.CloseProtocol, err.Error()}
	}
	sub.Scope, sub.Format = v.scope, v.format
	if v.conn.Deflates() {
		sub.Packing = frames.Packing{}
	}
	if known := v.viewer.Load(); known != nil {
		err = (*known).Change(sub)
	} else {
		var viewer Viewer
		sub.Greet = true
		if viewer, err = v.subscribe(sub, v.conn); err == nil {
			v.viewer.Store(&viewer)
			v.conn.Wake() // the hub has woken the writer before it could see the viewer
		}
	}
	if err != nil {
		return violationOf(err)
	}
	return violation{}
}

func (v *viewerStream) next(dst []byte) ([]byte, frames.Form, bool) {
	viewer := v.viewer.Load()
	if viewer == nil {
		return dst, frames.Text, false
	}
	frame, _, packed, ok := (*viewer).NextPacked(dst) // the token stands in the frame too
	form := formOf(v.format)
	if packed {
		form |= frames.Deflated
	}
	return frame, form, ok
}

// formOf returns the form of a message in this format.
func formOf(f wire.Format) frames.Form {
	if f == wire.CBOR {
		return frames.Binary
	}
	return frames.Text
}

func (v *viewerStream) alive() {}

func (v *viewerStream) end() {
	if viewer := v.viewer.Load(); viewer != nil {
		(*viewer).End()
	}
}

// readSubscription reads a message of a viewer.
func readSubscription(frame []byte) (hub.Subscription, error) {
	var m struct {
		Subscribe *struct {
			Devices []string `json:"devices"`
			Metrics []string `json:"metrics"`
			Mode    string   `json:"mode"`
			After   string   `json:"after"`
			Tick    float64  `json:"tick"`
		} `json:"subscribe"`
	}
	if err := json.Unmarshal(frame, &m); err != nil {
		return hub.Subscription{}, fmt.Errorf("not a subscription: %w", err)
	}
	if m.Subscribe == nil {
		return hub.Subscription{}, errors.New(`not a subscription: send {"subscribe":{…}}`)
	}
	mode, err := hub.ParseMode(m.Subscribe.Mode)
	if err != nil {
		return hub.Subscription{}, err
	}
	return hub.Subscription{
		Devices: m.Subscribe.Devices, Metrics: m.Subscribe.Metrics, Mode: mode, After: m.Subscribe.After, Tick: hub.TickOf(m.Subscribe.Tick),
	}, nil
}
