package storagetest

import (
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/storage"
)

// logModel is what a log should be: a list.
type logModel struct {
	t      testing.TB
	h      Harness[storage.Log]
	log    storage.Log
	ps     []storage.Position
	groups [][]byte
}

// testLogModel draws random operations and checks the whole log after each of them.
func testLogModel(t *testing.T, h Harness[storage.Log]) {
	rapid.Check(t, func(r *rapid.T) {
		m := &logModel{t: t, h: h, log: h.Open(t)}
		defer func() { closeStore(t, m.log) }()
		r.Repeat(map[string]func(*rapid.T){
			"append": m.append, "stale": m.stale, "trim": m.trim, "reopen": m.reopen, "": m.check,
		})
	})
}

func (m *logModel) last() storage.Position {
	if len(m.ps) == 0 {
		return 0
	}
	return m.ps[len(m.ps)-1]
}

func (m *logModel) append(r *rapid.T) {
	n := rapid.OneOf(rapid.IntRange(1, 200), rapid.IntRange(3990, 4010), rapid.IntRange(1, 40_000)).Draw(r, "size")
	group := noise(uint64(len(m.groups)), n)
	p, err := m.log.Append(m.t.Context(), group, m.last())
	if err != nil || p <= m.last() {
		r.Fatalf("append after %d: position %d, %v", m.last(), p, err)
	}
	m.ps, m.groups = append(m.ps, p), append(m.groups, group)
}

func (m *logModel) stale(r *rapid.T) {
	if len(m.ps) == 0 {
		r.Skip("empty")
	}
	last := rapid.SampledFrom(append([]storage.Position{0}, m.ps[:len(m.ps)-1]...)).Draw(r, "last")
	if _, err := m.log.Append(m.t.Context(), []byte("stale"), last); err == nil {
		r.Fatalf("append after %d was not fenced", last)
	}
}

func (m *logModel) trim(r *rapid.T) {
	if len(m.ps) == 0 {
		r.Skip("empty")
	}
	before := m.log.First()
	upTo := rapid.SampledFrom(m.ps).Draw(r, "upTo")
	if err := m.log.Trim(m.t.Context(), upTo); err != nil {
		r.Fatalf("trim: %v", err)
	}
	if first := m.log.First(); first > max(upTo, before) {
		r.Fatalf("First() = %d after Trim(%d), it was %d", first, upTo, before)
	}
}

func (m *logModel) reopen(r *rapid.T) {
	if m.h.Reopen == nil {
		r.Skip("this store forgets")
	}
	before := m.log.First()
	m.log = m.h.Reopen(m.t, m.log)
	if first := m.log.First(); first > before {
		r.Fatalf("First() = %d after reopening, it was %d", first, before)
	}
}

func (m *logModel) check(r *rapid.T) {
	if got := m.log.Last(); got != m.last() {
		r.Fatalf("Last() = %d, want %d", got, m.last())
	}
	i, first := 0, m.log.First()
	for i < len(m.ps) && m.ps[i] <= first {
		i++
	}
	if i > 0 {
		if err := m.log.Read(m.t.Context(), 0, func(storage.Entry) bool { return true }); err == nil {
			r.Fatalf("read from the beginning of a log trimmed up to %d reports nothing", first)
		}
	}
	err := m.log.Read(m.t.Context(), first, func(e storage.Entry) bool {
		if i == len(m.ps) || e.Position != m.ps[i] || e.Damaged || diff(e.Group, m.groups[i]) != "" {
			r.Fatalf("read yields at place %d position %d (damaged %v, %d bytes)", i, e.Position, e.Damaged, len(e.Group))
		}
		i++
		return true
	})
	if err != nil || i != len(m.ps) {
		r.Fatalf("read ended after %d of %d groups: %v", i, len(m.ps), err)
	}
}
