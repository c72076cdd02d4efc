package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"telemetryhub/storage"
)

// RunChunks runs the conformance suite for storage.Chunks.
func RunChunks(t *testing.T, h Harness[storage.Chunks]) {
	suite(t, h, map[string]func(*testing.T, Harness[storage.Chunks]){
		"BlocksComeBack":         testChunksBlocks,
		"MissingIsNotFound":      testChunksMissing,
		"RepeatedFlushReplaces":  testChunksReplace,
		"TooLargeWritesNothing":  testChunksTooLarge,
		"CancelledWritesNothing": testChunksCancelled,
		"BlocksAreCopies":        testChunksAliasing,
		"YieldMayDoAnything":     testChunksYield,
		"DropForgetsTheSlice":    testChunksDrop,
		"ManySlices":             testChunksManySlices,
		"ClosedRefuses":          testChunksClosed,
		"ReopenFindsEverything":  testChunksReopen,
		"ReadersBesideWriters":   testChunksConcurrent,
		"FailsExactlyHere":       testChunksFaults,
		"AgreesWithModel":        testChunksModel,
	})
}

func write(t testing.TB, c storage.Chunks, slice storage.Slice, flush uint64, blocks ...[]byte) {
	t.Helper()
	must(t, fmt.Sprintf("write flush %d of slice %d", flush, slice), c.Write(t.Context(), slice, flush, blocks))
}

// flushes is what a slice should hold.
type flushes map[uint64][][]byte

