package storagetest

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/storage"
)

// chunksModel is what chunks should be: a map of maps.
type chunksModel struct {
	t      testing.TB
	h      Harness[storage.Chunks]
	chunks storage.Chunks
	slices map[storage.Slice]flushes
	count  uint64
}

var modelSlices = rapid.SampledFrom([]storage.Slice{-1, 0, 19_000, 19_001, 19_002, 40_000})

// testChunksModel draws random operations and checks the directory and a slice after each of them.
func testChunksModel(t *testing.T, h Harness[storage.Chunks]) {
	rapid.Check(t, func(r *rapid.T) {
		m := &chunksModel{t: t, h: h, chunks: h.Open(t), slices: make(map[storage.Slice]flushes)}
		defer func() { closeStore(t, m.chunks) }()
		r.Repeat(map[string]func(*rapid.T){
			"write": m.write, "write again": m.write, "drop": m.drop, "reopen": m.reopen, "": m.check,
		})
		for s, want := range m.slices {
			if err := checkSlice(t, m.chunks, s, want); err != nil {
				r.Fatalf("at the end: slice %d: %v", s, err)
			}
		}
	})
}

func (m *chunksModel) write(r *rapid.T) {
	s := modelSlices.Draw(r, "slice")
	flush := rapid.Uint64Range(0, 6).Draw(r, "flush")
	var blocks [][]byte
	sizes := rapid.OneOf(rapid.IntRange(0, 100), rapid.IntRange(3990, 4010), rapid.IntRange(0, 70_000))
	for _, n := range rapid.SliceOfN(sizes, 0, 5).Draw(r, "sizes") {
		m.count++
		blocks = append(blocks, noise(m.count, n))
	}
	if err := m.chunks.Write(m.t.Context(), s, flush, blocks); err != nil {
		r.Fatalf("write: %v", err)
	}
	if m.slices[s] == nil {
		m.slices[s] = flushes{}
	}
	maps.DeleteFunc(m.slices[s], func(f uint64, _ [][]byte) bool { return f >= flush })
	m.slices[s][flush] = blocks
}

func (m *chunksModel) drop(r *rapid.T) {
	s := modelSlices.Draw(r, "slice")
	if err := m.chunks.Drop(m.t.Context(), s); err != nil {
		r.Fatalf("drop: %v", err)
	}
	delete(m.slices, s)
}

func (m *chunksModel) reopen(r *rapid.T) {
	if m.h.Reopen == nil {
		r.Skip("this store forgets")
	}
	m.chunks = m.h.Reopen(m.t, m.chunks)
}

func (m *chunksModel) check(r *rapid.T) {
	got, err := m.chunks.Slices(m.t.Context())
	if want := slices.Sorted(maps.Keys(m.slices)); err != nil || !slices.Equal(got, want) {
		r.Fatalf("slices: got %v, %v, want %v", got, err, want)
	}
	if len(got) == 0 {
		return
	}
	s := rapid.SampledFrom(got).Draw(r, "check slice")
	if err := checkSlice(m.t, m.chunks, s, m.slices[s]); err != nil {
		r.Fatalf("slice %d: %v", s, err)
	}
}
