package storagetest

import (
	"sync"
	"testing"

	"telemetryhub/storage"
)

// RunLog runs the conformance suite for storage.Log.
func RunLog(t *testing.T, h Harness[storage.Log]) {
	suite(t, h, map[string]func(*testing.T, Harness[storage.Log]){
		"EmptyLogHasNoLast":       testLogEmpty,
		"GroupsComeBackInOrder":   testLogOrder,
		"SecondWriterIsFenced":    testLogFenced,
		"TooLargeWritesNothing":   testLogTooLarge,
		"CancelledWritesNothing":  testLogCancelled,
		"GroupIsNotKept":          testLogAliasing,
		"YieldStopsReading":       testLogStop,
		"AppendInsideYield":       testLogAppendInYield,
		"TrimForgetsNothingElse":  testLogTrim,
		"ClosedRefuses":           testLogClosed,
		"ReopenFindsEverything":   testLogReopen,
		"ReadersSeeWholePrefixes": testLogConcurrent,
		"FailsExactlyHere":        testLogFaults,
		"AgreesWithModel":         testLogModel,
	})
}

// logOf appends the groups and returns their positions.
func logOf(t testing.TB, l storage.Log, groups ...[]byte) []storage.Position {
	t.Helper()
	var ps []storage.Position
	for _, g := range groups {
		before := l.Last()
		p, err := l.Append(t.Context(), g, before)
		must(t, "append", err)
		if p <= before {
			t.Fatalf("append returned position %d after %d", p, before)
		}
		if got := l.Last(); got != p {
			t.Fatalf("Last() = %d after append returned %d", got, p)
		}
		ps = append(ps, p)
	}
	return ps
}

func readAll(t testing.TB, l storage.Log, after storage.Position) []storage.Entry {
	t.Helper()
	var es []storage.Entry
	err := l.Read(t.Context(), after, func(e storage.Entry) bool {
		es = append(es, e)
		return true
	})
	must(t, "read", err)
	return es
}

// wantLog checks that reading after the position yields exactly these groups.
func wantLog(t testing.TB, l storage.Log, after storage.Position, ps []storage.Position, groups [][]byte) {
	t.Helper()
	es := readAll(t, l, after)
	if len(es) != len(groups) {
		t.Fatalf("read after %d: got %d groups, want %d", after, len(es), len(groups))
	}
	for i, e := range es {
		if e.Damaged {
			t.Errorf("group %d at %d is damaged", i, e.Position)
		}
		if e.Position != ps[i] {
			t.Errorf("group %d: got position %d, want %d", i, e.Position, ps[i])
		}
		if d := diff(e.Group, groups[i]); d != "" {
			t.Errorf("group %d at %d: %s", i, e.Position, d)
		}
	}
}

// logSizes are around every boundary that a backend may have: pages, pieces, the limit.
var logSizes = []int{1, 100, 3999, 4000, 4001, 4095, 4096, 4097, 8000, 8001, 65536, 300_000, storage.MaxGroup - 1, storage.MaxGroup}

func sampleGroups() [][]byte {
	groups := make([][]byte, len(logSizes))
	for i, n := range logSizes {
		groups[i] = noise(uint64(i), n)
	}
	return groups
}

func testLogEmpty(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	if l.First() != 0 || l.Last() != 0 {
		t.Errorf("an empty log has First() = %d and Last() = %d, want 0 and 0", l.First(), l.Last())
	}
	wantLog(t, l, 0, nil, nil)
}

func testLogOrder(t *testing.T, h Harness[storage.Log]) {
	l, groups := h.open(t), sampleGroups()
	ps := logOf(t, l, groups...)
	wantLog(t, l, 0, ps, groups)
	for i, p := range ps {
		wantLog(t, l, p, ps[i+1:], groups[i+1:])
	}
	if l.Size() <= 0 {
		t.Errorf("Size() = %d", l.Size())
	}
}

func testLogFenced(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	groups := [][]byte{[]byte("one"), []byte("two")}
	ps := logOf(t, l, groups...)
	for _, last := range []storage.Position{0, ps[0], ps[1] + 1, ^storage.Position(0)} {
		_, err := l.Append(t.Context(), []byte("three"), last)
		wantError(t, "append with a wrong last position", err, storage.ErrFenced)
	}
	wantLog(t, l, 0, ps, groups)
	logOf(t, l, []byte("three")) // being fenced is not for ever
}

func testLogTooLarge(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	_, err := l.Append(t.Context(), make([]byte, storage.MaxGroup+1), 0)
	wantError(t, "append of a group over the limit", err, storage.ErrTooLarge)
	wantLog(t, l, 0, nil, nil)
}

func testLogCancelled(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	ps := logOf(t, l, []byte("one"))
	ctx := cancelled(t)
	_, err := l.Append(ctx, []byte("two"), ps[0])
	wantError(t, "append", err, ctx.Err())
	wantError(t, "trim", l.Trim(ctx, ps[0]), ctx.Err())
	err = l.Read(ctx, 0, func(storage.Entry) bool { return true })
	wantError(t, "read", err, ctx.Err())
	wantLog(t, l, 0, ps, [][]byte{[]byte("one")})
}

