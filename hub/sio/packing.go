package sio

import (
	"bytes"
	"sync"

	"telemetryhub/hub"
	"telemetryhub/hub/deflate"
	"telemetryhub/hub/sio/eio"
)

// packing makes the compressed packets of frames, once for all clients whose marks have this fingerprint. What differs from one
// to the other is the end of the offset, which follower.finish appends.
type packing struct{ print string }

// packing returns that of the subscription, nil if packets are not compressed.
func (f *follower) packing() hub.Packing {
	if !f.deflates {
		return nil
	}
	return packing{f.print}
}

// texts keeps the memory of packets that are being compressed.
var texts = sync.Pool{New: func() any { return new([]byte) }}

// Pack appends the packet up to the end of the mark.
func (p packing) Pack(dst, frame []byte, resume string) (packed []byte, ok bool) {
	text := texts.Get().(*[]byte)
	defer texts.Put(text)
	head := reading
	if bytes.HasPrefix(frame, []byte(snapshotFrame)) {
		head = snapshot
	}
	*text = append(append(append((*text)[:0], eio.TypeMessage), head...), frame...)
	if resume != "" {
		*text = appendMark(append(*text, ',', '"'), resume, p.print)
	}
	packed, ok = deflate.Append(dst, *text)
	if cap(*text) > 128<<10 {
		*text = nil // larger ones are rare
	}
	return packed, ok
}
