package broker

import (
	"bytes"
	"slices"
	"sync"
)

// retained holds the retained messages, in memory. mochi's own store is not used: it deletes by the wall clock, reads
// its index without a lock, and sends what matches a new subscription without waiting for the client to read.
type retained struct {
	max int

	mu    sync.Mutex // guards the fields below
	by    map[string][]byte
	bytes int
}

// set keeps a copy of the payload for the topic, or forgets the topic if the payload is empty. It reports whether there
// was room.
func (r *retained) set(topic string, payload []byte) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, had := r.by[topic]
	if had {
		r.bytes -= len(topic) + len(old)
		delete(r.by, topic)
	}
	if len(payload) == 0 {
		return true
	}
	if r.bytes+len(topic)+len(payload) > r.max {
		return false
	}
	r.by[topic] = bytes.Clone(payload)
	r.bytes += len(topic) + len(payload)
	return true
}

// payload returns what is kept for the topic, which must not be changed. It is empty if there is nothing.
func (r *retained) payload(topic string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.by[topic]
}

// matching returns the topics that a filter matches, in order.
func (r *retained) matching(filter string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []string
	for topic := range r.by {
		if matches(filter, topic) {
			list = append(list, topic)
		}
	}
	slices.Sort(list)
	return list
}

func (r *retained) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.by)
}