// checkSlice says what is wrong with a slice: its directory and every block.
func checkSlice(t testing.TB, c storage.Chunks, slice storage.Slice, want flushes) error {
	var keys []storage.BlockKey
	for flush, blocks := range want {
		for i := range blocks {
			keys = append(keys, storage.BlockKey{Flush: flush, Index: uint32(i)})
		}
	}
	slices.SortFunc(keys, func(a, b storage.BlockKey) int {
		if a.Flush != b.Flush {
			return 1 - 2*btoi(a.Flush < b.Flush)
		}
		return int(a.Index) - int(b.Index)
	})
	i := 0
	var wrong error
	err := c.Blocks(t.Context(), slice, func(key storage.BlockKey, size int) bool {
		if i == len(keys) || key != keys[i] || size != len(want[key.Flush][key.Index]) {
			wrong = fmt.Errorf("the directory has %+v of %d bytes at place %d", key, size, i)
			return false
		}
		i++
		return true
	})
	if wrong != nil {
		return wrong
	}
	if err != nil || i != len(keys) {
		return fmt.Errorf("the directory ended after %d of %d blocks: %w", i, len(keys), err)
	}
	for _, key := range keys {
		got, err := c.Block(t.Context(), slice, key)
		if err != nil {
			return fmt.Errorf("block %+v: %w", key, err)
		}
		if d := diff(got, want[key.Flush][key.Index]); d != "" {
			return fmt.Errorf("block %+v: %s", key, d)
		}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func wantSlice(t testing.TB, c storage.Chunks, slice storage.Slice, want flushes) {
	t.Helper()
	if err := checkSlice(t, c, slice, want); err != nil {
		t.Errorf("slice %d: %v", slice, err)
	}
}

func wantSlices(t testing.TB, c storage.Chunks, want ...storage.Slice) {
	t.Helper()
	got, err := c.Slices(t.Context())
	must(t, "slices", err)
	if !slices.Equal(got, want) {
		t.Errorf("got slices %v, want %v", got, want)
	}
}

func sampleFlushes() flushes {
	f := flushes{
		1:              {[]byte("a"), {}, noise(1, 3999), noise(2, 4000), noise(3, 4001)},
		2:              {},
		7:              {noise(4, 8000), noise(5, 8001), noise(6, 32<<10)},
		1 << 40:        {noise(7, storage.MaxBlock), noise(8, storage.MaxBlock-1)},
		^uint64(0) - 1: {[]byte("last")},
	}
	for i := range 40 {
		f[7] = append(f[7], noise(uint64(100+i), i*97))
	}
	return f
}

func writeAll(t testing.TB, c storage.Chunks, slice storage.Slice, f flushes) {
	t.Helper()
	var nums []uint64
	for num := range f {
		nums = append(nums, num)
	}
	slices.Sort(nums)
	for _, num := range nums {
		write(t, c, slice, num, f[num]...)
	}
}

func testChunksBlocks(t *testing.T, h Harness[storage.Chunks]) {
	c, f := h.open(t), sampleFlushes()
	wantSlices(t, c)
	writeAll(t, c, 20_000, f)
	wantSlices(t, c, 20_000)
	wantSlice(t, c, 20_000, f)
	if c.Size() < 600<<10 {
		t.Errorf("Size() = %d for more than 600 KiB of noise", c.Size())
	}
}

func testChunksMissing(t *testing.T, h Harness[storage.Chunks]) {
	c := h.open(t)
	write(t, c, 1, 5, []byte("block"))
	write(t, c, 1, 7, []byte("block"))
	for _, key := range []storage.BlockKey{{Flush: 5, Index: 1}, {Flush: 6}, {Flush: 0}, {Flush: 8}, {Flush: 5, Index: ^uint32(0)}} {
		_, err := c.Block(t.Context(), 1, key)
		wantError(t, fmt.Sprintf("block %+v", key), err, storage.ErrNotFound)
	}
	_, err := c.Block(t.Context(), 2, storage.BlockKey{Flush: 5})
	wantError(t, "block of a missing slice", err, storage.ErrNotFound)
	err = c.Blocks(t.Context(), 2, func(storage.BlockKey, int) bool { return true })
	wantError(t, "blocks of a missing slice", err, storage.ErrNotFound)
	wantSlices(t, c, 1) // looking must not create
}

func testChunksReplace(t *testing.T, h Harness[storage.Chunks]) {
	c := h.open(t)
	write(t, c, 1, 1, []byte("1"))
	write(t, c, 1, 2, []byte("2a"), noise(1, 20_000), []byte("2c"))
	write(t, c, 1, 3, []byte("3a"))
	write(t, c, 1, 4, []byte("4a"))
	write(t, c, 2, 3, []byte("another slice"))
	write(t, c, 1, 2, noise(2, 9000), []byte("new"))
	wantSlice(t, c, 1, flushes{1: {[]byte("1")}, 2: {noise(2, 9000), []byte("new")}})
	wantSlice(t, c, 2, flushes{3: {[]byte("another slice")}})
	write(t, c, 1, 3, []byte("3 again"))
	if h.Reopen != nil {
		c = h.reopen(t, c)
	}
	wantSlice(t, c, 1, flushes{1: {[]byte("1")}, 2: {noise(2, 9000), []byte("new")}, 3: {[]byte("3 again")}})
	write(t, c, 1, 0)
	wantSlice(t, c, 1, flushes{})
	wantSlices(t, c, 1, 2)
}

func testChunksTooLarge(t *testing.T, h Harness[storage.Chunks]) {
	c := h.open(t)
	big := make([]byte, storage.MaxBlock+1)
	err := c.Write(t.Context(), 1, 1, [][]byte{[]byte("a"), big})
	wantError(t, "write a block over the limit", err, storage.ErrTooLarge)
	wantSlices(t, c)
	write(t, c, 1, 1, []byte("a"))
	err = c.Write(t.Context(), 1, 1, [][]byte{big})
	wantError(t, "write a block over the limit", err, storage.ErrTooLarge)
	wantSlice(t, c, 1, flushes{1: {[]byte("a")}})
}

func testChunksCancelled(t *testing.T, h Harness[storage.Chunks]) {
	c, ctx := h.open(t), cancelled(t)
	write(t, c, 1, 1, []byte("a"))
	wantError(t, "write", c.Write(ctx, 1, 1, [][]byte{[]byte("b")}), ctx.Err())
	_, err := c.Block(ctx, 1, storage.BlockKey{Flush: 1})
	wantError(t, "block", err, ctx.Err())
	_, err = c.Slices(ctx)
	wantError(t, "slices", err, ctx.Err())
	wantError(t, "blocks", c.Blocks(ctx, 1, func(storage.BlockKey, int) bool { return true }), ctx.Err())
	wantError(t, "drop", c.Drop(ctx, 1), ctx.Err())
	wantSlice(t, c, 1, flushes{1: {[]byte("a")}})
}

func testChunksAliasing(t *testing.T, h Harness[storage.Chunks]) {
	c := h.open(t)
	block := noise(1, 10_000)
	mine := append([]byte{}, block...)
	write(t, c, 1, 1, mine)
	clear(mine)
	got, err := c.Block(t.Context(), 1, storage.BlockKey{Flush: 1})
	must(t, "block", err)
	clear(got)
	wantSlice(t, c, 1, flushes{1: {block}})
}

// testChunksYield hangs if Blocks holds a lock or a transaction while it yields.
func testChunksYield(t *testing.T, h Harness[storage.Chunks]) {
	c := h.open(t)
	want := flushes{}
	for i := range 20 {
		want[uint64(i)] = [][]byte{noise(uint64(i), 5000), noise(uint64(i), 10)}
	}
	writeAll(t, c, 1, want)
	calls := 0
	err := c.Blocks(t.Context(), 1, func(key storage.BlockKey, size int) bool {
		calls++
		got, err := c.Block(t.Context(), 1, key)
		if err != nil || len(got) != size {
			t.Errorf("block %+v: %d bytes, %v, the directory says %d", key, len(got), err, size)
		}
		num := uint64(100 + calls)
		want[num] = [][]byte{noise(num, 300<<8)} // enough for the store to grow
		write(t, c, 1, num, want[num]...)
		return calls < 10
	})
	wantError(t, "blocks", err, nil)
	if calls != 10 {
		t.Errorf("yield was called %d times after it returned false at call 10", calls)
	}
	wantSlice(t, c, 1, want)
}

func testChunksDrop(t *testing.T, h Harness[storage.Chunks]) {
	c := h.open(t)
	wantError(t, "drop of a missing slice", c.Drop(t.Context(), 1), nil)
	write(t, c, 1, 1, []byte("a"))
	write(t, c, 2, 9, noise(1, 100_000))
	before := c.Size()
	must(t, "drop", c.Drop(t.Context(), 2))
	if c.Size() >= before {
		t.Errorf("Size() = %d after dropping, %d before", c.Size(), before)
	}
	wantSlices(t, c, 1)
	_, err := c.Block(t.Context(), 2, storage.BlockKey{Flush: 9})
	wantError(t, "block of a dropped slice", err, storage.ErrNotFound)
	write(t, c, 2, 3, []byte("again")) // a smaller flush number: nothing of the old slice is left
	wantSlice(t, c, 2, flushes{3: {[]byte("again")}})
	must(t, "drop", c.Drop(t.Context(), 1))
	if h.Reopen != nil {
		c = h.reopen(t, c)
	}
	wantSlices(t, c, 2)
	wantSlice(t, c, 2, flushes{3: {[]byte("again")}})
}

// testChunksManySlices goes round many slices, more than a backend would keep open.
func testChunksManySlices(t *testing.T, h Harness[storage.Chunks]) {
	c := h.open(t)
	want := make(map[storage.Slice]flushes)
	var order []storage.Slice
	for i := range 25 {
		s := storage.Slice(i*400 - 800)
		order = append(order, s)
		want[s] = flushes{}
	}
	for round := range uint64(2) {
		for _, s := range order {
			want[s][round] = [][]byte{noise(uint64(s)+round, 600), noise(uint64(s)+round, 6000)}
			write(t, c, s, round, want[s][round]...)
		}
	}
	wantSlices(t, c, order...)
	for _, s := range order {
		wantSlice(t, c, s, want[s])
	}
}

func testChunksClosed(t *testing.T, h Harness[storage.Chunks]) {
	c, ctx := h.open(t), t.Context()
	write(t, c, 1, 1, []byte("a"))
	wantError(t, "close", c.Close(), nil)
	wantError(t, "write after close", c.Write(ctx, 1, 2, [][]byte{[]byte("b")}), storage.ErrClosed)
	_, err := c.Block(ctx, 1, storage.BlockKey{Flush: 1})
	wantError(t, "block after close", err, storage.ErrClosed)
	_, err = c.Slices(ctx)
	wantError(t, "slices after close", err, storage.ErrClosed)
	err = c.Blocks(ctx, 1, func(storage.BlockKey, int) bool { return true })
	wantError(t, "blocks after close", err, storage.ErrClosed)
	wantError(t, "drop after close", c.Drop(ctx, 1), storage.ErrClosed)
}

func testChunksReopen(t *testing.T, h Harness[storage.Chunks]) {
	c, f := h.open(t), sampleFlushes()
	writeAll(t, c, -3, f)
	writeAll(t, c, 3, flushes{4: {[]byte("x")}})
	size := c.Size()
	c = h.reopen(t, c)
	wantSlices(t, c, -3, 3)
	wantSlice(t, c, -3, f)
	wantSlice(t, c, 3, flushes{4: {[]byte("x")}})
	if got := c.Size(); got != size {
		t.Errorf("Size() = %d after reopening, %d before", got, size)
	}
}

// testChunksConcurrent lets writers fill slices of their own and a shared one, drop slices, and readers read all the time.
func testChunksConcurrent(t *testing.T, h Harness[storage.Chunks]) {
	c := h.open(t)
	const rounds = 12
	block := func(s storage.Slice, flush uint64, i int) []byte {
		return noise(uint64(s)<<32|flush<<8|uint64(i), 2000*(i+1))
	}
	done := make(chan struct{})
	var writers, readers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for flush := range uint64(rounds) {
				s := storage.Slice(w*100 + int(flush)/3) // four slices each, sixteen in all
				if err := c.Write(t.Context(), s, flush, [][]byte{block(s, flush, 0), block(s, flush, 1)}); err != nil {
					t.Errorf("write: %v", err)
				}
			}
			if err := c.Drop(t.Context(), storage.Slice(w*100)); err != nil {
				t.Errorf("drop: %v", err)
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := readEverything(t, c, block); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
	for w := range 4 {
		for s := storage.Slice(w*100 + 1); s < storage.Slice(w*100+4); s++ {
			want := flushes{}
			for i := range uint64(3) {
				flush := uint64(s%100)*3 + i
				want[flush] = [][]byte{block(s, flush, 0), block(s, flush, 1)}
			}
			wantSlice(t, c, s, want)
		}
	}
}

// readEverything reads all blocks that it can find. A slice may be dropped meanwhile, and nothing else may happen.
func readEverything(t testing.TB, c storage.Chunks, block func(storage.Slice, uint64, int) []byte) error {
	all, err := c.Slices(t.Context())
	if err != nil {
		return err
	}
	for _, s := range all {
		var wrong error
		err := c.Blocks(t.Context(), s, func(key storage.BlockKey, _ int) bool {
			got, err := c.Block(t.Context(), s, key)
			if err == nil && diff(got, block(s, key.Flush, int(key.Index))) != "" {
				err = fmt.Errorf("slice %d block %+v: %s", s, key, diff(got, block(s, key.Flush, int(key.Index))))
			}
			wrong = unlessDropped(s, err)
			return wrong == nil
		})
		if err = unlessDropped(s, err); err != nil {
			return err
		}
		if wrong != nil {
			return wrong
		}
	}
	return nil
}

// unlessDropped forgives ErrNotFound for the slices that are dropped while the test runs.
func unlessDropped(s storage.Slice, err error) error {
	if s%100 == 0 && errors.Is(err, storage.ErrNotFound) {
		return nil
	}
	return err
}
