package ws

import (
	"context"
	"fmt"
	"net/http"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/frames"
)

// Session is what the adapter needs of the session of one device; *hub.Session is one.
type Session interface {
	Receive(ctx context.Context, f wire.Format, frame []byte) error
	Next(dst []byte) (frame []byte, f wire.Format, ok bool)
	Alive()
	End()
}

var _ Session = (*hub.Session)(nil)

// Devices answers GET /device/v1: one WebSocket for each device. It is safe for concurrent use.
type Devices struct{ *server }

// NewDevices returns a handler whose sessions connect begins, as hub.Hub.Connect does. It starts nothing.
func NewDevices[S Session](connect func(context.Context, device.ID, hub.Peer, hub.ConnectOptions) (S, error), auth Auth,
	o Options) (*Devices, error) {
	s, err := newServer(auth, o, wire.MaxFrame, readBuffer)
	if err != nil {
		return nil, err
	}
	s.rules.Urgent = true
	s.begin = func(c *conn, id access.Identity, f wire.Format) (stream, violation) {
		ctx := c.Life()
		session, err := connect(ctx, id.Device, c, hub.ConnectOptions{Format: f, Remote: c.remote()})
		if err != nil {
			return nil, violationOf(err)
		}
		return &deviceStream{session, ctx}, violation{}
	}
	s.may = mayBeDevice
	return &Devices{s}, nil
}

// mayBeDevice lets device tokens pass: a device can act only as itself.
func mayBeDevice(id access.Identity) *refusedError {
	switch {
	case id.Kind == "":
		return needIdentity()
	case id.Kind != access.KindDevice || id.Device == "":
		return refuse(refusedForbidden, http.StatusForbidden,
			fmt.Sprintf("This address is for devices, and the credential is of kind %q: use a device token.", id.Kind))
	}
	return nil
}

// deviceStream is the session of a device.
type deviceStream struct {
	session Session
	life    context.Context // of the connection, which hands on nothing but itself
}

func (d *deviceStream) receive(text bool, frame []byte) violation {
	f := wire.CBOR
	if text {
		f = wire.JSON
	}
	if err := d.session.Receive(d.life, f, frame); err != nil {
		return violationOf(err)
	}
	return violation{}
}

func (d *deviceStream) next(dst []byte) ([]byte, frames.Form, bool) {
	frame, f, ok := d.session.Next(dst)
	return frame, formOf(f), ok
}

func (d *deviceStream) alive() { d.session.Alive() }
func (d *deviceStream) end()   { d.session.End() }
