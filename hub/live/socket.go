package live

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/lxzan/gws"

	"telemetryhub/device/wire"
)

const (
	// maxAnswer is the most that the head of an answer may be. net/http, by which gws reads it, has no limit.
	maxAnswer = 64 << 10
	// writeTime bounds a write. It is below the time that gws gives the upgrade, else gws would leave a goroutine behind.
	writeTime = 5 * time.Second
)

// socket is a connection over WebSocket. Everything runs in the goroutine of Follow, so that frames that are not taken fill the
// connection and nothing else.
type socket struct {
	f      *follower
	raw    net.Conn
	answer int       // bytes of the answer to the upgrade that may still come
	by     time.Time // when the first frame must be there
	ws     *gws.Conn // nil before the upgrade
	err    error
}

// socket follows over WebSocket until the connection ends.
func (f *follower) socket(ctx context.Context) error {
	raw, err := f.dial(ctx)
	if err != nil {
		return err
	}
	// Neither the upgrade nor the read loop know ctx. When it ends, an error of closing tells nothing new.
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer func() {
		stop()
		_ = raw.Close() // whatever ended it, it is over
	}()
	s := &socket{f: f, raw: raw, answer: maxAnswer, by: time.Now().Add(f.Answer)}
	if err = s.upgrade(ctx); err == nil {
		err = s.read()
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (f *follower) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, f.Answer)
	defer cancel()
	port := f.base.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[f.base.Scheme]
	}
	raw, err := f.Dial(ctx, "tcp", net.JoinHostPort(f.base.Hostname(), port))
	if err != nil || f.base.Scheme == "http" {
		return raw, err
	}
	config := f.TLS.Clone()
	if config == nil {
		config = new(tls.Config)
	}
	if config.ServerName == "" {
		config.ServerName = f.base.Hostname()
	}
	t := tls.Client(raw, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS with %s: %w", f.base.Host, err), raw.Close())
	}
	return t, nil
}

// upgrade speaks HTTP until the connection is a WebSocket, and says what is wanted.
func (s *socket) upgrade(ctx context.Context) error {
	f := s.f
	r, err := f.request(ctx, "/api/v1/live", nil)
	if err != nil {
		return err
	}
	r.Header.Set("Sec-WebSocket-Protocol", wire.SubprotocolJSON)
	conn, resp, err := gws.NewClientFromConn((*handler)(s), &gws.ClientOption{
		Addr: r.URL.String(), RequestHeader: r.Header, ReadMaxPayloadSize: maxFrame, ReadBufferSize: 4096,
		CheckUtf8Enabled: true, HandshakeTimeout: max(f.Answer, 2*writeTime), Logger: silent{},
		PermessageDeflate: gws.PermessageDeflate{Enabled: true}, // without what is kept from one message to the next
	}, (*line)(s))
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return refusal(resp)
		}
		return fmt.Errorf("open a WebSocket: %w", err)
	}
	type subscription struct {
		Devices []string `json:"devices,omitempty"`
		Metrics []string `json:"metrics,omitempty"`
		Mode    Mode     `json:"mode"`
		After   string   `json:"after,omitempty"`
		Tick    float64  `json:"tick,omitempty"`
	}
	text, err := json.Marshal(map[string]subscription{"subscribe": {f.Devices, f.Metrics, f.Mode, f.After, f.tickMS()}})
	if err != nil {
		return err
	}
	s.ws = conn
	return conn.WriteMessage(gws.OpcodeText, text)
}

// silent drops what gws would print.
type silent struct{}

func (silent) Error(...any) {}

func (s *socket) read() (err error) {
	defer func() {
		// gws v1.8.9 panics on a frame whose 64-bit length has its top bit set, outside of its own recovery.
		if p := recover(); p != nil && s.err == nil {
			err = badFrame(fmt.Errorf("%v", p))
		}
	}()
	s.ws.ReadLoop()
	return s.err
}

// line is the net.Conn that gws sees: every read and write has a deadline, and gws cannot close it.
type line socket

func (l *line) Read(p []byte) (int, error) {
	by := l.by
	if l.f.seen {
		by = time.Now().Add(l.f.Silence)
	}
	if err := l.raw.SetReadDeadline(by); err != nil {
		return 0, err
	}
	if l.ws != nil {
		return l.raw.Read(p)
	}
	if l.answer <= 0 {
		return 0, errors.New("the answer to the upgrade is too long: is this the address of a hub?")
	}
	n, err := l.raw.Read(p[:min(len(p), l.answer)])
	l.answer -= n
	return n, err
}

func (l *line) Write(p []byte) (int, error) {
	if err := l.raw.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return 0, err
	}
	return l.raw.Write(p)
}

func (l *line) Close() error                     { return nil } // follower.socket does it
func (l *line) SetDeadline(time.Time) error      { return nil } // each read and write has its own
func (l *line) SetReadDeadline(time.Time) error  { return nil }
func (l *line) SetWriteDeadline(time.Time) error { return nil }
func (l *line) LocalAddr() net.Addr              { return l.raw.LocalAddr() }
func (l *line) RemoteAddr() net.Addr             { return l.raw.RemoteAddr() }

// handler takes what the read loop of gws has to tell.
type handler socket

func (h *handler) OnOpen(*gws.Conn)         {}
func (h *handler) OnPong(*gws.Conn, []byte) {}

func (h *handler) OnPing(c *gws.Conn, payload []byte) {
	_ = c.WritePong(payload) // a broken connection shows in reading
}

func (h *handler) OnClose(_ *gws.Conn, err error) {
	if h.err != nil {
		return
	}
	var closed *gws.CloseError
	switch {
	case errors.As(err, &closed):
		h.err = ended(wire.CloseCode(closed.Code), string(closed.Reason))
	case isTimeout(err):
		h.err = errSilent
	default:
		h.err = fmt.Errorf("the connection broke: %w", err)
	}
}

func (h *handler) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close() // its bytes go back to the pool of gws
	if h.err != nil {
		return
	}
	if h.err = h.f.take(m.Bytes()); h.err != nil {
		_ = h.raw.Close() // ends the read loop
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
