package spool

// entry is one record in memory.
type entry struct {
	header
	body []byte
}

func (e *entry) size() int64 { return headerSize + int64(len(e.body)) }

// tail is the queue of records in memory: positions rise by one without a hole.
type tail struct {
	entries []entry
	bytes   int64
}

func (t *tail) len() int      { return len(t.entries) }
func (t *tail) first() uint64 { return t.entries[0].pos }

func (t *tail) push(e entry) {
	t.entries = append(t.entries, e)
	t.bytes += e.size()
}

// at returns the record at position p, or nil.
func (t *tail) at(p uint64) *entry {
	if len(t.entries) == 0 || p < t.first() || p-t.first() >= uint64(len(t.entries)) {
		return nil
	}
	return &t.entries[p-t.first()]
}

// popBefore removes the records before position p.
func (t *tail) popBefore(p uint64) {
	for len(t.entries) > 0 && t.entries[0].pos < p {
		t.pop()
	}
}

func (t *tail) pop() entry {
	e := t.entries[0]
	t.entries[0] = entry{}
	t.bytes -= e.size()
	if t.entries = t.entries[1:]; len(t.entries) == 0 {
		t.entries = nil // give the array back
	}
	return e
}
