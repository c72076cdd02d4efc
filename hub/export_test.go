package hub

// Crowd makes the views believe that they hold too much together, or no longer.
func (h *Hub) Crowd(yes bool) {
	n := int64(2 * sharedBytes)
	if !yes {
		n = -n
	}
	h.views.bytes.Add(n)
}

// Views returns how many views are shared, how many bytes of frames they hold together, and how many follow the live state.
func (h *Hub) Views() (shared int, bytes int64, armed int) {
	h.views.mu.Lock()
	defer h.views.mu.Unlock()
	h.live.mu.Lock()
	defer h.live.mu.Unlock()
	return len(h.views.byKey), h.views.bytes.Load(), len(h.live.armed)
}
