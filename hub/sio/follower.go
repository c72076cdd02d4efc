package sio

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"telemetryhub/device"
	"telemetryhub/device/wire"
	"telemetryhub/hub"
	"telemetryhub/hub/access"
	"telemetryhub/hub/deflate"
	"telemetryhub/hub/sio/socket"
)

// maxTick is the slowest pace that a client may ask for.
const maxTick = time.Hour

// subscription is what a client wants to see, as on the other transports of the live feed.
type subscription struct {
	Devices []string `json:"devices"`
	Metrics []string `json:"metrics"`
	Mode    string   `json:"mode"`
	After   string   `json:"after"`
	Tick    float64  `json:"tick"` // ms
}

// read returns the subscription as the hub wants it, without After. A nil subscription is the default one.
func (s *subscription) read() (hub.Subscription, error) {
	if s == nil {
		return hub.Subscription{}, nil
	}
	mode, err := hub.ParseMode(s.Mode)
	if err != nil {
		return hub.Subscription{}, err
	}
	tick := maxTick
	if s.Tick < float64(maxTick/time.Millisecond) {
		tick = time.Duration(max(s.Tick, -1) * float64(time.Millisecond))
	}
	return hub.Subscription{Devices: s.Devices, Metrics: s.Metrics, Mode: mode, Tick: tick}, nil
}

// fingerprint tells subscriptions apart: a place in the feed means the same only for one that shows the same.
func fingerprint(sub hub.Subscription, id access.Identity) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %q %q %q", sub.Mode, sub.Devices, sub.Metrics, id.Devices))
	return base64.RawURLEncoding.EncodeToString(sum[:6])
}

// follower is a socket that follows the live feed, and the Peer of the hub.
type follower struct {
	srv    *Server
	socket *socket.Socket

	mu          sync.Mutex // guards the fields below as far as unwatch; held while the subscription is asked or changed
	viewer      Viewer
	mark        []byte // of the last frame that was sent: its token, a dot, and the fingerprint
	print       string // fingerprint of sub
	seenDevices uint64 // version of srv.devices
	seenPeople  uint64 // version of srv.people
	ended       bool
	deflates    bool             // the viewer has the packing of print
	tail        []byte           // of next only
	sub         hub.Subscription // without After

	unwatch  func()
	id       access.Identity
	resumed  bool
	lobby    atomic.Bool // it is in the room where people meet
	messages bucket      // of the reader only, as are the next two
	bytes    bucket
	changes  bucket
}

func followerOf(at *socket.Socket) *follower { return at.State.(*follower) }

// Wake and Close make it a hub.Peer.
func (f *follower) Wake() { f.socket.Wake() }

// Close breaks the connection, after which the client comes back and goes on where it was, or starts over.
func (f *follower) Close(code wire.CloseCode, reason string) { f.socket.Close(uint16(code), reason) }

// left returns the subscription and how much of the changes of devices was sent.
func (f *follower) left() (hub.Subscription, uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sub, f.seenDevices
}

// after returns the token in a mark, "" if that is of another subscription. A mark without a fingerprint is a token of another
// transport, whose client knows what it has subscribed to.
func (f *follower) after(mark string) string {
	i := strings.LastIndexByte(mark, '.')
	switch {
	case i < 0:
		return mark
	case mark[i+1:] == f.print:
		return mark[:i]
	}
	return ""
}

// change replaces the subscription. It reports whether the new one goes on after the mark.
func (f *follower) change(sub hub.Subscription, mark string) (resumed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.print
	f.print = fingerprint(sub, f.id)
	sub.After, sub.Packing = f.after(mark), f.packing()
	err = f.viewer.Change(sub)
	if resumed = err == nil && sub.After != ""; !resumed && sub.After != "" {
		sub.After = ""
		err = f.viewer.Change(sub)
	}
	if err != nil {
		f.print = old
		return false, err
	}
	f.mark = f.mark[:0]
	if resumed {
		f.mark = append(f.mark, mark...)
	}
	f.sub = sub
	f.sub.After = ""
	return resumed, nil
}

// appendMark appends what was sent of the feed.
func (f *follower) appendMark(dst []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append(dst, f.mark...)
}

const (
	reading  = `2["reading",`
	snapshot = `2["snapshot",`
	// snapshotFrame is how a frame of the hub begins that is a snapshot.
	snapshotFrame = `{"type":"snapshot"`
)

// next appends the next packet for the client. A frame of the feed is copied once, from where the hub has it.
func (f *follower) next(dst []byte) (packet []byte, deflated, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return dst, false, false
	}
	if dst, ok := f.nextPeople(dst); ok {
		return dst, false, true
	}
	if dst, ok := f.srv.devices.next(dst, &f.seenDevices, f.sees); ok {
		return dst, false, true
	}
	if f.deflates != f.socket.Deflates() { // it has changed from polling to WebSocket
		f.deflates = true
		f.viewer.SetPacking(f.packing())
	}
	start := len(dst)
	dst = append(dst, reading...)
	body := len(dst)
	dst, token, packed, ok := f.viewer.NextPacked(dst)
	if !ok {
		return dst[:start], false, false
	}
	f.srv.Metrics.Frames.Add(1)
	if packed {
		return f.finish(append(dst[:start], dst[body:]...), token), true, true
	}
	if bytes.HasPrefix(dst[body:], []byte(snapshotFrame)) {
		dst = append(dst, 0)
		copy(dst[body+1:], dst[body:len(dst)-1])
		copy(dst[start:], snapshot)
	}
	if token != "" {
		f.mark = appendMark(f.mark[:0], token, f.print)
		dst = f.socket.AppendOffset(dst, f.mark)
	}
	return append(dst, ']'), false, true
}

func appendMark(dst []byte, token, print string) []byte {
	return append(append(append(dst, token...), '.'), print...)
}

// finish ends a packet that the packing has begun.
func (f *follower) finish(dst []byte, token string) []byte {
	if f.tail = f.tail[:0]; token != "" {
		f.mark = appendMark(f.mark[:0], token, f.print)
		f.tail = f.socket.EndOffset(f.tail)
	}
	f.tail = append(f.tail, ']')
	return deflate.AppendEnd(dst, f.tail)
}

// sees reports whether the client has asked for the device and may see it.
func (f *follower) sees(id device.ID) bool {
	return matches(f.sub.Devices, string(id)) && (f.sub.Scope == nil || f.sub.Scope(id))
}

// matches reports whether a pattern names s, as those of a subscription do.
func matches(patterns []string, s string) bool {
	for _, p := range patterns {
		if beginning, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(s, beginning) || p == s {
			return true
		}
	}
	return len(patterns) == 0
}

// end ends the subscription.
func (f *follower) end() {
	if f.unwatch != nil {
		f.unwatch()
	}
	f.mu.Lock()
	f.ended = true
	viewer := f.viewer
	f.mu.Unlock()
	if viewer != nil {
		viewer.End()
	}
}
