package frames

import "telemetryhub/hub/deflate"

// Packing makes messages with the extension of the frames of the hub, once for all who see the same.
type Packing struct{}

// Pack appends the payload of a frame, if that is smaller.
func (Packing) Pack(dst, frame []byte, _ string) (payload []byte, ok bool) {
	if payload, ok = deflate.Append(dst, frame); ok {
		payload = payload[:len(payload)-len(deflate.Tail)]
	}
	return payload, ok
}
