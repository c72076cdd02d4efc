package hub

import (
	"testing"

	"pgregory.net/rapid"

	"telemetryhub/storage"
)

func TestLedgerIsOffByAFewPercentAtMost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l ledger
		l.begin(0)
		n := rapid.IntRange(1, 50_000).Draw(t, "groups")
		size := rapid.IntRange(1, 100_000).Draw(t, "size")
		for i := 1; i <= n; i++ {
			l.note(storage.Position(3*i), size, int64(i))
			l.note(storage.Position(3*i), size, int64(i)) // again
		}
		rec := l.record()
		var back ledger
		back.begin(0)
		if len(rec) > maxMarks || !back.restore(rec) {
			t.Fatalf("%d marks do not come back", len(rec))
		}
		for range 20 {
			i := rapid.IntRange(0, n).Draw(t, "at")
			lag := uint64(n - i)
			for _, l := range []*ledger{&l, &back} {
				at := l.at(storage.Position(3 * i))
				got := l.end.groups - at.groups
				if got < lag || float64(got) > 1.05*float64(lag)+1 {
					t.Fatalf("%d of %d groups behind: says %d", lag, n, got)
				}
				if at.bytes != at.groups*uint64(size) || at.groups > 0 && at.atMS != int64(at.groups) {
					t.Fatalf("%+v", at)
				}
				if m := l.reach(at.bytes); m != at {
					t.Fatalf("reach says %+v, at %+v", m, at)
				}
			}
		}
		l.forget(storage.Position(3 * n))
		if len(l.marks) != 1 || l.at(storage.Position(3*n)) != l.end {
			t.Fatalf("%d marks are left", len(l.marks))
		}
	})
}

func TestLedgerRefusesWhatItNeverWrote(t *testing.T) {
	var l ledger
	l.begin(7)
	for _, rec := range [][][4]uint64{nil, {{3, 0, 0, 0}, {3, 1, 1, 1}}, {{3, 5, 5, 0}, {4, 4, 6, 0}}, {{3, 5, 5, 0}, {4, 6, 4, 0}}, make([][4]uint64, maxMarks+1)} {
		if l.restore(rec) || l.end.pos != 7 {
			t.Errorf("took %v", rec)
		}
	}
}
