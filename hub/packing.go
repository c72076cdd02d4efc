package hub

// Packing makes of frames what is sent in their place, as compression does: once for all viewers that see the same and whose
// packings are equal, which == must be able to tell. It is called while the hub holds locks, by several goroutines at a time,
// and returns within milliseconds.
type Packing interface {
	// Pack appends what is sent in place of a frame, after which the token resumes, if it is not empty. It reports false if the
	// frame is better sent as it is; what was appended then does not count. It keeps neither dst nor frame.
	Pack(dst, frame []byte, resume string) (packed []byte, ok bool)
}

// SetPacking changes Subscription.Packing and nothing else: the viewer goes on where it is. NextPacked is to be called afterwards,
// as if there had been a wake-up.
func (v *Viewer) SetPacking(p Packing) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := v.view
	if v.ended || w.key.packing == p {
		return
	}
	w.leave(v)
	at := v.at
	v.enter(&Subscription{
		Mode: w.key.mode, Format: w.key.format, Tick: w.key.tick, Devices: w.devices, Metrics: w.metrics, Scope: w.scope, Packing: p,
	})
	v.at = at // the view may have begun later, or be further: then it is behind
}

// pack has the packing of the view turn a frame into what is sent.
func (w *view) pack(f *sharedFrame) {
	if w.key.packing == nil {
		return
	}
	body := newFrame()
	if *body, f.packed = w.key.packing.Pack(*body, *f.body, f.resume); f.packed {
		f.body, body = body, f.body
	}
	recycle(body)
}

// own returns a frame that was written for this viewer alone, from start on, or what the packing makes of it.
func (v *Viewer) own(frame []byte, start int, resume string) (out []byte, token string, packed, ok bool) {
	if p := v.view.key.packing; p != nil {
		body := newFrame()
		if *body, packed = p.Pack(*body, frame[start:], resume); packed {
			frame = append(frame[:start], *body...)
		}
		recycle(body)
	}
	return frame, resume, packed, true
}

// recycle keeps the memory of a frame, unless that is exceptionally large.
func recycle(body *[]byte) {
	if cap(*body) <= 2*frameBytes {
		framePool.Put(body)
	}
}