func testLogAliasing(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	group := noise(1, 10_000)
	mine := append([]byte{}, group...)
	ps := logOf(t, l, mine)
	clear(mine)
	for _, e := range readAll(t, l, 0) {
		clear(e.Group)
	}
	wantLog(t, l, 0, ps, [][]byte{group})
}

func testLogStop(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	logOf(t, l, []byte("one"), []byte("two"), []byte("three"))
	calls := 0
	err := l.Read(t.Context(), 0, func(storage.Entry) bool {
		calls++
		return calls < 2
	})
	wantError(t, "read", err, nil)
	if calls != 2 {
		t.Errorf("yield was called %d times after it returned false at call 2", calls)
	}
}

// testLogAppendInYield hangs if Read holds a lock while it yields, and never ends if Read chases the end of the log.
func testLogAppendInYield(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	ps := logOf(t, l, []byte("one"), []byte("two"))
	seen := 0
	err := l.Read(t.Context(), 0, func(storage.Entry) bool {
		seen++
		ps = append(ps, logOf(t, l, []byte("later"))...)
		return true
	})
	wantError(t, "read", err, nil)
	if seen != 2 {
		t.Errorf("Read yielded %d groups, want the 2 that were there when it was called", seen)
	}
	if got := len(readAll(t, l, 0)); got != len(ps) {
		t.Errorf("the log has %d groups, want %d", got, len(ps))
	}
}

func testLogTrim(t *testing.T, h Harness[storage.Log]) {
	l, groups := h.open(t), sampleGroups()
	ps := logOf(t, l, groups...)
	wantError(t, "trim up to zero", l.Trim(t.Context(), 0), nil)
	wantLog(t, l, 0, ps, groups)
	for _, n := range []int{3, 2, len(ps)} { // going back must not bring anything back
		upTo := ps[n-1]
		before := l.First()
		wantError(t, "trim", l.Trim(t.Context(), upTo), nil)
		first := l.First()
		if first > max(upTo, before) || first < before {
			t.Fatalf("First() = %d after Trim(%d), it was %d", first, upTo, before)
		}
		wantTrimmed(t, l, ps, groups)
	}
	more := logOf(t, l, []byte("more"))
	wantTrimmed(t, l, append(ps, more...), append(groups, []byte("more")))
}

// wantTrimmed checks that everything after First is there, and that nothing before it is passed over in silence.
func wantTrimmed(t testing.TB, l storage.Log, ps []storage.Position, groups [][]byte) {
	t.Helper()
	first, kept := l.First(), 0
	for kept < len(ps) && ps[kept] <= first {
		kept++
	}
	wantLog(t, l, first, ps[kept:], groups[kept:])
	if last := ps[len(ps)-1]; l.Last() != last {
		t.Errorf("Last() = %d, want %d", l.Last(), last)
	}
	for _, p := range append([]storage.Position{0}, ps...) {
		if p >= first {
			break
		}
		err := l.Read(t.Context(), p, func(e storage.Entry) bool {
			t.Errorf("read after the trimmed position %d yields %d", p, e.Position)
			return false
		})
		wantError(t, "read of what was trimmed", err, storage.ErrTrimmed)
	}
}

func testLogClosed(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	ps := logOf(t, l, []byte("one"))
	wantError(t, "close", l.Close(), nil)
	_, err := l.Append(t.Context(), []byte("two"), ps[0])
	wantError(t, "append after close", err, storage.ErrClosed)
	err = l.Read(t.Context(), 0, func(storage.Entry) bool { return true })
	wantError(t, "read after close", err, storage.ErrClosed)
	wantError(t, "trim after close", l.Trim(t.Context(), ps[0]), storage.ErrClosed)
}

func testLogReopen(t *testing.T, h Harness[storage.Log]) {
	l, groups := h.open(t), sampleGroups()
	ps := logOf(t, l, groups...)
	l = h.reopen(t, l)
	wantLog(t, l, 0, ps, groups)
	_, err := l.Append(t.Context(), []byte("x"), ps[0])
	wantError(t, "append with a wrong last position after reopening", err, storage.ErrFenced)
	ps = append(ps, logOf(t, l, []byte("more"))...)
	groups = append(groups, []byte("more"))
	must(t, "trim", l.Trim(t.Context(), ps[4]))
	l = h.reopen(t, l)
	wantTrimmed(t, l, ps, groups)
}

// testLogConcurrent checks that a reader always sees a prefix without holes that reaches at least to the position that
// Last returned before it began.
func testLogConcurrent(t *testing.T, h Harness[storage.Log]) {
	l := h.open(t)
	const count = 200
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for more := true; more; {
				select {
				case <-done:
					more = false // one last look at the whole
				default:
				}
				last, n, end := l.Last(), 0, storage.Position(0)
				err := l.Read(t.Context(), 0, func(e storage.Entry) bool {
					if d := diff(e.Group, noise(uint64(n), n*37+1)); d != "" || e.Damaged || e.Position <= end {
						t.Errorf("group %d at %d after %d (damaged %v): %s", n, e.Position, end, e.Damaged, d)
						return false
					}
					n, end = n+1, e.Position
					return true
				})
				wantError(t, "read", err, nil)
				if end < last {
					t.Errorf("read ended at %d, Last() was %d before", end, last)
					return
				}
			}
		})
	}
	for i := range count {
		logOf(t, l, noise(uint64(i), i*37+1))
	}
	close(done)
	wg.Wait()
}
